"""One lock for each GPU, across all daemons and users of the machine.

A file named by the GPU's UUID in a folder that all users share. It is only ever opened for reading
and locked: nothing is written into it, and no link is followed, so that nobody can make a worker
write elsewhere. Files stay when nobody holds them: removing one would race with its next owner.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Sequence

PLACES = (Path("/run/lock"), Path("/dev/shm"), Path("/tmp"))  # noqa: S108 - see `shared_folder`
"""Where locks may be; by what the folders are, not by who asks, so that all users agree."""

FOLDER = "nptwatch-gpu-{}.lock"

log = structlog.get_logger()


def shared_folder(places: Sequence[Path] = PLACES, owner: int = 0) -> Path | None:
    """Give the first folder that everybody may write to, but only remove what is theirs.

    Args:
        owner: whose it must be.
    """
    for place in places:
        with suppress(OSError):
            found = place.lstat()
            is_shared = found.st_mode & (stat.S_ISVTX | stat.S_IWOTH) == stat.S_ISVTX | stat.S_IWOTH
            if stat.S_ISDIR(found.st_mode) and is_shared and found.st_uid == owner:
                return place
    return None


class GpuLock:
    """The lock of one GPU; the kernel lets go of it when the process ends, however it ends.

    Args:
        folder: where it is; None: there is none to be had, and no lock is taken.
        share: others that share may hold it at the same time.
    """

    def __init__(self, uuid: str, folder: Path | None, *, share: bool) -> None:
        self._path = None if folder is None else folder / FOLDER.format(uuid)
        self._share = share
        self._fd: int | None = None
        self._is_told = False

    @property
    def is_held(self) -> bool:
        """Whether this process has it."""
        return self._fd is not None

    def take(self) -> bool:
        """Take it without waiting; False: others have it.

        Where no file can be locked, it is as if there were no others, and said once.
        """
        if self._fd is not None:
            return True
        try:
            self._fd = self._locked()
        except BlockingIOError:
            return False
        except OSError as error:
            if not self._is_told:
                self._is_told = True
                why = error.strerror or str(error)
                log.warning("gpu_lock_unusable", path=str(self._path), error=why)
        return True

    def release(self) -> None:
        """Let go."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def holders(self) -> list[int]:
        """Give the processes that have it, as far as this one's PID namespace shows them."""
        try:
            found = os.lstat(self._path or "")
            locks = Path("/proc/locks").read_text().splitlines()
        except OSError:
            return []
        file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        words = [line.split() for line in locks]  # 1: FLOCK ADVISORY WRITE <pid> <file> 0 EOF
        pids = {int(one[4]) for one in words if one[1] == "FLOCK" and one[5] == file}
        return sorted(pid for pid in pids if pid > 0)

    def _locked(self) -> int:
        """Open the file and lock it.

        Raises:
            BlockingIOError: others have it.
            OSError: it cannot be opened or locked.
        """
        if self._path is None:
            raise FileNotFoundError(0, "there is no folder that all users share")
        how = (fcntl.LOCK_SH if self._share else fcntl.LOCK_EX) | fcntl.LOCK_NB
        while True:
            fd = _open(self._path)
            try:
                fcntl.flock(fd, how)
                if os.path.samestat(os.fstat(fd), os.lstat(self._path)):
                    return fd
            except FileNotFoundError:
                pass  # somebody cleaned up: what is locked is not what others will find
            except OSError:
                os.close(fd)
                raise
            os.close(fd)


def _open(path: Path) -> int:
    """Open a lock's file, made where it is missing.

    It is opened before it is made: in such a folder the kernel refuses O_CREAT on another user's
    file (fs.protected_regular).

    Raises:
        OSError: it cannot be opened, or is something else than a plain file.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        try:
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o444)
        except FileExistsError:  # another was first
            return _open(path)
        os.fchmod(fd, 0o444)  # whatever the umask: others must be able to lock it too
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(0, "it is not a plain file")
    return fd
