"""One tree, many names: what a folder is called on this host, and what in the database.

Pure, but for the symlinks of this host's own folders, which are resolved once.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class PathMap:
    """Translates paths between this host and the database; what no entry covers has one name.

    A path may also be a glob, or no path at all (a hub name): only its beginning is compared, name
    by name, and the longest entry counts.

    Args:
        pairs: for each folder its name in the database and its name here, both absolute.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        known = [(_bare(stored), _bare(here)) for stored, here in pairs]
        # the watcher sees real paths, people and trainers type the others: both are this folder
        named = [(here, stored) for stored, here in known]
        real = [(_bare(os.path.realpath(here or "/")), stored) for stored, here in known]
        self._to_stored = _longest_first([*named, *real])
        self._to_here = _longest_first((stored, here) for here, stored in real)

    def __bool__(self) -> bool:
        """Say whether there is anything to translate."""
        return bool(self._to_here)

    def stored(self, path: str) -> str:
        """Give the database's name of a path of this host."""
        return _translated(path, self._to_stored)

    def here(self, path: str) -> str:
        """Give this host's name, symlinks resolved, of a path in the database."""
        return _translated(path, self._to_here)

    def is_named(self, path: str) -> bool:
        """Say whether a path of this host has a name in the database that leads back to it.

        It has not where another folder's entry took that name: with `/data` of the database at
        `/mnt/lab` here, a `/data` that this host has too is no other host's.
        """
        return self.here(self.stored(path)) == path


def _translated(path: str, entries: Sequence[tuple[str, str]]) -> str:
    for before, after in entries:
        if path == (before or "/"):
            return after or "/"
        if path.startswith(f"{before}/"):
            return after + path[len(before) :]
    return path


def _longest_first(entries: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted(dict.fromkeys(entries), key=lambda entry: -len(entry[0]))


def _bare(folder: str) -> str:
    """Take the slash off the end; of the topmost folder nothing is left."""
    return folder.rstrip("/")
