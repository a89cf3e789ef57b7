"""Shared by the tests of deploy/: where checkers are, and what a PromQL expression asks for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import promql_parser
import pytest

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"

SCRAPED = {"job", "instance"}
"""Labels that Prometheus itself gives."""


def tool(name: str) -> str | None:
    """Find a checker: of this environment, of the system, or fetched by `make tools`."""
    beside = Path(sys.executable).parent
    return shutil.which(name, path=f"{beside}:{sys.prefix}/tools/usr/bin") or shutil.which(name)


promtool = tool("promtool")
with_promtool = pytest.mark.skipif(
    promtool is None, reason="NO PROMTOOL: `make tools` fetches it; no Prometheus file was checked"
)


def checked(*command: object) -> str:
    """Run a checker that must be content; give what it says."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def documented_metrics() -> dict[str, set[str]]:
    """Give the labels of each metric that docs/metrics.md lists."""
    page = (ROOT / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| `(nptwatch_\w+)` \| (.*?) \|", page, flags=re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def asked_for(expression: str) -> dict[str, set[str]]:
    """Give the metrics that a PromQL expression selects, with the labels it selects them by."""
    metrics: dict[str, set[str]] = {}

    def note(part: promql_parser.Expr) -> bool:
        if isinstance(part, promql_parser.VectorSelector):
            assert part.name, expression
            labels = {matcher.name for matcher in part.matchers.matchers}
            metrics.setdefault(part.name, set()).update(labels - {"__name__"})
        return True

    promql_parser.walk(promql_parser.parse(expression), note)
    assert metrics, expression
    return metrics


def undocumented(expression: str) -> list[str]:
    """Give what an expression asks for and docs/metrics.md does not promise."""
    known = documented_metrics() | {"up": set()}
    return [
        f"{name}: {sorted(labels)}"
        for name, labels in asked_for(expression).items()
        if name not in known or not labels <= known[name] | SCRAPED
    ]
