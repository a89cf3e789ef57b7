"""What is on disk now, where a network file system remembers for a minute what was.

An NFS client answers stat from memory (`ac*` in nfs(5)) and remembers names that were not there as
long as it believes that their folder has not changed. Opening asks the server, of files and of
folders, and the answer renews what is remembered (close-to-open consistency; not with `nocto`).
Elsewhere it costs microseconds. Nothing is read, and no time of access changes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def renew(folder: Path) -> None:
    """Have names in a folder looked up anew; whatever goes wrong, the look itself will tell."""
    with suppress(OSError):
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def stat_now(path: Path) -> os.stat_result:
    """Do as stat(2) does, by an open file.

    Raises:
        OSError: it cannot be reached.
    """
    try:  # O_NONBLOCK: it may be a pipe by now, which nobody writes
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except PermissionError:
        return path.stat()
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)
