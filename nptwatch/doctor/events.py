"""Whether inotify works here: its limits against the tree, and an event that must arrive."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from structlog.testing import capture_logs

from nptwatch.doctor.answering import answering
from nptwatch.doctor.finding import Finding, ok, warn
from nptwatch.filesystem import filesystem_of
from nptwatch.watch.discovery import Finder
from nptwatch.watch.mailbox import Mailbox
from nptwatch.watch.observer import CANARY_SECONDS
from nptwatch.watch.waking import make_waking
from nptwatch.watch.watcher import PORTION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nptwatch.settings import Settings

_LINK: Final = "anon_inode:inotify"
_SCANS: Final = "until then checkpoints are found by scans"


def sends_events(settings: Settings) -> Iterator[Finding]:
    """Have the watcher's own observer hear of a file that is made in the state folder.

    Where there is none yet, in the folder for temporary files.
    """
    name = "events"
    if settings.watch.observer not in {"auto", "inotify"}:
        yield ok(name, f"not used (watch.observer = {settings.watch.observer!r})")
        return
    usable = os.access(settings.state_dir, os.W_OK | os.X_OK)
    place = settings.state_dir if usable else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="doctor-", dir=os.path.realpath(place)))
    try:
        yield _tried(name, folder, settings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tried(name: str, folder: Path, settings: Settings) -> Finding:
    mailbox = Mailbox()
    watched = folder / "watched"
    watched.mkdir()
    waking = make_waking(
        settings.watch.model_copy(update={"observer": "inotify"}),
        mailbox=mailbox,
        canary_dir=folder / "canary",
        is_of_interest=lambda name: name == "probe",
    )
    with capture_logs() as entries:
        waking.start([str(watched)])
    try:
        for entry in entries:
            if entry["event"] == "observer_unavailable":
                fix = f"{entry['fix'] or 'see the message'}; {_SCANS}"
                return warn(name, f"inotify cannot be used: {entry['error']}", fix)
        begun = time.monotonic()
        (watched / "probe").touch()
        mailbox.wait(CANARY_SECONDS)
        took = time.monotonic() - begun
        if str(watched) in mailbox.take().folders:
            where = folder.parent
            text = f"a new file in {where} was heard of after {took * 1000:.0f} ms"
            return ok(name, f"{text} (watchdog {version('watchdog')})")
    finally:
        waking.stop()
    text = f"no event came of a new file within {CANARY_SECONDS:g} s"
    return warn(name, text, f'set watch.observer = "polling"; {_SCANS}')


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What a user's processes have of inotify."""

    watches: int
    instances: int


def has_enough_watches(settings: Settings, proc: Path = Path("/proc")) -> Iterator[Finding]:
    """Compare inotify's limits with what the local roots need.

    Args:
        proc: where the kernel tells of itself.
    """
    name = "inotify limits"
    roots = [root for root in answering(settings.watch.roots) if _is_heard(root, settings)]
    if not roots:
        yield ok(name, "no root is heard by inotify")
        return
    is_weights = Finder(settings.watch).is_weights
    needed = sum(count_folders(root, is_weights) for root in roots)
    watches, instances = (
        int((proc / f"sys/fs/inotify/max_user_{what}").read_text())
        for what in ("watches", "instances")
    )
    used = used_by_others(proc, _user(settings.state_dir), _daemon(settings.state_dir))
    text = f"{needed:,} folders to watch, {watches - used.watches:,} of {watches:,} watches free"
    if needed > watches - used.watches:
        yield warn(name, text, _raise("watches", needed + used.watches, watches))
    elif used.instances + 1 >= instances:
        text = f"{used.instances} of {instances} instances are in use"
        yield warn(name, text, _raise("instances", used.instances, instances))
    else:
        yield ok(name, text)


def _raise(what: str, needed: int, limit: int) -> str:
    enough = max(2 * limit, 1 << (2 * needed - 1).bit_length())
    return (
        f"as root: echo fs.inotify.max_user_{what}={enough} > /etc/sysctl.d/90-nptwatch.conf"
        f" && sysctl --system; {_SCANS}"
    )


def _is_heard(root: Path, settings: Settings) -> bool:
    if settings.watch.observer != "auto":
        return settings.watch.observer == "inotify"
    found = filesystem_of(root)
    return found is None or not found.network


def count_folders(root: Path, is_weights: Callable[[str], bool]) -> int:
    """Count the folders of a tree that are heard of, links not followed.

    Those that hold a checkpoint and no folder are so only until it is stored.
    """
    checkpoints = others = 0
    for _, folders, files in os.walk(os.path.realpath(root)):
        if not folders and any(map(is_weights, files)):
            checkpoints += 1
        else:
            others += 1
    return others + min(checkpoints, 2 * PORTION)


def used_by_others(proc: Path, uid: int, daemon: int | None) -> Used:
    """Count what a user's processes hold, as far as they can be seen; a daemon's is ours."""
    watches = instances = 0
    for process in proc.iterdir():
        if not process.name.isdigit() or int(process.name) == daemon:
            continue
        with suppress(OSError):  # it ended, or does not let us see
            if process.stat().st_uid != uid:
                continue
            for descriptor in (process / "fd").iterdir():
                if str(descriptor.readlink()) == _LINK:
                    instances += 1
                    info = (process / "fdinfo" / descriptor.name).read_text()
                    watches += info.count("inotify wd:")
    return Used(watches=watches, instances=instances)


def _user(state_dir: Path) -> int:
    """Give the daemon's user: limits are each user's own."""
    try:
        return state_dir.stat().st_uid
    except OSError:  # not there yet
        return os.geteuid()


def _daemon(state_dir: Path) -> int | None:
    """Give the process id of the daemon that was last started; it may have ended."""
    try:
        return int((state_dir / "daemon.lock").read_text())
    except (OSError, ValueError):
        return None
