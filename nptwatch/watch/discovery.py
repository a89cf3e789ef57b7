"""Find weights files below the watched roots, and the run that each belongs to."""

from __future__ import annotations

import math
import os
import stat
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nptwatch.globs import PathGlobs
from nptwatch.store.records import SeenFile
from nptwatch.watch.listings import Listings
from nptwatch.watch.polling import is_below
from nptwatch.watch.resting import Resting
from nptwatch.watch.sighting import GONE, is_gone, is_temporary, run_of, signature_of, unreachable
from nptwatch.watch.sweep import Portion, Sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container

    from nptwatch.settings import WatchSettings
    from nptwatch.watch.listings import Listing

_NEVER_WEIGHTS: Final = frozenset(
    {"training_state.pt", "multi_layer_state.pt", "optimizer.pt", "scheduler.pt"}
)
"""Written beside the weights; never taken for them, whatever the globs say."""

_NS_BOUND: Final = 2**63
"""Nanoseconds since 1970, as databases hold them."""

_NAMES: Final = 1024
"""So many names are remembered: a tree of 100,000 checkpoints has few."""


def everything(_path: str) -> bool:
    """Leave nothing out."""
    return True


def nothing() -> None:
    """Do it."""


class Finder:
    """Walks the roots; holds which names are weights and which paths are left out.

    Symlinked folders are followed, after all real ones and never twice, so that `latest ->
    checkpoint-500` adds nothing and a link cannot make a loop. A file's identity is its real path.

    Args:
        is_named: whether the database has a name for a real path of this host.
        on_folder: called before each folder is listed: a walk may take long.
    """

    def __init__(
        self,
        settings: WatchSettings,
        is_named: Callable[[str], bool] = everything,
        on_folder: Callable[[], None] = nothing,
    ) -> None:
        self._settings = settings
        self._is_named = is_named
        self._on_folder = on_folder
        self._weights_by_name = lru_cache(_NAMES)(self._is_weights)
        self._include = PathGlobs(settings.include)
        self._exclude = PathGlobs(settings.exclude)
        self._links: dict[str, str] = {}
        self._listings = Listings(self._reason_against)
        self._resting = Resting()
        self._to_wake: set[str] = set()
        self._looked_at_all = 0
        self._runs: dict[tuple[str, str], tuple[str, str]] = {}

    def roots(self) -> tuple[str, ...]:
        """Real paths of the roots, in the order of the settings, each once."""
        return tuple(dict.fromkeys(os.path.realpath(root) for root in self._settings.roots))

    def sweep(
        self,
        *,
        at_most: float = math.inf,
        tracked: Container[str] = (),
        goes_on: bool = False,
    ) -> list[Sweep]:
        """Walk all roots; a folder or file that two of them reach belongs to the first.

        Args:
            at_most: end the walk early after so many files that are not tracked: the rest is found
                by further sweeps, once these are tracked or at rest.
            tracked: real paths.
            goes_on: the sweep before ended early; what is at rest is not looked at again.
        """
        visited: set[tuple[int, int]] = set()
        claimed: set[str] = set()
        portion = Portion(at_most, tracked, goes_on)
        self._listings.begin_sweep()
        if not goes_on:
            self._looked_at_all = self._listings.sweeps
        self._runs.clear()
        sweeps = []
        for root in self.roots():
            sweep = Sweep(root=root, unreachable=unreachable(root))
            if sweep.unreachable is None:
                self._walk(sweep, visited, portion)
                if not sweep.is_partial:
                    self._find_missing(sweep, self._resting.unseen(root, self._looked_at_all))
            for path in claimed & sweep.files.keys():
                del sweep.files[path]
            claimed |= sweep.files.keys()
            sweeps.append(sweep)
        links = {real: path for sweep in sweeps for real, path in sweep.links.items()}
        is_partial = any(sweep.is_partial for sweep in sweeps)
        self._links = self._links | links if is_partial else links
        return sweeps

    def look_in(self, folder: str, *, deep: bool) -> Sweep:
        """List one folder that an event named.

        Args:
            folder: real path, at or below a root or a followed link.
            deep: also everything below it.
        """
        root, logical = self._place(folder) or ("", "")
        sweep = Sweep(root=root)
        if not root:
            return sweep
        relative = os.path.relpath(logical, root)
        if relative != "." and not self._is_open(relative):
            return sweep
        self._runs.clear()
        if folder in self._resting:
            self._wake(sweep, folder)
        self._walk(sweep, set(), Portion(), start=logical, deep=deep)
        if not sweep.folders:
            self._find_missing(sweep, self._resting.below(folder))
        return sweep

    def rest(self, file: SeenFile) -> bool:
        """Say no more of a file until it or its folder changes.

        Returns:
            False: its folder is to be walked each time, for what else there is or because the file
            system keeps no times; or the file is not as it was last seen.
        """
        folder = file.path.rpartition("/")[0]
        if folder in self._resting:
            return False
        listing = self._listings.remembered(folder)
        if listing is None or listing.real != folder or not listing.is_checkpoint:
            return False
        (seen,) = listing.seen
        if seen is None or (seen.path, seen.signature) != (file.path, file.signature):
            return False
        self._resting.add(folder, listing, seen, self._listings.sweeps)
        self._listings.forget(folder)
        return True

    def wake(self, run_path: str) -> None:
        """Have the next sweep tell of all files of a run."""
        self._to_wake.update(self._resting.of_run(run_path))

    def is_resting(self, folder: str) -> bool:
        """Say whether a folder's file is at rest."""
        return folder in self._resting

    def holds(self, path: str) -> bool:
        """Say whether a file is at rest."""
        return self._resting.holds(path)

    @property
    def resting(self) -> int:
        """Number of files at rest."""
        return len(self._resting)

    def is_of_interest(self, name: str) -> bool:
        """Say whether an event on a file of this name can make a checkpoint whole."""
        return self.is_weights(name) or name in self._settings.markers or name == "config.json"

    def is_weights(self, name: str) -> bool:
        """Say whether a file of this name holds a checkpoint's weights."""
        return self._weights_by_name(name)

    def _is_weights(self, name: str) -> bool:
        if name in _NEVER_WEIGHTS or name in self._settings.markers or is_temporary(name):
            return False
        return any(fnmatchcase(name, pattern) for pattern in self._settings.weights)

    def _place(self, folder: str) -> tuple[str, str] | None:
        """Root and path below it (as walked) of a real folder."""
        for root in self.roots():
            if is_below(folder, root):
                return root, folder
        for real, logical in self._links.items():
            if is_below(folder, real):
                path = logical + folder.removeprefix(real)
                above = [root for root in self.roots() if is_below(path, root)]
                return (above[0], path) if above else None
        return None

    def _is_open(self, relative: str) -> bool:
        return not self._exclude.match(relative) and not any(map(is_temporary, relative.split("/")))

    def _walk(
        self,
        sweep: Sweep,
        visited: set[tuple[int, int]],
        portion: Portion,
        *,
        start: str | None = None,
        deep: bool = True,
    ) -> None:
        begin = start or sweep.root
        folders: list[tuple[str, str, int | None]] = [(begin, os.path.realpath(begin), None)]
        linked_folders: list[str] = []
        linked_files: list[str] = []
        while folders or linked_folders:
            if portion.room <= 0:
                sweep.is_partial = True
                break
            if not folders:
                folders = self._linked(sweep, linked_folders.pop())
                continue
            folder, real, device = folders.pop()
            listing = self._listing(sweep, folder, real, visited)
            if listing is None:
                continue
            if device not in {None, listing.device}:
                sweep.mounts.append(real)
            for name, reason in listing.skipped:
                sweep.skipped[f"{folder}/{name}"] = reason
            if deep:
                at_rest = self._at_rest(sweep, portion, folder)
                folders += [
                    (*_below(folder, real, name), listing.device)
                    for name in listing.folders
                    if name not in at_rest
                ]
                linked_folders += [f"{folder}/{name}" for name in listing.links]
            else:
                below = (_below(folder, real, name)[1] for name in listing.folders)
                sweep.below += [path for path in below if path not in self._resting]
            linked_files += [f"{folder}/{name}" for name in listing.linked_files]
            if listing.files:
                listing.seen = tuple(
                    self._add(sweep, portion, *_below(folder, real, name), before)
                    for name, before in zip(listing.files, listing.seen, strict=True)
                )
        for path in linked_files:
            self._add(sweep, portion, path, os.path.realpath(path), None)

    def _linked(self, sweep: Sweep, folder: str) -> list[tuple[str, str, int | None]]:
        """Give what a symlink to a folder leads to, to be walked; nothing where that rests."""
        real = os.path.realpath(folder)
        if real in self._resting:
            return []
        sweep.links[real] = folder
        return [(folder, real, None)]

    def _at_rest(self, sweep: Sweep, portion: Portion, parent: str) -> Collection[str]:
        """Give the names of what rests in a folder; wake what is not as it was."""
        if not self._resting.names_in(parent):
            return ()
        if not portion.goes_on:
            self._on_folder()
            changed = set(self._resting.changed_in(parent, self._listings.sweeps))
            if self._to_wake or self._listings.is_anew:
                changed.update(
                    name
                    for name in self._resting.names_in(parent)
                    if f"{parent}/{name}" in self._to_wake
                    or (self._listings.is_anew and not self._is_listed_so(sweep, parent, name))
                )
            for name in changed:
                self._wake(sweep, f"{parent}/{name}")
        return self._resting.names_in(parent)

    def _wake(self, sweep: Sweep, folder: str) -> None:
        path, signature = self._resting.drop(folder)
        sweep.woken[path] = signature
        self._to_wake.discard(folder)

    def _is_listed_so(self, sweep: Sweep, parent: str, name: str) -> bool:
        """Read a folder at rest: it might have changed without its time."""
        folder = f"{parent}/{name}"
        try:
            found = os.stat(folder)  # noqa: PTH116 - as everywhere here
            listing = self._listings.of(folder, folder, sweep.root, found)
        except OSError:
            return False
        self._listings.forget(folder)
        return listing.is_checkpoint and self._resting.holds(f"{folder}/{listing.files[0]}")

    def _find_missing(self, sweep: Sweep, unseen: list[str]) -> None:
        """Wake what a walk did not come by, if it is gone indeed: not if its root is away."""
        if unseen and unreachable(sweep.root) is None:
            for folder in filter(is_gone, unseen):
                self._wake(sweep, folder)

    def _listing(
        self, sweep: Sweep, folder: str, real: str, visited: set[tuple[int, int]]
    ) -> Listing | None:
        """List a folder, once however often it is reached."""
        self._on_folder()
        try:
            found = os.stat(folder)  # noqa: PTH116 - for every folder of a large tree
            if (found.st_dev, found.st_ino) in visited:
                sweep.links.pop(real, None)
                return None
            visited.add((found.st_dev, found.st_ino))
            listing = self._listings.of(folder, real, sweep.root, found)
        except OSError as exc:
            self._listings.forget(folder)
            if exc.errno not in GONE:  # not gone, but not to be listed now: its files stay known
                sweep.unlisted.append(os.path.realpath(folder))
                sweep.skipped[folder] = f"cannot be listed: {exc.strerror}"
            return None
        sweep.listed.append(real)
        return listing

    def _reason_against(self, relative: str, name: str, is_folder: bool) -> str | None:
        """Say why an entry is left out; "": it is of no interest; None: it is wanted."""
        if not is_folder and not self.is_weights(name):
            return ""
        if is_temporary(name):
            return "hidden or temporary name"
        if self._exclude.match(relative):
            return "excluded by watch.exclude"
        if not is_folder and not self._include.match(relative):
            return "not included by watch.include"
        return None

    def _add(
        self, sweep: Sweep, portion: Portion, path: str, real: str, before: SeenFile | None
    ) -> SeenFile | None:
        """Record a weights file under its real path, its run by where it was found."""
        if real in sweep.files or self._resting.holds(real):
            return before
        try:
            found = os.stat(real)  # noqa: PTH116 - for every file of a large tree
        except OSError:  # deleted since it was listed, or a link to nowhere
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        if (fault := _unstorable(real, found)) is not None:
            shown = os.fsencode(path).decode(errors="replace")
            sweep.skipped[shown] = sweep.unstorable[shown] = fault
            return None
        signature = signature_of(found)
        if before is None or (before.signature, before.path) != (signature, real):
            before = self._seen(sweep, path, real, found)
        if not (self._is_named(real) and self._is_named(before.run_path)):
            sweep.skipped[path] = f"{real} has no name in the database: add it to path_map"
            return before
        sweep.files[real] = before
        if real not in portion.tracked:
            portion.room -= 1
        return before

    def _seen(self, sweep: Sweep, path: str, real: str, found: os.stat_result) -> SeenFile:
        run = run_of(path)
        if (sweep.root, run) not in self._runs:
            below = os.path.relpath(run, sweep.root)
            name = Path(run).name if below == "." or below.startswith("..") else below
            self._runs[sweep.root, run] = (os.path.realpath(run), name)
        run_path, run_name = self._runs[sweep.root, run]
        return SeenFile(
            run_path=run_path,
            run_name=run_name,
            root=sweep.root,
            path=real,
            signature=signature_of(found),
            mtime_ns=found.st_mtime_ns,
            size_bytes=found.st_size,
        )


def _unstorable(path: str, found: os.stat_result) -> str | None:
    """Say why no database can hold a file's facts; None: it can."""
    if not -_NS_BOUND <= found.st_mtime_ns < _NS_BOUND:
        return "its time of change is beyond the year 2262: touch it"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its path is not UTF-8: rename it"
    return None


def _below(folder: str, real: str, name: str) -> tuple[str, str]:
    """Give the path as walked and the real one of an entry: one text where they are the same."""
    path = f"{folder}/{name}"
    return path, path if folder == real else f"{real}/{name}"
