"""Keepers that are killed, that meet others, and whose folder moves."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from keeping import KIB, Keep
from watching import until

from nptwatch.store.records import KeptState

if TYPE_CHECKING:
    from pathlib import Path

    from nptwatch.store.engine import Database

KEPT = KeptState.KEPT
BIG = 12 * KIB
"""Kilobytes of a file that is copied in several pieces."""


@pytest.fixture
def keep(database: Database, tmp_path: Path) -> Keep:
    """Give a place with nothing in it."""
    return Keep(database, tmp_path)


def test_what_was_put_there_unsaid_is_taken(keep: Keep) -> None:
    """Killed after the rename, before the row; then the trainer rotates: the pin is found."""
    weights = keep.checkpoint("checkpoint-100", 0.08)
    keep.keeper().turn()
    row = keep.row(100)
    assert row.file is not None
    assert keep.store.spoiled(row.kept_id, row.file.place, "as if it was never said")
    keep.rotate(weights)
    keep.keeper().turn()
    assert keep.states() == {100: KEPT}
    assert keep.file(100).exists()


def test_a_folder_that_moved_is_known(keep: Keep, tmp_path: Path) -> None:
    """Mounted elsewhere, by a host of another name: its own identity says whose rows they are."""
    keep.checkpoint("checkpoint-100", 0.08)
    keep.keeper().turn()
    keep.folder = keep.folder.rename(tmp_path / "moved")
    keep.keeper().turn()
    assert keep.file(100).is_relative_to(tmp_path / "moved")
    pointer = keep.pointer()
    assert pointer is not None
    assert pointer["path"] == str(keep.file(100))


@pytest.mark.both_engines
def test_of_two_hosts_the_first_one_keeps(keep: Keep, database: Database, tmp_path: Path) -> None:
    """The other makes nothing, and takes back what it made when it comes second."""
    other = Keep(database, tmp_path, tmp_path / "other")
    keep.checkpoint("checkpoint-100", 0.08)
    copied = keep.checkpoint("best", 0.07, kilobytes=BIG)

    def overtaken() -> bool:
        """While it copies, the first host is done."""
        keep.keeper().turn()
        return False

    other.keeper(overtaken).turn()
    assert keep.states() == {100: KEPT, None: KEPT}
    assert keep.file(None).is_relative_to(keep.folder)
    assert not list(other.folder.rglob(f"*/best/{copied.name}"))
    held = [path for path in other.files() if path.endswith(".pt")]
    kept_there = [
        row for row in keep.store.rows() if row.file and str(other.folder) in row.file.path
    ]
    assert len(held) == len(kept_there)

    keep.store.release([row.kept_id for row in keep.store.rows()], "by a test")
    other.keeper().turn()
    keep.keeper().turn()
    assert [path for path in (*keep.files(), *other.files()) if path.endswith(".pt")] == []


TURN = """
import sys
from pathlib import Path
from nptwatch.settings import KeptSettings
from nptwatch.store.engine import Database
from nptwatch.store.kept import Kept
from nptwatch.worker.keeper import Keeper
from nptwatch.worker.shelf import Shelf
from nptwatch.errors import DatabaseError
store = Kept(Database(sys.argv[1]))
keeper = Keeper(store=store, shelf=Shelf(Path(sys.argv[2]), []),
                settings=KeptSettings(reserve_gib=0), stopping=lambda: False)
print("ready", flush=True)
sys.stdin.readline()
while any(row.sources for row in store.wanted()):
    keeper.turn(wait=sys.argv[3] == "wait")
"""


def turning(database: Database, keep: Keep, wait: str) -> subprocess.Popen[str]:
    """Start a process that takes turns until nothing is wanted."""
    url = database.engine.url.render_as_string(hide_password=False)
    child = subprocess.Popen(
        [sys.executable, "-c", TURN, url, str(keep.folder), wait],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def go(child: subprocess.Popen[str]) -> None:
    """Let it begin."""
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def end(child: subprocess.Popen[str]) -> int:
    """Wait for its end; give the exit code."""
    code = child.wait(60)
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        pipe.close()
    return code


@pytest.mark.both_engines
def test_many_processes_keep_each_checkpoint_once(keep: Keep, database: Database) -> None:
    """Workers and the daemon at once: each has a file, none has two, nothing is left over."""
    for step in range(8, 0, -1):
        keep.checkpoint(f"checkpoint-{step}", 0.01 + step / 100)
    keep.checkpoint("best", 0.005, kilobytes=BIG)
    children = [turning(database, keep, wait) for wait in ("wait", "wait", "no", "no")]
    for child in children:
        go(child)
    assert [end(child) for child in children] == [0, 0, 0, 0]
    assert set(keep.states().values()) == {KEPT}
    files = [path for path in keep.files() if path.endswith(".pt")]
    assert len(files) == len(keep.states())
    assert not [path for path in keep.files() if ".making" in path]


def test_killed_at_any_moment_a_pin_is_whole_or_not_there(keep: Keep, database: Database) -> None:
    """SIGKILL in the middle of a copy, again and again; in the end all is as if there was none."""
    best = keep.checkpoint("best", 0.08, kilobytes=2 * BIG)
    kills = 0
    for _ in range(3):
        child = turning(database, keep, "wait")
        go(child)
        until(lambda child=child: _half_made(keep) or child.poll() is not None, seconds=30)
        child.send_signal(signal.SIGKILL)
        kills += end(child) == -signal.SIGKILL
        for path in keep.folder.glob("run1-*/*/*/npt_weights.pt"):
            assert path.read_bytes() == best.read_bytes()
    keep.keeper().turn()
    assert kills > 0
    assert keep.states() == {None: KEPT}
    assert keep.file(None).read_bytes() == best.read_bytes()
    assert not list(keep.folder.glob(".making*"))


def _half_made(keep: Keep) -> bool:
    return any(path.stat().st_size for path in keep.folder.glob(".making*/*/npt_weights.pt"))


def test_a_turn_that_somebody_has_is_left_to_them(keep: Keep) -> None:
    """Neither swept nor made: what looks half-made is in somebody's hands."""
    keep.checkpoint("checkpoint-100", 0.08)
    (keep.folder / ".making-theirs").mkdir(parents=True)
    with (keep.folder / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not keep.keeper().turn()
        assert not keep.keeper().tidy()
        assert (keep.folder / ".making-theirs").exists()
        assert keep.states() == {100: KeptState.WANTED}
    assert keep.keeper().turn()
    assert not (keep.folder / ".making-theirs").exists()
    assert keep.states() == {100: KEPT}
