"""Checkpoint folders at rest: nobody waits for anything of them, unless one changes.

A group has tens of thousands after years. Each is a row of numbers and shared texts here, where a
listing, a sighting and a track take ten times the memory.
"""

from __future__ import annotations

import os
import sys
from array import array
from typing import TYPE_CHECKING, Final

from nptwatch.watch.sighting import GONE

if TYPE_CHECKING:
    from collections.abc import Collection

    from nptwatch.store.records import SeenFile
    from nptwatch.watch.listings import Listing

_COLUMNS: Final = "QqQqqq"
"""Folder's inode and ctime; file's inode, size and mtime; number of the last sweep that saw it."""

_NONE: Final[dict[str, int]] = {}


class Resting:
    """Folders that hold one weights file and nothing else of interest, as they last were."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, int]] = {}
        self._parents: list[str] = []
        self._names: list[str] = []
        self._files: list[str] = []
        self._roots: list[str] = []
        self._runs: list[str] = []
        self._numbers = [array(kind) for kind in _COLUMNS]

    def __len__(self) -> int:
        """Give how many there are."""
        return len(self._names)

    def __contains__(self, folder: str) -> bool:
        """Say whether a folder is one."""
        return self._row(folder) is not None

    def holds(self, path: str) -> bool:
        """Say whether a weights file is in one."""
        folder, _, name = path.rpartition("/")
        row = self._row(folder)
        return row is not None and self._files[row] == name

    def names_in(self, parent: str) -> Collection[str]:
        """Give the names of those directly in a folder."""
        return self._rows.get(parent, _NONE).keys()

    def add(self, folder: str, listing: Listing, file: SeenFile, sweep: int) -> None:
        """Take a folder that is not here yet.

        Args:
            sweep: number of the sweep that saw it.
        """
        parent, _, name = folder.rpartition("/")
        rows = self._rows.setdefault(parent, {})
        parent = self._parents[next(iter(rows.values()))] if rows else parent  # one text for all
        rows[sys.intern(name)] = len(self._names)
        self._parents.append(parent)
        self._names.append(sys.intern(name))
        self._files.append(sys.intern(listing.files[0]))
        self._roots.append(sys.intern(file.root))
        self._runs.append(sys.intern(file.run_path))
        size, mtime_ns, inode = map(int, file.signature.split(":"))
        numbers = (listing.inode, listing.ctime_ns, inode, size, mtime_ns, sweep)
        for column, number in zip(self._numbers, numbers, strict=True):
            column.append(number)

    def changed_in(self, parent: str, sweep: int) -> list[str]:
        """Look at those directly in a folder, and at their files; note that this sweep saw them.

        Returns:
            The names of those that are not as they were.
        """
        changed = []
        inodes, ctimes, file_inodes, sizes, mtimes, seen = self._numbers
        stat, files = os.stat, self._files
        for name, row in self._rows.get(parent, _NONE).items():
            folder = f"{parent}/{name}"
            try:
                found = stat(folder)
                if found.st_ctime_ns == ctimes[row] and found.st_ino == inodes[row]:
                    found = stat(f"{folder}/{files[row]}")
                    if (
                        found.st_mtime_ns == mtimes[row]
                        and found.st_size == sizes[row]
                        and found.st_ino == file_inodes[row]
                    ):
                        seen[row] = sweep
                        continue
            except OSError as exc:
                if exc.errno not in GONE:  # it cannot be told
                    continue
            changed.append(name)
        return changed

    def drop(self, folder: str) -> tuple[str, str]:
        """Forget a folder of these; give its file's path and signature."""
        parent, _, name = folder.rpartition("/")
        row = self._rows[parent].pop(name)
        if not self._rows[parent]:
            del self._rows[parent]
        path = f"{folder}/{self._files[row]}"
        _, _, inode, size, mtime_ns, _ = (numbers[row] for numbers in self._numbers)
        self._fill(row)
        return path, f"{size}:{mtime_ns}:{inode}"

    def unseen(self, root: str, since: int) -> list[str]:
        """Give the folders of a root that no sweep has come by since one (its number)."""
        seen = self._numbers[-1]
        return [
            self._folder(row)
            for row, of in enumerate(self._roots)
            if seen[row] < since and of == root
        ]

    def below(self, folder: str) -> list[str]:
        """Give those at or below a folder."""
        if folder in self:
            return [folder]
        prefix = folder.rstrip("/") + "/"
        return [
            f"{parent}/{name}"
            for parent, rows in self._rows.items()
            if f"{parent}/".startswith(prefix)
            for name in rows
        ]

    def of_run(self, run_path: str) -> list[str]:
        """Give those of a run."""
        return [self._folder(row) for row, of in enumerate(self._runs) if of == run_path]

    def _row(self, folder: str) -> int | None:
        parent, _, name = folder.rpartition("/")
        return self._rows.get(parent, _NONE).get(name)

    def _folder(self, row: int) -> str:
        return f"{self._parents[row]}/{self._names[row]}"

    def _fill(self, row: int) -> None:
        """Move the last row to one that is empty."""
        if row < len(self._names) - 1:
            self._rows[self._parents[-1]][self._names[-1]] = row
        for column in (self._parents, self._names, self._files, self._roots, self._runs):
            column[row] = column[-1]
            column.pop()
        for numbers in self._numbers:
            numbers[row] = numbers[-1]
            numbers.pop()
