"""`nptwatch doctor`: the real command, on sound machines, broken ones, and one that hangs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

Ended: TypeAlias = "subprocess.CompletedProcess[str]"

GOLDEN = Path(__file__).parents[1] / "data/golden"
HUNG = Path(__file__).with_name("hung_mount.py")
CONFIG = f"""
state_dir = "state"
[watch]
roots = ["experiments"]
[base]
model = "{GOLDEN / "base"}"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with settings, a run and a state folder."""
    shutil.copytree(GOLDEN / "run/experiments", tmp_path / "experiments")
    (tmp_path / "nptwatch.toml").write_text(CONFIG)
    (tmp_path / "state").mkdir()
    return tmp_path


@pytest.fixture
def doctor(place: Path) -> Callable[..., Ended]:
    """Runs the command there."""

    def run(*words: str, before: tuple[str, ...] = ()) -> Ended:
        return subprocess.run(
            [*before, sys.executable, "-m", "nptwatch", "doctor", *words],
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


def snapshot(folder: Path) -> dict[Path, int]:
    """Give all that is below a folder, with its times."""
    return {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def test_a_sound_machine(doctor: Callable[..., Ended], place: Path) -> None:
    """Exit code 0; every part is looked at; nothing is changed anywhere."""
    before = snapshot(place)
    ended = doctor("--json")
    report = json.loads(ended.stdout)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert report["mark"] in {"OK", "WARN"}
    checks = [finding["check"] for finding in report["findings"]]
    assert [check.split(" /")[0] for check in checks] == [
        "settings",
        *("root", "files of", "clock of"),
        *("events", "inotify limits"),
        *("state folder", "clock of"),
        *("database", "versions", "torch", "device", "base model"),
    ]
    assert set(report["findings"][0]) == {"check", "mark", "text", "fix"}
    changed = {path for path, at in snapshot(place).items() if before.get(path) != at}
    assert changed <= {place / "state"}  # the probe was there


def test_failures_and_their_fixes(doctor: Callable[..., Ended], place: Path) -> None:
    """Exit code 1; a line for each with its fix; broken settings are an error as everywhere."""
    (place / "nptwatch.toml").write_text(
        CONFIG.replace('"experiments"', '"experiments", "nowhere"')
        + '[worker]\ndevice = "tpu"\n[channels.hook]\ntype = "webhook"\n'
        'url_env = "NPTWATCH_SECRET_NOT_SET"\nkey_env = "NPTWATCH_SECRET_NOT_SET"\n'
    )
    ended = doctor("--send")
    assert ended.returncode == 1
    lines = ended.stdout.splitlines()
    failed = [n for n, line in enumerate(lines) if line.startswith("FAIL  ")]
    assert [lines[n].split(":")[0].split(" /")[0] for n in failed] == [
        "FAIL  root",
        "FAIL  device",
        "FAIL  channel hook",
    ]
    fixes = [line for line in lines if line.startswith("      fix: ")]
    assert len(fixes) == len(failed)
    assert lines[-1].endswith("0 WARN, 3 FAIL")
    (place / "nptwatch.toml").write_text("[watch]\nroot = []\n")
    assert doctor().returncode == 2


def test_a_file_system_that_does_not_answer(doctor: Callable[..., Ended], place: Path) -> None:
    """A dead server hangs whoever looks below its mount: the doctor says so and goes on."""
    dead = place / "dead"
    dead.mkdir()
    begun = time.monotonic()
    ended = doctor("--json", str(dead), before=(sys.executable, str(HUNG), str(dead)))
    if ended.returncode == 77:
        pytest.skip(f"a file system of one's own cannot be mounted here: {ended.stdout.strip()}")
    assert time.monotonic() - begun < 30
    assert ended.returncode == 1
    found = {f["check"]: f for f in json.loads(ended.stdout)["findings"]}
    assert found[f"root {dead}"]["mark"] == "FAIL"
    assert "no answer within" in found[f"root {dead}"]["text"]
    assert "does not answer" in found[f"root {dead}"]["fix"]
    assert [check for check in found if found[check]["mark"] == "FAIL"] == [f"root {dead}"]
