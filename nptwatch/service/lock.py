"""One daemon per state folder and per SQLite database."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from nptwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class DaemonLocks:
    """Locked files; the kernel lets go of them when the process ends, however it ends."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}

    def take(self, paths: Sequence[Path]) -> None:
        """Lock all these files, save those that are locked already; all or none.

        Raises:
            ConfigError: another daemon has one of them; says which.
        """
        taken: dict[Path, int] = {}
        try:
            for path in paths:
                if path not in self._held:
                    taken[path] = _lock(path)
        except ConfigError:
            for fd in taken.values():
                os.close(fd)
            raise
        self._held |= taken

    def close(self) -> None:
        """Let go; the files stay, since removing one would race with its next owner."""
        for fd in self._held.values():
            os.close(fd)
        self._held.clear()


def _lock(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        message = f"lock file {path} cannot be opened: {exc.strerror}"
        raise ConfigError(message) from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        owner = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        message = (
            f"another nptwatch daemon (process {owner}) holds {path}; "
            "stop it, or give this one a state_dir and database of its own"
        )
        raise ConfigError(message) from exc
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd
