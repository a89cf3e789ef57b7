"""The README's transcripts are what its commands print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nptwatch.cli.main import VERBS, main

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n\$ ([^\n]+\n(?:> [^\n]*\n)*)(.*?)```", README, flags=re.DOTALL)
LEFT_OUT = "...\n"
"""A line that stands for any lines."""


def pattern_of(printed: str) -> str:
    """Make a transcript an expression; times differ from run to run, nothing else may."""
    told = (re.escape(part) for part in f"\n{printed}".split(f"\n{LEFT_OUT}"))
    return re.sub(r"\d+\\\.\d\ds", r"\\d+\\.\\d\\ds", "\n(?:.*\n)?".join(told))


def is_one_command(typed: str) -> bool:
    """Tell whether it is a command of ours with arguments, and nothing else."""
    return re.fullmatch(r"nptwatch [\w./ -]+", typed) is not None


@pytest.mark.parametrize(
    ("command", "printed"), BLOCKS, ids=[" ".join(b[0].split()[:2]) for b in BLOCKS]
)
def test_a_transcript_is_what_the_command_prints(
    command: str,
    printed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Run as it stands there, in a folder that has the repository's tests in it."""
    (tmp_path / "tests").symlink_to(REPOSITORY / "tests")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NPTWATCH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    typed = command.replace("\n> ", "\n").strip()
    if is_one_command(typed):
        assert main(shlex.split(typed)[1:]) == 0
    else:
        subprocess.run(["/bin/sh", "-ec", typed], check=True, timeout=120)
    out = capfd.readouterr().out
    assert re.fullmatch(pattern_of(printed), f"\n{out}", flags=re.DOTALL), out


def test_there_are_transcripts() -> None:
    """An empty list must not pass; every example of the guide has one."""
    typed = [command for command, _ in BLOCKS]
    for example in (
        r"quick .*--no_accuracy\n",
        r"quick .*/base\n",
        r"quick .*--verbose\n",
        r"full .*npt_weights.pt .*/base --quick\n",
        r"full .*npt_weights.pt .*/base\n",
        r"full .*--detailed\n",
        r"full .*--output results.json",
        r"full .*/checkpoints --model_name",
        r"for step in .*\n(.*\n)*.*grep -E",
    ):
        assert any(re.search(example, command) for command in typed), example


def test_every_command_of_the_readme_exists() -> None:
    """Verbs and flags that the README names are known to the command."""
    named = set(re.findall(r"`nptwatch ([a-z]+)", README))
    assert {"run", "quick", "status", "history", "wait", "scan"} <= named
    assert named <= set(VERBS)


def test_make_targets_of_the_readme_exist() -> None:
    """`make demo` and `make test` are the two commands that do all the set-up."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^make ([a-z]+)", README, flags=re.MULTILINE))
    assert targets == {"demo", "test"}
    assert all(f"\n{target}:" in makefile for target in targets)
