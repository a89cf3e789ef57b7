"""Find weights files below the watched roots, and the run that each belongs to."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nptwatch.globs import PathGlobs
from nptwatch.npt.files import step_of_folder
from nptwatch.store.records import SeenFile
from nptwatch.watch.fresh import renew, stat_now
from nptwatch.watch.listings import Listings
from nptwatch.watch.polling import is_below

if TYPE_CHECKING:
    from collections.abc import Callable

    from nptwatch.settings import WatchSettings
    from nptwatch.watch.listings import Listing

_NEVER_WEIGHTS: Final = frozenset(
    {"training_state.pt", "multi_layer_state.pt", "optimizer.pt", "scheduler.pt"}
)
"""Written beside the weights; never taken for them, whatever the globs say."""

_MUTABLE_FOLDERS: Final = frozenset({"final", "best"})
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


@dataclass(slots=True, kw_only=True)
class Sweep:
    """What one walk below a root found.

    Attributes:
        root: real path.
        unreachable: why the root could not be listed; None when it was.
        files: weights files by real path.
        folders: how many were listed.
        unlisted: real paths of folders below the root that could not be listed.
        links: real path to path below the root, of every symlinked folder that was followed.
        mounts: real paths of folders below the root at which another file system begins.
        skipped: weights files and folders left out, with the reason.
    """

    root: str
    unreachable: str | None = None
    files: dict[str, SeenFile] = field(default_factory=dict)
    folders: int = 0
    unlisted: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    mounts: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> int:
        """A number that differs, in all likelihood, where what was found does."""
        signatures = frozenset((file.path, file.signature) for file in self.files.values())
        return hash((self.folders, signatures))


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
        self._include = PathGlobs(settings.include)
        self._exclude = PathGlobs(settings.exclude)
        self._links: dict[str, str] = {}
        self._listings = Listings(self._reason_against)
        self._runs: dict[tuple[str, str], tuple[str, str]] = {}

    def roots(self) -> tuple[str, ...]:
        """Real paths of the roots, in the order of the settings, each once."""
        return tuple(dict.fromkeys(os.path.realpath(root) for root in self._settings.roots))

    def sweep(self) -> list[Sweep]:
        """Walk all roots; a folder or file that two of them reach belongs to the first."""
        visited: set[tuple[int, int]] = set()
        claimed: set[str] = set()
        self._listings.begin_sweep()
        self._runs.clear()
        sweeps = []
        for root in self.roots():
            sweep = Sweep(root=root, unreachable=unreachable(root))
            if sweep.unreachable is None:
                self._walk(sweep, visited)
            for path in claimed & sweep.files.keys():
                del sweep.files[path]
            claimed |= sweep.files.keys()
            sweeps.append(sweep)
        self._links = {real: path for sweep in sweeps for real, path in sweep.links.items()}
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
        self._walk(sweep, set(), start=logical, deep=deep)
        return sweep

    def is_of_interest(self, name: str) -> bool:
        """Say whether an event on a file of this name can make a checkpoint whole."""
        return self.is_weights(name) or name in self._settings.markers or name == "config.json"

    def is_weights(self, name: str) -> bool:
        """Say whether a file of this name holds a checkpoint's weights."""
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
        *,
        start: str | None = None,
        deep: bool = True,
    ) -> None:
        begin = start or sweep.root
        folders: list[tuple[str, str, int | None]] = [(begin, os.path.realpath(begin), None)]
        linked_folders: list[str] = []
        linked_files: list[str] = []
        while folders or linked_folders:
            if folders:
                folder, real, device = folders.pop()
            else:
                folder, device = linked_folders.pop(), None
                real = os.path.realpath(folder)
                sweep.links[real] = folder
            listing = self._listing(sweep, folder, real, visited)
            if listing is None:
                continue
            if device not in {None, listing.device}:
                sweep.mounts.append(real)
            for name, reason in listing.skipped:
                sweep.skipped[f"{folder}/{name}"] = reason
            if deep:
                folders += [
                    (*_below(folder, real, name), listing.device) for name in listing.folders
                ]
                linked_folders += [f"{folder}/{name}" for name in listing.links]
            linked_files += [f"{folder}/{name}" for name in listing.linked_files]
            if listing.files:
                listing.seen = tuple(
                    self._add(sweep, *_below(folder, real, name), before)
                    for name, before in zip(listing.files, listing.seen, strict=True)
                )
        for path in linked_files:
            self._add(sweep, path, os.path.realpath(path), None)

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
            if exc.errno not in _GONE:  # not gone, but not to be listed now: its files stay known
                sweep.unlisted.append(os.path.realpath(folder))
                sweep.skipped[folder] = f"cannot be listed: {exc.strerror}"
            return None
        sweep.folders += 1
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

    def _add(self, sweep: Sweep, path: str, real: str, before: SeenFile | None) -> SeenFile | None:
        """Record a weights file under its real path, its run by where it was found."""
        if real in sweep.files:
            return before
        try:
            found = os.stat(real)  # noqa: PTH116 - for every file of a large tree
        except OSError:  # deleted since it was listed, or a link to nowhere
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        signature = _signature(found)
        if before is None or (before.signature, before.path) != (signature, real):
            before = self._seen(sweep, path, real, found)
        if not (self._is_named(real) and self._is_named(before.run_path)):
            sweep.skipped[path] = f"{real} has no name in the database: add it to path_map"
            return before
        sweep.files[real] = before
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
            signature=_signature(found),
            mtime_ns=found.st_mtime_ns,
            size_bytes=found.st_size,
        )


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
        return exc.errno in _GONE
    return False


def seen_again(file: SeenFile) -> tuple[SeenFile, os.stat_result]:
    """Look at a file again.

    Raises:
        OSError: it cannot be reached.
    """
    found = stat_now(Path(file.path))
    again = replace(
        file,
        signature=_signature(found),
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


def _signature(found: os.stat_result) -> str:
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ino}"


def _below(folder: str, real: str, name: str) -> tuple[str, str]:
    """Give the path as walked and the real one of an entry: one text where they are the same."""
    path = f"{folder}/{name}"
    return path, path if folder == real else f"{real}/{name}"
