"""Making one file safe from its owner: a copy that shares blocks, a hard link, or a plain copy.

The trainer may delete, replace or rewrite the file at that very moment. So the new file is made
first and looked at then: what it holds, not what the old path held, is compared with what was
measured. Nothing is opened through a symbolic link, and nothing of the trainer's is written to.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from nptwatch.errors import CheckpointChangedError, CheckpointDeletedError, CheckpointError
from nptwatch.npt.files import check_crc, fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_FICLONE = 0x40049409
"""Linux: let a file share another's blocks until one of them is written (btrfs, XFS)."""

_CHUNK_BYTES = 4 * 1024**2
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})


class How(StrEnum):
    """How a kept file came to be."""

    REFLINK = "reflink"  # a file of its own that shares blocks
    LINK = "link"  # another name of the trainer's file
    COPY = "copy"


class StoppedError(Exception):
    """The process is to end; the copy is left for the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """A file that was made and holds what it should.

    Attributes:
        sha256: of all its bytes, as `sha256sum` prints it.
        signature: "size:mtime_ns:inode".
    """

    how: How
    size_bytes: int
    sha256: str
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinner:
    """Makes pins.

    Args:
        reserve_bytes: no copy is made that leaves less of the disk free.
        stopping: asked between pieces of a copy.
    """

    reserve_bytes: int
    stopping: Callable[[], bool]

    def pin(self, source: Path, target: Path, *, content: str, may_link: bool) -> Pinned:
        """Make `target`, a new file with the content of `source`; nothing is left if that fails.

        Args:
            content: fingerprint that it must have.
            may_link: the name is one that a trainer does not write twice.

        Raises:
            CheckpointDeletedError: the source is gone, or is no regular file.
            CheckpointChangedError: it has other content by now, or is being written.
            OSError: the target cannot be made; ENOSPC where the disk is (nearly) full.
            StoppedError: the process is to end.
        """
        try:
            how = self._make(source, target, may_link=may_link)
            return self._checked(source, target, how, content)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def digest(self, path: Path) -> str:
        """Give the SHA-256 of a file's bytes.

        Raises:
            StoppedError: the process is to end.
        """
        sha256 = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(_CHUNK_BYTES):
                self._go_on()
                sha256.update(piece)
        return sha256.hexdigest()

    def _make(self, source: Path, target: Path, *, may_link: bool) -> How:
        with _opened(source) as original:
            if _reflinked(original, target):
                return How.REFLINK
            if may_link and _linked(source, original, target):
                return How.LINK
            self._copy(original, target)
            return How.COPY

    def _copy(self, original: int, target: Path) -> None:
        about = os.fstat(original)
        disk = os.statvfs(target.parent)
        if disk.f_bavail * disk.f_frsize - about.st_size < self.reserve_bytes:
            raise OSError(
                errno.ENOSPC,
                f"the disk of {target.parent.parent.parent} is too full: a copy of"
                f" {about.st_size / 1024**2:.1f} MiB would leave less than kept.reserve_gib ="
                f" {self.reserve_bytes / 1024**3:g} free",
            )
        with target.open("xb") as file:
            offset = 0
            while piece := os.pread(original, _CHUNK_BYTES, offset):
                self._go_on()
                file.write(piece)
                offset += len(piece)
            file.flush()
            os.fsync(file.fileno())
            os.utime(file.fileno(), ns=(about.st_atime_ns, about.st_mtime_ns))

    def _checked(self, source: Path, target: Path, how: How, content: str) -> Pinned:
        try:
            is_same = fingerprint(target) == content
            check_crc(target)
        except CheckpointError as exc:
            message = f"{source} was written or damaged while it was kept: {exc}"
            raise CheckpointChangedError(message) from exc
        if not is_same:
            raise CheckpointChangedError(f"{source} has other content by now")
        sha256 = self.digest(target)
        about = target.lstat()
        return Pinned(
            how=how, size_bytes=about.st_size, sha256=sha256, signature=signature_of(about)
        )

    def _go_on(self) -> None:
        if self.stopping():
            raise StoppedError


def signature_of(about: os.stat_result) -> str:
    """Give what changes when a file is written."""
    return f"{about.st_size}:{about.st_mtime_ns}:{about.st_ino}"


@contextmanager
def _opened(source: Path) -> Iterator[int]:
    """Open a regular file, and no other: a link or pipe may lead anywhere."""
    if os.path.realpath(source) != str(source):
        raise CheckpointDeletedError(f"{source} lies behind a symbolic link by now")
    try:
        number = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno in _GONE or exc.errno == errno.ELOOP:
            raise CheckpointDeletedError(f"{source} is gone, or a symbolic link") from exc
        raise
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise CheckpointDeletedError(f"{source} is no regular file")
        yield number
    finally:
        os.close(number)


def _reflinked(original: int, target: Path) -> bool:
    with target.open("xb") as file:
        try:
            fcntl.ioctl(file.fileno(), _FICLONE, original)
        except OSError:
            target.unlink()
            return False
        about = os.fstat(original)
        os.fsync(file.fileno())
        os.utime(file.fileno(), ns=(about.st_atime_ns, about.st_mtime_ns))
        return True


def _linked(source: Path, original: int, target: Path) -> bool:
    """Give the file that is open one more name; no: another disk, not allowed, or replaced."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        return False
    if os.path.samestat(target.lstat(), os.fstat(original)):
        return True
    target.unlink()
    return False
