"""What goes wrong while a checkpoint is kept: trainers that write, full disks, kills, other hosts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from keeping import KIB, Keep, tree_of
from scarce import MOUNTS, RIGHTS, SmallDisk, again, is_within
from stocking import FULL
from watching import archive

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


def test_what_the_full_diagnostic_finds_invalid_is_pointed_at_no_more(keep: Keep) -> None:
    """It is not the best either, whatever MSE its first prompts gave."""
    for step, mse in ((100, 0.09), (200, 0.08)):
        keep.checkpoint(f"checkpoint-{step}", mse)
    keep.keeper().turn()
    keep.queue.ask(str(keep.file(200)), FULL, because="test")
    keep.measure(0.08, grade="INVALID", mse=None, cosine=None)
    keep.keeper().turn()
    pointer = keep.pointer()
    assert pointer is not None
    assert (pointer["step"], keep.card(200)["grade"]) == (100, "INVALID")
    keep.keeper(max_gib=(keep.row(200).size_bytes + 1) / KIB**3).turn()
    assert keep.states() == {100: KEPT, 200: RELEASED}


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


def test_a_file_that_cannot_be_read_is_left_alone(
    keep: Keep,
    logs: Sequence[Mapping[str, Any]],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """A wrong right, or a disk that fails for a while, costs no kept file; told once."""
    if not is_within(RIGHTS):
        again(RIGHTS, request, tmp_path)
        return
    weights = keep.checkpoint("checkpoint-100", 0.08)
    keep.keeper().turn()
    keep.rotate(weights)
    os.utime(keep.file(100), (1, 1))
    keep.file(100).chmod(0)
    keeper = keep.keeper()
    for _ in range(3):
        keeper.turn()
    assert keep.states() == {100: KEPT}
    assert [one["event"] for one in logs].count("kept_file_unusable") == 1
    keep.file(100).chmod(0o600)
    keeper.turn()
    assert keep.file(100).exists()
    assert str(keep.row(100).file).count(":1000000000:") == 1


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
