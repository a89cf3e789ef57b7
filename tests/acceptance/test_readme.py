"""The README's transcripts are what its commands print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n\$ (.+?)\n(.*?)```", README, flags=re.DOTALL)


def comparable(text: str) -> str:
    """Times differ from run to run; nothing else may."""
    return re.sub(r"\d+\.\d\ds", "_s", text).strip()


@pytest.mark.parametrize(("command", "printed"), BLOCKS, ids=[b[0].split()[1] for b in BLOCKS])
def test_a_transcript_is_what_the_command_prints(
    command: str, printed: str, tmp_path: Path
) -> None:
    """Run as it stands there, from the repository's folder."""
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NPTWATCH_STATE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=REPOSITORY,
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert comparable(done.stdout) == comparable(printed)


def test_there_are_transcripts() -> None:
    """An empty list must not pass."""
    assert len(BLOCKS) >= 3


def test_every_command_of_the_readme_exists() -> None:
    """Verbs and flags that the README names are known to the command."""
    from nptwatch.cli.main import VERBS

    named = set(re.findall(r"`nptwatch ([a-z]+)", README))
    assert {"run", "quick", "status", "history", "wait", "scan"} <= named
    assert named <= set(VERBS)


def test_make_targets_of_the_readme_exist() -> None:
    """`make demo` and `make test` are the two commands that do all the set-up."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^make ([a-z]+)", README, flags=re.MULTILINE))
    assert targets == {"demo", "test"}
    assert all(f"\n{target}:" in makefile for target in targets)
