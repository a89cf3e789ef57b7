"""Open the ZIP archive that `torch.save` writes, without trusting it.

The directory of a ZIP is at its end and is written last, so that a file that is cut off or still
being written has none: that is what "not whole" means for a .pt file.
"""

from __future__ import annotations

import errno
import os
import struct
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from nptwatch.errors import (
    CheckpointDeletedError,
    IncompleteCheckpointError,
    UnsafeCheckpointError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

MAX_DIRECTORY_BYTES: Final = 16 * 1024**2
"""About 200,000 members; real files have at most thousands. Bounds what opening one costs."""

ARCHIVE_FAULTS: Final = (
    zipfile.BadZipFile,
    struct.error,
    ValueError,
    EOFError,
    RuntimeError,
    LookupError,
    NotImplementedError,
)
"""What `zipfile` raises on broken or hostile archives, besides OSError."""

_END: Final = b"PK\x05\x06"
_END_64: Final = b"PK\x06\x06"
_TAIL_BYTES: Final = 65_535 + 22 + 20 + 56  # longest comment, the two end records, the locator


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file for reading; the operating system's errors in nptwatch's words.

    Raises:
        CheckpointDeletedError: it is gone.
        IncompleteCheckpointError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield file
    except OSError as exc:
        if exc.errno in {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}:
            message = f"{path} is gone from disk"
            raise CheckpointDeletedError(message) from exc
        message = f"{path} cannot be read: {exc.strerror or exc}"
        raise IncompleteCheckpointError(message) from exc


@contextmanager
def opened_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a complete ZIP; its directory is read, no member is.

    Raises:
        CheckpointDeletedError: it is gone.
        IncompleteCheckpointError: no ZIP directory at its end, or a broken one.
        UnsafeCheckpointError: the directory is absurdly large.
    """
    with opened(path) as file:
        _refuse_huge_directory(path, file)
        try:
            archive = zipfile.ZipFile(file)
        except ARCHIVE_FAULTS as exc:
            message = f"{path} is not whole: {_what_is_wrong(file, exc)}"
            raise IncompleteCheckpointError(message) from exc
        with archive:
            yield archive


def _refuse_huge_directory(path: Path, file: BufferedReader) -> None:
    """`zipfile` reads the whole directory at once: look at its declared size first."""
    size_bytes = file.seek(0, os.SEEK_END)
    file.seek(max(0, size_bytes - _TAIL_BYTES))
    tail = file.read(_TAIL_BYTES)
    declared = [
        *(struct.unpack_from("<I", tail, at + 12)[0] for at in _places(tail, _END, 16)),
        *(struct.unpack_from("<Q", tail, at + 40)[0] for at in _places(tail, _END_64, 48)),
    ]
    plausible = [n for n in declared if n <= size_bytes]  # others zipfile refuses by itself
    if any(n > MAX_DIRECTORY_BYTES for n in plausible):
        message = (
            f"{path} has a ZIP directory of {max(plausible)} bytes; at most {MAX_DIRECTORY_BYTES}"
        )
        raise UnsafeCheckpointError(message)


def _places(tail: bytes, magic: bytes, room: int) -> Iterator[int]:
    at = tail.find(magic)
    while at >= 0 and at + room <= len(tail):
        yield at
        at = tail.find(magic, at + 1)


def _what_is_wrong(file: BufferedReader, exc: Exception) -> str:
    size_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(64)
    if size_bytes == 0:
        return "zero bytes"
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return (
            f"a legacy pickle of {size_bytes} bytes, not the ZIP archive that torch.save writes"
            " since PyTorch 1.6"
        )
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer; the file itself was not fetched"
    if head.startswith(b"PK\x03\x04"):
        if "not a zip file" in str(exc):
            return f"{size_bytes} bytes, no ZIP directory at the end: half-written"
        return f"{size_bytes} bytes, its ZIP directory is broken ({exc})"
    if not any(head):
        return f"{size_bytes} bytes that begin with zeros, no ZIP directory: half-written"
    return f"{size_bytes} bytes, no ZIP directory at the end: not a torch.save file"
