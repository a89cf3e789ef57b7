"""What goes wrong while a checkpoint is kept: trainers that write, full disks, kills, other hosts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from keeping import KIB, Keep, tree_of
from scarce import MOUNTS, SmallDisk, again, is_within
from watching import archive, until

from nptwatch.npt.files import fingerprint
from nptwatch.store.records import KeptState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nptwatch.store.engine import Database

WANTED, KEPT, RELEASED = KeptState.WANTED, KeptState.KEPT, KeptState.RELEASED
BIG = 12 * KIB
"""Kilobytes of a file that is copied in several pieces."""


@pytest.fixture
def keep(database: Database, tmp_path: Path) -> Keep:
    """Give a place with nothing in it."""
    return Keep(database, tmp_path)


# --- trainers


@pytest.mark.parametrize("how", ["in place", "truncated", "replaced", "deleted"])
def test_a_file_that_is_rewritten_in_mid_copy_is_not_kept(keep: Keep, how: str) -> None:
    """Never a mixture: the old content where the old file could still be read, else nothing."""
    best = keep.checkpoint("best", 0.08, kilobytes=BIG)
    old, new = best.read_bytes(), archive("another", kilobytes=BIG)
    assert len(old) == len(new)
    pieces = iter(range(100))

    def trainer() -> bool:
        """Write when the first piece was copied."""
        if next(pieces) == 2:
            _overwrite(best, new, how)
        return False

    keep.keeper(trainer).turn()

    if how in {"replaced", "deleted"}:
        assert keep.file(None).read_bytes() == old
        return
    assert keep.states() == {None: WANTED}
    assert keep.row(None).error is not None
    assert str(best) in str(keep.row(None).error)
    assert keep.files() == []


def _overwrite(best: Path, new: bytes, how: str) -> None:
    match how:
        case "in place":
            with best.open("r+b") as file:
                file.seek(8 * KIB**2)
                file.write(new[8 * KIB**2 : 11 * KIB**2])  # the directory, at the end, stays
        case "truncated":
            best.write_bytes(new)
        case "replaced":
            best.with_name("new").write_bytes(new)
            best.with_name("new").replace(best)
        case "deleted":
            best.unlink()


def test_the_old_end_with_new_tensors_is_no_copy(keep: Keep) -> None:
    """A writer in place leaves the old directory at the end: only the CRCs tell."""
    best = keep.checkpoint("best", 0.08)
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1
    best.write_bytes(content)
    assert fingerprint(best) == keep.row(None).fingerprint
    keep.keeper().turn()
    assert keep.states() == {None: WANTED}
    assert "data/0" in str(keep.row(None).error)


def test_a_link_that_is_written_through_is_noticed(
    keep: Keep, logs: Sequence[Mapping[str, Any]]
) -> None:
    """A resumed run writes over checkpoint-100 in place: its other name is no checkpoint any more."""
    weights = keep.checkpoint("checkpoint-100", 0.08)
    keep.keeper().turn()
    old = weights.read_bytes()
    weights.write_bytes(archive("resumed"))
    keep.rewriting(weights)
    keep.keeper().turn()
    assert keep.states() == {100: WANTED}
    assert "in place" in str(keep.row(100).error)
    assert keep.files() == []
    assert "kept_file_lost" in [one["event"] for one in logs]

    weights.write_bytes(old)  # and back
    keep.admit(weights)
    keep.keeper().turn()
    assert keep.states() == {100: KEPT}


def test_a_link_that_was_only_touched_stays(keep: Keep) -> None:
    """Another time of writing has it looked at, once."""
    weights = keep.checkpoint("checkpoint-100", 0.08)
    keep.keeper().turn()
    os.utime(weights, (1, 1))
    keep.keeper().turn()
    row = keep.row(100)
    assert row.state is KEPT
    assert row.file is not None
    assert row.file.signature.split(":")[1] == "1000000000"


@pytest.mark.parametrize("what", ["file", "folder", "pipe"])
def test_nothing_is_followed_out(keep: Keep, tmp_path: Path, what: str) -> None:
    """A link or pipe in the place of a checkpoint is no source, whatever it leads to."""
    weights = keep.checkpoint("checkpoint-100", 0.08)
    outside = tmp_path / "outside"
    weights.parent.rename(outside)
    match what:
        case "file":
            weights.parent.mkdir()
            weights.symlink_to(outside / weights.name)
        case "folder":
            weights.parent.symlink_to(outside)
        case "pipe":
            weights.parent.mkdir()
            os.mkfifo(weights)
    keep.keeper().turn()
    assert keep.states() == {100: WANTED}
    assert keep.files() == []


def test_a_link_in_the_folder_leads_nowhere(keep: Keep, tmp_path: Path) -> None:
    """Where a run's folder should be, somebody put a link: nothing is written or removed there."""
    keep.checkpoint("checkpoint-100", 0.08)
    keep.keeper().turn()
    run = keep.file(100).parents[2]
    outside = tmp_path / "outside"
    run.rename(outside)
    run.symlink_to(outside)
    before = tree_of(outside)
    assert keep.store.release([keep.row(100).kept_id], "by a test")
    keep.checkpoint("checkpoint-200", 0.07)
    keep.keeper().turn()
    assert tree_of(outside) == before
    assert keep.states()[200] is WANTED
    assert "symbolic link" in str(keep.row(200).error)


# --- disks


def test_a_full_disk_is_told_and_tried_again(
    keep: Keep,
    logs: Sequence[Mapping[str, Any]],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """Nothing half is left, the reason is noted and logged once; with room it is kept."""
    if not is_within(MOUNTS):
        again(MOUNTS, request, tmp_path)
        return
    disk = SmallDisk(tmp_path / "small")
    keep.folder = tmp_path / "small" / "kept"
    keep.checkpoint("checkpoint-100", 0.09)
    keep.keeper().turn()
    disk.fill(())
    keep.checkpoint("checkpoint-200", 0.08, kilobytes=64)
    for _ in range(3):
        keep.keeper().turn()
    assert keep.states() == {100: KEPT, 200: WANTED}
    assert "too full" in str(keep.row(200).error)
    assert [one["event"] for one in logs].count("keep_failed") == 1
    assert not list(keep.folder.glob(".making*"))
    pointer = keep.pointer()
    assert pointer is not None
    assert pointer["step"] == 100
    disk.free(())

    asked = iter((False, True))

    def filling() -> bool:
        """While it is copied, after it was found to fit, the disk becomes full."""
        if next(asked, False):
            disk.fill(())
        return False

    keep.keeper(filling).turn()
    assert keep.states() == {100: KEPT, 200: WANTED}
    assert "No space left" in str(keep.row(200).error)
    assert not list(keep.folder.glob(".making*"))
    disk.free(())
    keep.keeper().turn()
    assert keep.states() == {100: KEPT, 200: KEPT}


def test_a_copy_leaves_the_reserve(keep: Keep) -> None:
    """The database may be on the same disk: it must not be the one that finds it full."""
    keep.checkpoint("best", 0.08)
    keep.keeper(reserve_gib=10.0**6).turn()
    assert keep.states() == {None: WANTED}
    assert "kept.reserve_gib = 1e+06" in str(keep.row(None).error)
    keep.keeper().turn()
    assert keep.states() == {None: KEPT}


def test_a_folder_below_a_watched_root_is_refused(keep: Keep) -> None:
    """Its files would be new checkpoints, to be measured and kept again."""
    keep.folder = keep.root / "state" / "kept"
    keep.checkpoint("checkpoint-100", 0.08)
    keep.keeper().turn()
    assert not keep.folder.exists()
    assert "below the watched root" in str(keep.row(100).error)


def test_a_kept_file_that_somebody_deleted_is_kept_again(keep: Keep) -> None:
    """While the trainer has it; else it is lost, and said to be."""
    weights = keep.checkpoint("checkpoint-100", 0.08)
    keep.keeper().turn()
    keep.file(100).unlink()
    keep.keeper().turn()
    assert keep.file(100).exists()
    keep.rotate(weights)
    keep.file(100).unlink()
    keep.keeper().turn()
    assert keep.states() == {100: WANTED}
    assert "is gone" in str(keep.row(100).error)
    assert keep.pointer() is None


# --- kills and others


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
