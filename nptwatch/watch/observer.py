"""watchdog as a wake-up call that may fail: found out by a canary, and rebuilt.

Released versions go deaf while `is_alive()` stays true (a KeyError in the inotify thread after
rename and rmtree churn), end when the root is deleted, and keep silent about the watch limit. So
nothing depends on events: the watcher scans. Here we only see to it that events come again.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import structlog
from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)

from nptwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from watchdog.observers.api import BaseObserver

    from nptwatch.watch.mailbox import Mailbox

CANARY_SECONDS: Final = 5.0
"""An event on the canary that takes longer does not come."""
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 300.0
_HEALTHY_SECONDS: Final = 600.0
_STOP_SECONDS: Final = 2.0
_CHECK_SECONDS: Final = 0.5

# Without a filter, 7.1's own walk makes more open and close events than the kernel's queue holds.
_EVENTS: Final[list[type[FileSystemEvent]]] = [
    FileCreatedEvent,
    FileClosedEvent,
    FileMovedEvent,
    FileDeletedEvent,
    DirCreatedEvent,
    DirMovedEvent,
    DirDeletedEvent,
]
_FIXES: Final = {
    errno.ENOSPC: "raise it: sysctl fs.inotify.max_user_watches=1048576",
    errno.EMFILE: "raise it: sysctl fs.inotify.max_user_instances=1024",
}

log = structlog.get_logger(__name__)


class EventSource(Protocol):
    """What the watcher wants of an observer."""

    def start(self, paths: Collection[str]) -> None:
        """Begin, or go over to other folders."""

    def check(self, paths: Collection[str]) -> None:
        """See whether it still hears; make it anew where it does not."""

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

    def start(self, paths: Collection[str]) -> None:
        """Do nothing."""

    def check(self, paths: Collection[str]) -> None:
        """Do nothing."""

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
        self._handler: _Handler | None = None
        self._threads: list[threading.Thread] = []
        self._paths: frozenset[str] = frozenset()
        self._canary_due: float | None = None
        self._doubt: str | None = None
        self._started_at = 0.0
        self._started_wall = 0.0
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._not_before = 0.0
        self._next_check = 0.0

    def start(self, paths: Collection[str]) -> None:
        """Watch these folders and what is below them; those that do not exist are left out."""
        self._retire()
        self._doubt, self._canary_due = None, None
        self._paths = frozenset(path for path in paths if Path(path).is_dir())
        self._started_at, self._started_wall = time.monotonic(), time.time()
        # 7.1 writes its whole table into a warning for each folder: 73 MB for 1,000 of them.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        before = set(threading.enumerate())
        handler = _Handler(self._mailbox, self._canary, self._is_of_interest)
        observer = None
        try:
            observer = self._make()
            for path in sorted(self._paths):
                observer.schedule(handler, path, recursive=True, event_filter=_EVENTS)
            observer.schedule(
                handler, str(self._canary.parent), recursive=False, event_filter=_EVENTS
            )
            observer.start()
        except (OSError, RuntimeError) as exc:  # RuntimeError: no thread can be started
            self._give_up(observer, exc)
            return
        self._observer, self._handler = observer, handler
        born = set(threading.enumerate()) - before
        self._threads = [t for t in born if type(t).__module__.startswith("watchdog.")]
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

    def check(self, paths: Collection[str]) -> None:
        """Replace the observer if it is dead, deaf, in doubt or watches other folders.

        Args:
            paths: folders that should be watched now.
        """
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + _CHECK_SECONDS
        wanted = frozenset(path for path in paths if Path(path).is_dir())
        if wanted != self._paths:
            self.start(wanted)
            self._mailbox.ask_rescan()
            log.info("observer_moved", folders=sorted(wanted))
            return
        reason = self._reason_to_rebuild(now)
        if reason is None:
            if now - self._started_at > _HEALTHY_SECONDS:
                self._pause_seconds = _FIRST_PAUSE_SECONDS
            return
        if now < self._not_before:
            return
        self._not_before = now + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
        self.start(paths)
        if self._observer is not None:
            log.warning("observer_rebuilt", reason=reason)
        self._mailbox.ask_rescan()  # for what was missed meanwhile

    def stop(self) -> None:
        """End the observer; never hangs, never raises."""
        self._retire()

    def _reason_to_rebuild(self, now: float) -> str | None:
        if self._observer is None or self._handler is None:
            return "there is none"
        dead = [t.name for t in self._threads if not t.is_alive()]
        if dead:
            return f"its thread ended: {', '.join(sorted(dead))}"
        if self._handler.canary_heard.is_set():
            self._canary_due = None
        if self._canary_due is not None and now > self._canary_due:
            return f"no event for the canary within {self._canary_seconds:g} s"
        return self._doubt

    def _give_up(self, observer: BaseObserver | None, exc: OSError | RuntimeError) -> None:
        fix = _FIXES.get(getattr(exc, "errno", None) or 0)
        log.warning("observer_unavailable", error=str(exc), fix=fix, meanwhile="scans only")
        self._observer, self._handler, self._threads = observer, None, []
        self._retire()

    def _retire(self) -> None:
        """Stop the old observer on a thread of its own: its `stop` may hang or raise."""
        observer, self._observer = self._observer, None
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


def _stop_quietly(observer: BaseObserver) -> None:
    try:
        observer.stop()
        if observer.ident is not None:
            observer.join(_STOP_SECONDS)
    except Exception as exc:  # noqa: BLE001 - outermost of this thread; the observer is being thrown away
        log.debug("observer_stop_failed", error=repr(exc))
