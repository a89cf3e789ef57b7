"""The chores of the daemon, on APScheduler."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from nptwatch.errors import DatabaseError, NptwatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

JITTER = 0.1
"""Share of its interval by which a chore's turn may come later or earlier: the daemons of a
cluster, all started at once, must not all ask at once for ever."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chore:
    """Something done every so often.

    Attributes:
        at_start: for the first time at once, not after `every_seconds`.
    """

    name: str
    do: Callable[[], object]
    every_seconds: float
    at_start: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A chore that was done once; `error`: what went wrong."""

    name: str
    started_at: datetime
    seconds: float
    error: Exception | None


def _ignore(_turn: Turn) -> None:
    return None


class Schedule:
    """Runs chores in the background; none overlaps itself, none delays another.

    Args:
        note: told of the end of each turn, on the thread that did it.
    """

    def __init__(self, chores: Sequence[Chore], note: Callable[[Turn], None] = _ignore) -> None:
        self._note = note
        # A chore that runs longer than its interval is no news: APScheduler warns at each turn.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(max(1, len(chores)))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._outages = Outages()
        self._troubles = Troubles()
        self._running: dict[str, float] = {}
        for chore in chores:
            self._scheduler.add_job(
                self._run,
                "interval",
                args=[chore],
                seconds=chore.every_seconds,
                jitter=JITTER * chore.every_seconds,
                id=chore.name,
                next_run_time=_first_run(chore),
            )

    def start(self) -> None:
        """Start the thread that does the chores."""
        self._scheduler.start()

    def stop(self) -> None:
        """Start no further chore and wait for those that run."""
        self._scheduler.shutdown(wait=True)

    def is_alive(self) -> bool:
        """Whether the scheduler's thread runs."""
        thread = self._scheduler._thread  # noqa: SLF001 - `running` stays true when it died
        return thread is not None and thread.is_alive()

    def running(self) -> dict[str, float]:
        """Give the chores whose turn it is, and for how many seconds."""
        now = time.monotonic()
        return {name: now - began for name, began in self._running.copy().items()}

    def _run(self, chore: Chore) -> None:
        started_at, began = datetime.now(UTC), time.monotonic()
        self._running[chore.name] = began
        failure: Exception | None = None
        try:
            chore.do()
        except DatabaseError as error:
            failure = error
            self._outages.failed(chore.name, error)
        except NptwatchError as error:
            failure = error
            self._troubles.failed(chore.name, error)
        except Exception as error:  # outermost of this thread's work: the next turn may go better
            failure = error
            log.exception("chore_failed", chore=chore.name)
        else:
            self._outages.worked(chore.name)
            self._troubles.worked(chore.name)
        seconds = time.monotonic() - began
        del self._running[chore.name]
        self._note(Turn(name=chore.name, started_at=started_at, seconds=seconds, error=failure))


def _first_run(chore: Chore) -> datetime:
    wait_seconds = 0.0 if chore.at_start else chore.every_seconds
    return datetime.now(UTC) + timedelta(seconds=wait_seconds)


class Outages:
    """Logs a lost database once, and once when it is back, however many chores miss it.

    It is back for all when one that missed it works: the others' turns may be hours away.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failing: set[str] = set()

    def failed(self, name: str, error: DatabaseError) -> None:
        """A chore could not reach the database."""
        with self._lock:
            first = not self._failing
            self._failing.add(name)
        if first:
            log.error("database_lost", chore=name, error=str(error))

    def worked(self, name: str) -> None:
        """A chore reached the database."""
        with self._lock:
            back = name in self._failing
            if back:
                self._failing.clear()
        if back:
            log.info("database_back", chore=name)


class Troubles:
    """Logs once what a chore says of a failure in words, until it says something else or works."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}  # each chore has one thread at a time

    def failed(self, name: str, error: NptwatchError) -> None:
        """A chore failed and said why."""
        if self._told.get(name) != str(error):
            log.error("chore_failed", chore=name, error=str(error))
        self._told[name] = str(error)

    def worked(self, name: str) -> None:
        """A chore went well."""
        if self._told.pop(name, None) is not None:
            log.info("chore_works_again", chore=name)
