"""Folders as they were listed last: one whose time of change is the same need not be read again."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nptwatch.filesystem import filesystem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from nptwatch.store.records import SeenFile

SETTLED_NS: Final = 3_000_000_000
"""A folder that changed so lately may change again within the same tick of its clock."""

_LISTED_ANEW: Final = 60
"""Every so many sweeps nothing remembered counts, should a file system not keep its times."""


@dataclass(slots=True)
class Listing:
    """What is of interest directly in one folder.

    Attributes:
        device, inode: of the folder.
        ctime_ns: when an entry was last added, renamed or removed; unlike mtime nobody can set it.
        real: real path of the folder.
        folders: names of folders to go into.
        links: names of symlinks to folders.
        files: names of weights files.
        seen: what was last seen of each of them.
        linked_files: names of symlinks to weights files.
        skipped: names that were left out, with the reason.
    """

    device: int
    inode: int
    ctime_ns: int
    real: str
    folders: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    seen: tuple[SeenFile | None, ...] = ()
    linked_files: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def is_checkpoint(self) -> bool:
        """Say whether there is one weights file, and nothing else of interest."""
        more = self.folders or self.links or self.linked_files or self.skipped
        return len(self.files) == 1 and not more


class Listings:
    """Lists folders, and remembers them where the file system keeps a folder's time.

    Args:
        reason_against: why an entry (path below the root, name, is it a folder) is left out; "" for
            what is simply of no interest, None for what is wanted.

    Attributes:
        sweeps: how many have begun.
    """

    def __init__(self, reason_against: Callable[[str, str, bool], str | None]) -> None:
        self._reason_against = reason_against
        self._known: dict[str, Listing] = {}
        self._devices: dict[int, bool] = {}
        self.sweeps = 0

    @property
    def is_anew(self) -> bool:
        """Say whether in this sweep nothing remembered counts."""
        return self.sweeps % _LISTED_ANEW == 0

    def begin_sweep(self) -> None:
        """Forget everything now and then."""
        self.sweeps += 1
        if self.is_anew:
            self._known.clear()
            self._devices.clear()

    def of(self, folder: str, real: str, root: str, found: os.stat_result) -> Listing:
        """List a folder, or give what is remembered of it.

        Args:
            folder: its path as walked; below root.
            real: its real path.
            found: its stat.

        Raises:
            OSError: it cannot be listed.
        """
        known = self._known.get(folder)
        if (
            known is not None
            and known.ctime_ns == found.st_ctime_ns
            and known.inode == found.st_ino
            and known.device == found.st_dev
            and known.real == real
        ):
            return known
        listing = Listing(found.st_dev, found.st_ino, found.st_ctime_ns, real)
        self._read(folder, root, listing)
        if known is not None:  # what was seen of its files still holds
            seen = dict(zip(known.files, known.seen, strict=True))
            listing.seen = tuple(map(seen.get, listing.files))
        settled = time.time_ns() - found.st_ctime_ns > SETTLED_NS
        if settled and self._keeps_times(listing):
            self._known[folder] = listing
        else:
            self._known.pop(folder, None)
        return listing

    def remembered(self, folder: str) -> Listing | None:
        """Give a folder as it was listed last, if that is remembered."""
        return self._known.get(folder)

    def forget(self, folder: str) -> None:
        """Drop a folder that is gone, or known otherwise."""
        self._known.pop(folder, None)

    def _read(self, folder: str, root: str, listing: Listing) -> None:
        below = folder[len(root.rstrip("/")) + 1 :]
        folders: list[str] = []
        links: list[str] = []
        files: list[str] = []
        linked_files: list[str] = []
        skipped: list[tuple[str, str]] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                is_folder = _is_folder(entry)
                relative = f"{below}/{entry.name}" if below else entry.name
                reason = self._reason_against(relative, entry.name, is_folder)
                if reason is not None:
                    if reason:
                        skipped.append((entry.name, reason))
                elif is_folder:
                    (links if entry.is_symlink() else folders).append(sys.intern(entry.name))
                elif entry.is_symlink():
                    linked_files.append(entry.name)
                else:
                    files.append(sys.intern(entry.name))
        listing.files, listing.seen = tuple(files), (None,) * len(files)
        listing.folders, listing.links = tuple(folders), tuple(links)
        listing.linked_files, listing.skipped = tuple(linked_files), tuple(skipped)

    def _keeps_times(self, listing: Listing) -> bool:
        """Whether a change of a folder shows in its time at once: attributes may be cached."""
        if listing.device not in self._devices:
            found = filesystem_of(Path(listing.real))
            self._devices[listing.device] = found is not None and not found.network
        return self._devices[listing.device]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
