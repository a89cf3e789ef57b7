"""The units of deploy/systemd, by systemd's own checkers."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "deploy/systemd"
SYSTEM = ("nptwatch.service", "nptwatch-worker@.service")
PERSONAL = tuple(f"user/{name}" for name in SYSTEM)
MOST_EXPOSED = 3.0

analyze = shutil.which("systemd-analyze")
with_systemd = pytest.mark.skipif(
    analyze is None, reason="NO SYSTEMD: systemd-analyze is not installed, no unit was checked"
)


def installed(name: str, folder: Path) -> Path:
    """Give a unit as where nptwatch is installed: its program is there."""
    unit = folder / Path(name).name
    text = (UNITS / name).read_text()
    assert len(re.findall(r"^ExecStart=\S*/nptwatch ", text, flags=re.MULTILINE)) == 1
    unit.write_text(
        re.sub(r"^ExecStart=\S*/nptwatch", "ExecStart=/bin/true", text, flags=re.MULTILINE)
    )
    return unit


@with_systemd
@pytest.mark.parametrize("name", [*SYSTEM, *PERSONAL])
def test_units_are_as_systemd_wants_them(name: str, tmp_path: Path) -> None:
    """No unknown key, no value that it ignores: it says so on standard error only."""
    unit = installed(name, tmp_path)
    where = ["--user"] if "user" in name else []

    def verified() -> str:
        done = subprocess.run(
            [str(analyze), "verify", *where, str(unit)],
            env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stderr

    assert verified() == ""
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchDogSec="))
    assert "WatchDogSec" in verified(), "the check can fail"


@with_systemd
@pytest.mark.parametrize("name", SYSTEM)
def test_units_are_exposed_little(name: str, tmp_path: Path) -> None:
    """As far as a GPU allows."""
    done = subprocess.run(
        [str(analyze), "security", "--offline=true", str(installed(name, tmp_path))],
        capture_output=True,
        text=True,
        check=False,
    )
    (level,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert float(level) < MOST_EXPOSED, done.stdout


@pytest.mark.parametrize("name", [*SYSTEM, *PERSONAL])
def test_units_ask_for_what_the_daemon_says(name: str) -> None:
    """It is ready when it says so, is killed when it hangs, and gets the time that it asks for."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=["="])
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    service = parser["Service"]
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert service["Restart"] == "on-failure"
    assert int(service["WatchdogSec"]) >= 60
    assert int(service["TimeoutStopSec"]) >= 60
    assert service["IOSchedulingClass"] == "idle"
    # a person's own is where their commands look for it, whatever systemd would call so
    assert service.get("StateDirectory") == ("nptwatch" if name in SYSTEM else None)
