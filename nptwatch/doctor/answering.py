"""Which folders' file systems answer at all, so that one dead server spoils one line only."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nptwatch.settings import Settings

SECONDS: Final = 5.0


def answering(folders: Sequence[Path]) -> list[Path]:
    """Give those that are there and answer in time.

    The threads that ask are left behind where they hang: call it in a process that is to end.
    """
    there: list[Path] = []

    def ask(folder: Path) -> None:
        if folder.is_dir():
            os.statvfs(folder)
            there.append(folder)

    threads = [
        threading.Thread(target=ask, args=(folder,), name="nptwatch-doctor-asks", daemon=True)
        for folder in folders
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + SECONDS
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0.0))
    found = tuple(there)
    return [folder for folder in folders if folder in found]


def only_answering(settings: Settings) -> Settings:
    """Leave out the roots that do not answer."""
    roots = tuple(answering(settings.watch.roots))
    watch = settings.watch.model_copy(update={"roots": roots})
    return settings.model_copy(update={"watch": watch})
