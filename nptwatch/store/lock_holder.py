"""Who has a SQLite file's write lock: the kernel knows, and SQLite does not say."""

from __future__ import annotations

import os
from pathlib import Path

_WRITE_LOCK = 120
"""Byte of the -shm file that whoever writes in WAL mode has locked (SQLite's file format)."""

_STOPPED = frozenset("Tt")


def lock_holder(file: Path) -> str | None:
    """Name the process that has the write lock of a SQLite file, and say if it is stopped.

    Read from /proc: to open the file here and close it would drop this process's own locks on it.

    Returns:
        None: nobody has it, or it cannot be told (another PID namespace, no /proc).
    """
    try:
        wanted = file.with_name(f"{file.name}-shm").stat()
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    for lock in locks:
        words = lock.split()  # 1: POSIX ADVISORY WRITE <pid> <major>:<minor>:<inode> <first> <last>
        if len(words) != 8 or words[3] != "WRITE" or "->" in words:  # noqa: PLR2004 - as shown
            continue
        major, minor, inode = words[5].split(":")
        device = os.makedev(int(major, 16), int(minor, 16))
        holds = words[6].isdecimal() and int(words[6]) <= _WRITE_LOCK
        reaches = words[7] == "EOF" or int(words[7]) >= _WRITE_LOCK
        if (device, int(inode)) == (wanted.st_dev, wanted.st_ino) and holds and reaches:
            return _named(int(words[4]))
    return None


def _named(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return None
    said = " ".join(command.split("\0")).strip()
    about = f"process {pid} ({said[:80]})"
    if stat.rpartition(")")[2].split()[0] in _STOPPED:
        about += f", which is stopped (`kill -CONT {pid}` lets it go on),"
    return about
