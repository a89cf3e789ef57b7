"""The watched roots, the state folder, and the clocks of their file systems."""

from __future__ import annotations

import os
import pwd
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nptwatch.doctor.finding import Finding, fail, ok, warn
from nptwatch.filesystem import filesystem_of
from nptwatch.setup.program import own_command
from nptwatch.watch.discovery import Finder
from nptwatch.watch.sighting import unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nptwatch.settings import Settings
    from nptwatch.watch.sweep import Sweep

SKEW_SECONDS: Final = 2.0
"""A smaller difference between clocks is no difference."""
_MIB: Final = 1024**2
_LEAST_BYTES: Final = 64 * _MIB
"""With less than this a database soon stops."""
_LEAST_INODES: Final = 1000
_NEWEST: Final = 50
"""So many of the newest files are asked for their time of change."""
_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_NTP: Final = "set the clocks of this host and of the file server by NTP (chrony)"


def look_at_root(root: Path, settings: Settings) -> Iterator[Finding]:
    """Look whether a root can be read, on what it is, and how it is watched; then walk it."""
    name = f"root {root}"
    if not root.is_dir():
        yield fail(name, "is not a directory", "mount it, or correct watch.roots")
        return
    real = os.path.realpath(root)
    if not settings.paths.is_named(real):
        fix = f"give {root} an entry of its own in path_map"
        yield fail(name, "has no name in the database: path_map gives it to another folder", fix)
    if Path(os.path.realpath(settings.state_dir)).is_relative_to(real):
        fix = "set state_dir to a folder that is not watched"
        yield fail(name, f"holds the state folder {settings.state_dir}: nothing is kept", fix)
    yield _how_watched(name, root, settings)
    reason = unreachable(str(root))
    if reason == "it is empty":
        fix = "if it is a share, mount it; its files are not called deleted meanwhile"
        yield warn(name, "is empty", fix)
    elif reason is not None:
        yield fail(name, f"cannot be listed: {reason}", f"let {_user()} read it")
    else:
        yield from _walked(root, settings)


def look_at_state(settings: Settings) -> Iterator[Finding]:
    """Look whether the state folder can be written, and what room there is."""
    folder, name = settings.state_dir, "state folder"
    if not folder.is_dir():
        yield _not_there(name, folder)
        return
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        doctor = f"sudo -u {_name_of(owner)} {own_command('doctor')}"
        fix = f"run the doctor as the daemon's user: {doctor}"
        yield warn(name, f"{folder} is {_name_of(owner)}'s, you are {_user()}", fix)
    try:
        skew = _skew_of(folder)
    except OSError as error:
        fix = f"let {_user()} write there, or set state_dir"
        yield fail(name, f"{folder} cannot be written: {error.strerror}", fix)
        return
    found = filesystem_of(folder)
    kind = "" if found is None else f" ({found.name})"
    if found is not None and found.name in _MEMORY:
        fix = "set state_dir to a folder on a disk"
        yield warn(name, f"{folder}{kind} is in memory: history is lost at a restart", fix)
    yield _room(name, folder, kind, settings)
    yield _clock(f"clock of {folder}", skew)


def _how_watched(name: str, root: Path, settings: Settings) -> Finding:
    watch = settings.watch
    found = filesystem_of(root)
    kind = "its file system does not say what it is" if found is None else found.name
    network = found is not None and found.network
    polls = f"polled every {watch.poll_min_seconds:g} to {watch.poll_max_seconds:g} s"
    scans = f"read in full every {watch.rescan_seconds:g} s"
    if watch.observer == "none":
        return ok(name, f"{kind}; {scans}, nothing else (watch.observer)")
    if watch.observer == "polling" or (watch.observer == "auto" and network):
        return ok(name, f"{kind}, {polls}; {scans}")
    if network:
        text = f"{kind}: inotify does not hear what other hosts write; {scans}"
        return warn(name, text, 'set watch.observer = "auto": it polls there')
    return ok(name, f"{kind}, heard by inotify; {scans}")


def _walked(root: Path, settings: Settings) -> Iterator[Finding]:
    name = f"files of {root}"
    begun = time.monotonic()
    watch = settings.watch.model_copy(update={"roots": (root,)})
    (sweep,) = Finder(watch, settings.paths.is_named).sweep()
    took = time.monotonic() - begun
    text = (
        f"{_count(len(sweep.files), 'checkpoint')} in {_count(sweep.folders, 'folder')}, "
        f"read in {took:.1f} s"
    )
    if sweep.unlisted:
        fix = f"let {_user()} read {sweep.unlisted[0]}"
        more = "" if len(sweep.unlisted) == 1 else f", and {len(sweep.unlisted) - 1} more"
        yield warn(name, f"{text}; {_count(len(sweep.unlisted), 'folder')} unreadable", fix + more)
    elif took > settings.watch.rescan_seconds:
        fix = "raise watch.rescan_seconds, or leave folders out by watch.exclude"
        yield warn(name, f"{text}, which is longer than watch.rescan_seconds", fix)
    else:
        yield ok(name, text)
    if sweep.files:
        yield _clock(f"clock of {root}", _ahead(sweep), of="the newest checkpoint")


def _ahead(sweep: Sweep) -> float:
    """Give by how much the newest file is of the future (seconds); 0: it is not."""
    newest = sorted(sweep.files.values(), key=lambda file: file.mtime_ns)[-_NEWEST:]
    times = [0.0]
    for file in newest:
        try:
            found = os.stat(file.path)  # noqa: PTH116 - a text
        except OSError:  # rotated away
            continue
        times.append(max(found.st_mtime, found.st_ctime))
    return max(max(times) - time.time(), 0.0)


def _skew_of(folder: Path) -> float:
    """Write a file that has no name; give by how much its time is off (seconds).

    Raises:
        OSError: nothing can be written there.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        before = time.time()
        file.write(b"nptwatch doctor")
        file.flush()
        changed, after = os.fstat(file.fileno()).st_mtime, time.time()
    return changed - min(max(changed, before), after)


def _clock(name: str, skew: float, of: str = "a new file") -> Finding:
    if abs(skew) <= SKEW_SECONDS:
        return ok(name, "file times and this host's clock agree")
    where = "ahead of" if skew > 0 else "behind"
    return warn(name, f"{of} is {abs(skew):.0f} s {where} this host's clock", _NTP)


def _room(name: str, folder: Path, kind: str, settings: Settings) -> Finding:
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    text = f"{folder}{kind}, {free / 1024**3:.1f} GiB free"
    if free < _LEAST_BYTES:
        return fail(name, text, "free some space: the database cannot grow")
    if room.f_files > 0 and room.f_favail < _LEAST_INODES:
        return fail(name, f"{text}, {room.f_favail} inodes free", "delete files: none can be made")
    if free < settings.kept.reserve_bytes:
        fix = "free some space, or lower kept.reserve_gib: no checkpoint is kept"
        return warn(
            name, f"{text}, less than kept.reserve_gib ({settings.kept.reserve_gib:g})", fix
        )
    return ok(name, text)


def _not_there(name: str, folder: Path) -> Finding:
    above = next(parent for parent in folder.parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        fix = f"make it, as the daemon's user's: sudo install -d -o USER {folder}; or set state_dir"
        return fail(name, f"{folder} is not there, and {_user()} cannot make it in {above}", fix)
    return ok(name, f"{folder} is not there yet: `nptwatch run` makes it")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _user() -> str:
    return _name_of(os.geteuid())


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # in a container
        return f"user {uid}"
