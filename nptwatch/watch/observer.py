"""Events as a wake-up call that may fail: found out by a canary, and made anew.

An observer's thread may end, the kernel may throw events away, a file system may never send any.
So nothing depends on events: the watcher scans. Here we only see to it that events come again.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import structlog
from watchdog.events import FileSystemEventHandler
from watchdog.observers.api import BaseObserver

from nptwatch.errors import ConfigError
from nptwatch.watch.emitter import FolderEmitter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from watchdog.events import FileSystemEvent

    from nptwatch.watch.mailbox import Mailbox

CANARY_SECONDS: Final = 5.0
"""An event on the canary that takes longer does not come."""
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 300.0
_HEALTHY_SECONDS: Final = 600.0
_STOP_SECONDS: Final = 2.0
_CHECK_SECONDS: Final = 0.5

_FIXES: Final = {
    errno.ENOSPC: "raise it: sysctl fs.inotify.max_user_watches=1048576",
    errno.EMFILE: "raise it: sysctl fs.inotify.max_user_instances=1024",
}

log = structlog.get_logger(__name__)


class EventSource(Protocol):
    """What the watcher wants of an observer."""

    def start(self, folders: Collection[str]) -> None:
        """Begin anew with these folders."""

    def check(self, folders: Collection[str]) -> list[str]:
        """See whether it still hears, and of these folders; make it anew where it does not.

        Returns:
            Folders that it hears of only now: what came into them before, it has not heard.
        """

    def send_canary(self) -> None:
        """Cause an event that must come back."""

    def suspect(self, reason: str) -> None:
        """Be told that an event was missed."""

    def heard_since(self) -> float | None:
        """Wall-clock time from which events should have come; None while there are none."""

    def stop(self) -> None:
        """End."""


class Silence:
    """No observer at all: the scans find everything."""

    def start(self, folders: Collection[str]) -> None:
        """Do nothing."""

    def check(self, folders: Collection[str]) -> list[str]:  # noqa: ARG002 - as the protocol has it
        """Do nothing."""
        return []

    def send_canary(self) -> None:
        """Do nothing."""

    def suspect(self, reason: str) -> None:
        """Do nothing."""

    def heard_since(self) -> float | None:
        """Nothing is ever heard."""
        return None

    def stop(self) -> None:
        """Do nothing."""


class _Handler(FileSystemEventHandler):
    """Turns events into hints. Never raises: an exception would end watchdog's thread."""

    def __init__(
        self, mailbox: Mailbox, canary: Path, is_of_interest: Callable[[str], bool]
    ) -> None:
        self._mailbox = mailbox
        self._canary = str(canary)
        self._is_of_interest = is_of_interest
        self.canary_heard = threading.Event()
        self.retired = False

    def dispatch(self, event: FileSystemEvent) -> None:
        """Take one event, on watchdog's thread."""
        if self.retired:
            return
        try:
            for path in {event.src_path, event.dest_path} - {""}:
                self._take(os.fsdecode(path), is_folder=event.is_directory)
        except Exception:  # outermost loop of watchdog's thread
            log.exception("event_dropped", watch_event=repr(event))
            self._mailbox.ask_rescan()

    def _take(self, path: str, *, is_folder: bool) -> None:
        if path == self._canary:
            self.canary_heard.set()
        elif is_folder:
            self._mailbox.hint(path, deep=True)
        elif self._is_of_interest(Path(path).name):
            self._mailbox.hint(str(Path(path).parent), deep=False)


class WatchdogObserver:
    """A watchdog observer that is replaced by a fresh one whenever it may have gone deaf."""

    def __init__(
        self,
        *,
        make: Callable[[], BaseObserver],
        mailbox: Mailbox,
        canary_dir: Path,
        is_of_interest: Callable[[str], bool],
        canary_seconds: float = CANARY_SECONDS,
    ) -> None:
        try:
            canary_dir.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            message = f"state folder {canary_dir} cannot be made: {exc.strerror}"
            raise ConfigError(message) from exc
        self._canary = Path(os.path.realpath(canary_dir)) / "watch-canary"
        self._make = make
        self._mailbox = mailbox
        self._is_of_interest = is_of_interest
        self._canary_seconds = canary_seconds
        self._observer: BaseObserver | None = None
        self._emitter: FolderEmitter | None = None
        self._handler: _Handler | None = None
        self._folders: Collection[str] = ()
        self._has_absent = False
        self._canary_due: float | None = None
        self._doubt: str | None = None
        self._started_at = 0.0
        self._started_wall = 0.0
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._not_before = 0.0
        self._next_check = 0.0

    def start(self, folders: Collection[str]) -> None:
        """Hear of these folders; those that do not exist are left out."""
        self._retire()
        self._doubt, self._canary_due = None, None
        self._started_at, self._started_wall = time.monotonic(), time.time()
        handler = _Handler(self._mailbox, self._canary, self._is_of_interest)
        observer = None
        try:
            observer = self._make()
            observer.schedule(handler, str(self._canary.parent))
            observer.start()
            self._emitter = _emitter_of(observer)
            self._emitter.hear(folders)
        except (OSError, RuntimeError) as exc:  # RuntimeError: no thread can be started
            self._give_up(observer, exc)
            return
        self._folders, self._has_absent = folders, True
        self._observer, self._handler = observer, handler
        self.send_canary()

    def send_canary(self) -> None:
        """Write the canary file; its event must come within `canary_seconds`."""
        if self._handler is None or self._canary_due is not None:
            return
        self._handler.canary_heard.clear()
        try:
            self._canary.write_text(f"{time.time()}\n", encoding="ascii")
        except OSError as exc:  # disk full: no reason to think that the observer is deaf
            log.warning("canary_not_written", path=str(self._canary), error=str(exc))
            return
        self._canary_due = time.monotonic() + self._canary_seconds

    def suspect(self, reason: str) -> None:
        """Note that something happened of which no event spoke."""
        self._doubt = self._doubt or reason

    def heard_since(self) -> float | None:
        """Wall-clock time from which events should have come; None while there is no observer."""
        return self._started_wall if self._observer is not None else None

    def check(self, folders: Collection[str]) -> list[str]:
        """Replace the observer if it is dead, deaf or in doubt; see that it hears of all folders.

        Args:
            folders: what should be heard of now.

        Returns:
            Folders that it hears of only now.
        """
        now = time.monotonic()
        if now < self._next_check:
            return []
        self._next_check = now + _CHECK_SECONDS
        reason = self._reason_to_rebuild(now)
        if reason is None:
            if now - self._started_at > _HEALTHY_SECONDS:
                self._pause_seconds = _FIRST_PAUSE_SECONDS
            return self._follow(folders)
        if now < self._not_before:
            return []
        self._not_before = now + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
        self.start(folders)
        if self._observer is not None:
            log.warning("observer_rebuilt", reason=reason)
        self._mailbox.ask_rescan()  # for what was missed meanwhile
        return []

    def _follow(self, folders: Collection[str]) -> list[str]:
        """Go over to other folders; those that are absent, or were lost, are tried again."""
        emitter = self._emitter
        is_same = folders is self._folders
        if emitter is None or (is_same and not self._has_absent and not emitter.has_lost):
            return []
        if not is_same:  # not: all that it hears of. What has just come it knows before any scan.
            emitter.ignore(set(self._folders) - set(folders))
        wanted = emitter.missing(folders)
        try:
            heard = emitter.hear(wanted)
        except OSError as exc:
            self._give_up(self._observer, exc)
            return []
        self._folders, self._has_absent = folders, len(heard) < len(wanted)
        return heard

    def stop(self) -> None:
        """End the observer; never hangs, never raises."""
        self._retire()

    def _reason_to_rebuild(self, now: float) -> str | None:
        if self._observer is None or self._handler is None:
            return "there is none"
        if not (self._observer.is_alive() and _emitter_of(self._observer).is_alive()):
            return "its thread ended"
        if _emitter_of(self._observer).has_overflowed:
            return "more events came than the kernel keeps"
        if self._handler.canary_heard.is_set():
            self._canary_due = None
        if self._canary_due is not None and now > self._canary_due:
            return f"no event for the canary within {self._canary_seconds:g} s"
        return self._doubt

    def _give_up(self, observer: BaseObserver | None, exc: OSError | RuntimeError) -> None:
        fix = _FIXES.get(getattr(exc, "errno", None) or 0)
        log.warning("observer_unavailable", error=str(exc), fix=fix, meanwhile="scans only")
        self._observer, self._handler = observer, None
        self._retire()

    def _retire(self) -> None:
        """Stop the old observer on a thread of its own: its `stop` may hang or raise."""
        observer, self._observer, self._emitter = self._observer, None, None
        if self._handler is not None:
            self._handler.retired = True
        self._handler = None
        if observer is None:
            return
        stopper = threading.Thread(
            target=_stop_quietly, args=(observer,), name="watch-observer-stop", daemon=True
        )
        stopper.start()
        stopper.join(_STOP_SECONDS)


def make_observer() -> BaseObserver:
    """Make one that hears of folders one by one."""
    return BaseObserver(FolderEmitter)


def _emitter_of(observer: BaseObserver) -> FolderEmitter:
    (emitter,) = observer.emitters
    if not isinstance(emitter, FolderEmitter):
        raise TypeError(f"expected a FolderEmitter, got {type(emitter).__name__}")
    return emitter


def _stop_quietly(observer: BaseObserver) -> None:
    try:
        observer.stop()
        if observer.ident is not None:
            observer.join(_STOP_SECONDS)
    except Exception as exc:  # noqa: BLE001 - outermost of this thread; the observer is being thrown away
        log.debug("observer_stop_failed", error=repr(exc))
