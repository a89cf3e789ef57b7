"""One lock for each GPU: across processes, users and accidents."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from nptwatch.worker import gpu_lock
from nptwatch.worker.gpu_lock import FOLDER, GpuLock, shared_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

HOLD = (
    "import sys; from pathlib import Path; from nptwatch.worker.gpu_lock import GpuLock\n"
    "lock = GpuLock('u', Path(sys.argv[1]), share=sys.argv[2] == 'share')\n"
    "print(lock.take(), flush=True); sys.stdin.read()"
)


class Holder:
    """Another process that takes the lock, and holds it until it ends."""

    def __init__(self, folder: Path, how: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, folder, how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.has_it = self.process.stdout.readline() == "True\n"

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.communicate()


def test_one_process_has_it_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    """SIGKILL leaves a file and no lock."""
    lock = GpuLock("u", tmp_path, share=False)
    holder = Holder(tmp_path, "alone")
    assert holder.has_it
    assert not lock.take()
    assert lock.holders() == [holder.process.pid]
    holder.kill()
    assert lock.take()
    assert lock.take(), "it is taken only once"
    assert lock.holders() == [os.getpid()]
    lock.release()
    assert not lock.is_held
    assert lock.holders() == []


def test_those_that_share_hold_it_together_and_keep_others_out(tmp_path: Path) -> None:
    """Shares of a GPU, as Ray gives them, go together; with one that does not share, neither."""
    holder = Holder(tmp_path, "share")
    shared, alone = (GpuLock("u", tmp_path, share=share) for share in (True, False))
    assert shared.take()
    assert not alone.take()
    holder.kill()
    shared.release()
    assert alone.take()
    assert not shared.take()
    alone.release()


def test_another_gpu_has_another_lock(tmp_path: Path) -> None:
    """By UUID."""
    first, second = (GpuLock(uuid, tmp_path, share=False) for uuid in ("u", "v"))
    assert first.take()
    assert second.take()
    assert second.is_held
    first.release()
    second.release()


def test_a_link_is_not_followed_and_nothing_is_written(
    tmp_path: Path, logs: Sequence[Mapping[str, Any]]
) -> None:
    """Who may write to the folder cannot point a worker at somebody else's file; it says so once."""
    secret = tmp_path / "secret"
    secret.write_text("of another")
    (tmp_path / FOLDER.format("u")).symlink_to(secret)
    lock = GpuLock("u", tmp_path, share=False)
    assert lock.take()
    assert lock.take()
    assert not lock.is_held
    assert secret.read_text() == "of another"
    assert [entry["event"] for entry in logs] == ["gpu_lock_unusable"]


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_something_else_under_its_name_is_refused(
    tmp_path: Path, kind: str, logs: Sequence[Mapping[str, Any]]
) -> None:
    """Neither waits for a writer of a pipe, nor locks a folder."""
    path = tmp_path / FOLDER.format("u")
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    lock = GpuLock("u", tmp_path, share=False)
    assert lock.take()
    assert not lock.is_held
    assert logs[0]["error"] == "it is not a plain file"


def test_others_can_lock_the_file_whatever_the_umask(tmp_path: Path) -> None:
    """All may read it, which is what locking takes, and nobody write."""
    before = os.umask(0o077)
    try:
        lock = GpuLock("u", tmp_path, share=False)
        assert lock.take()
    finally:
        os.umask(before)
    assert (tmp_path / FOLDER.format("u")).stat().st_mode & 0o777 == 0o444
    lock.release()


def test_a_file_that_was_cleaned_away_is_made_anew(tmp_path: Path) -> None:
    """A lock on a file that others do not find would be none."""
    first = GpuLock("u", tmp_path, share=False)
    assert first.take()
    first.release()
    (tmp_path / FOLDER.format("u")).unlink()
    assert first.take()
    assert not GpuLock("u", tmp_path, share=False).take()
    first.release()


def test_a_file_that_goes_while_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, in the moment between opening and locking."""
    opened: list[int] = []

    def open_late(path: Path) -> int:
        opened.append(really(path))
        if len(opened) == 1:
            path.unlink()
        return opened[-1]

    really = gpu_lock._open
    monkeypatch.setattr(gpu_lock, "_open", open_late)
    lock = GpuLock("u", tmp_path, share=False)
    assert lock.take()
    assert len(opened) == 2
    assert not GpuLock("u", tmp_path, share=False).take()
    lock.release()


def test_the_folder_is_one_that_all_users_share(tmp_path: Path) -> None:
    """Chosen by what it is, so that root and users choose the same; private ones are left out."""
    private, linked, shared = (tmp_path / name for name in ("private", "linked", "shared"))
    private.mkdir(mode=0o755)
    shared.mkdir()
    shared.chmod(0o1777)
    linked.symlink_to(shared)
    places = [tmp_path / "missing", private, linked, shared]
    assert shared_folder(places, owner=os.getuid()) == shared
    assert shared_folder(places, owner=os.getuid() + 1) is None


def test_without_a_folder_there_is_no_lock(logs: Sequence[Mapping[str, Any]]) -> None:
    """The GPU is used all the same, and the log says that it is not locked."""
    lock = GpuLock("u", None, share=False)
    assert lock.take()
    assert not lock.is_held
    assert logs[0]["event"] == "gpu_lock_unusable"
