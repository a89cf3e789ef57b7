"""One path as it is on disk: is it there, is it being put together, whose run is it of."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nptwatch.npt.files import step_of_folder
from nptwatch.watch.fresh import renew, stat_now

if TYPE_CHECKING:
    from nptwatch.store.records import SeenFile

GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
"""Errors that say that a path is not there, rather than not to be reached."""
_MUTABLE_FOLDERS: Final = frozenset({"final", "best"})


def is_temporary(name: str) -> bool:
    """Say whether a file or folder of this name is hidden or being put together."""
    return name.startswith(".") or name.endswith(".tmp")


def unreachable(root: str) -> str | None:
    """Why a root cannot be listed; an empty one counts, as a share that is not mounted is empty."""
    try:
        with os.scandir(root) as listing:
            return None if any(True for _ in listing) else "it is empty"
    except OSError as exc:
        return exc.strerror or str(exc)


def is_gone(path: str) -> bool:
    """Say whether a path is really absent, rather than not to be reached at the moment."""
    renew(Path(path).parent)
    try:
        Path(path).stat()
    except OSError as exc:
        return exc.errno in GONE
    return False


def seen_again(file: SeenFile) -> tuple[SeenFile, os.stat_result]:
    """Look at a file again.

    Raises:
        OSError: it cannot be reached.
    """
    found = stat_now(Path(file.path))
    again = replace(
        file,
        signature=signature_of(found),
        mtime_ns=found.st_mtime_ns,
        size_bytes=found.st_size,
    )
    return again, found


def run_of(path: str) -> str:
    """Directory of the run that a weights file belongs to.

    `<run>/checkpoints/<name>/file`, `<run>/checkpoint-<n>/file`, `<run>/final/file` and
    `<run>/file` are of `<run>`.
    """
    folder = path.rpartition("/")[0]  # no pathlib: for every file of a large tree
    above, _, name = folder.rpartition("/")
    run, _, holder = above.rpartition("/")
    if holder == "checkpoints":
        return run or "/"
    if name in _MUTABLE_FOLDERS or step_of_folder(Path(path)) is not None:
        return above or "/"
    return (above if name == "checkpoints" else folder) or "/"


def signature_of(found: os.stat_result) -> str:
    """Give what changes when a file does: "size:mtime_ns:inode"."""
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ino}"
