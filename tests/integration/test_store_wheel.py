"""Migrations and units travel in the wheel, and processes may upgrade at the same time."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from nptwatch.store import migrate
from nptwatch.store.engine import Database

REPOSITORY = Path(__file__).resolve().parents[2]

UPGRADE = """
import sys
from nptwatch.store import migrate
from nptwatch.store.engine import Database
database = Database(sys.argv[1])
migrate.upgrade(database)
migrate.check(database)
print(migrate.__file__)
"""


def test_installed_wheel_can_upgrade(tmp_path: Path) -> None:
    """An installation without the repository finds its migrations and makes the tables."""
    built = subprocess.run(
        [
            *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),  # no network
            *("--outdir", str(tmp_path), str(REPOSITORY)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    done = subprocess.run(
        [sys.executable, "-c", UPGRADE, f"sqlite:///{tmp_path}/new.db"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(site)
    subprocess.run(
        [sys.executable, "-m", "nptwatch", "service", "install", "--root", str(tmp_path / "root")],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": ""},
        check=True,
    )
    units = {path.name for path in (tmp_path / "root").rglob("*.service")}
    assert units == {"nptwatch.service", "nptwatch-worker@.service"}, "they travel in the wheel too"


def test_processes_upgrade_at_the_same_time(tmp_path: Path) -> None:
    """Daemon and command may both start on nothing: one makes the tables, all go on."""
    url = f"sqlite:///{tmp_path}/new.db"
    processes = [
        subprocess.Popen([sys.executable, "-c", UPGRADE, url], stdout=subprocess.DEVNULL)
        for _ in range(5)
    ]
    assert [process.wait(timeout=60) for process in processes] == [0] * 5
    database = Database(url)
    assert migrate.current(database) == migrate.head()
    database.close()
