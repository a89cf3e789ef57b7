"""What goes wrong when nothing happens: silence, and measurements that cannot be made."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from itertools import pairwise, takewhile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import structlog

from nptwatch.alerts.levels import open_trouble
from nptwatch.store.engine import utc_now
from nptwatch.store.news import RECOVERED, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from nptwatch.alert_settings import AlertSettings
    from nptwatch.alerts.routing import Router
    from nptwatch.store.alarms import Alarms
    from nptwatch.store.news import Told, Vitals

SILENT, DIAGNOSIS_FAILING = "silent", "diagnosis_failing"

FEWEST_GAPS = 2
"""A gap is usual when there were so many."""

ABSENCE_SECONDS = 300.0
"""Who has not looked for so long was asleep or cut off, and begins to wait anew."""

CLOSE = timedelta(minutes=1)
"""Files that a trainer writes at its end may lie so far apart."""

_CONFIGS = ("config.json", "trainer_state.json")
_MOST_BYTES = 4 * 1024 * 1024

log = structlog.get_logger()


class Lookout:
    """Looks at the runs of this daemon's roots now and then, and raises what it finds.

    Silence is counted from when it began to look: a daemon that was down has heard nothing.

    Args:
        roots: real paths; runs of other daemons' roots are left to them.
    """

    def __init__(
        self,
        alarms: Alarms,
        router: Router,
        settings: AlertSettings,
        *,
        roots: Sequence[str],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._alarms = alarms
        self._router = router
        self._settings = settings
        self._roots = roots
        self._clock = clock
        self._since = self._looked_at = clock()

    def look(self) -> int:
        """Look at every run; give how many events were raised.

        Raises:
            DatabaseError: it cannot be used.
        """
        now = self._clock()
        if (now - self._looked_at).total_seconds() > ABSENCE_SECONDS:
            self._since = now
        self._looked_at = now
        return sum(self._look_at(vitals, now) for vitals in self._alarms.vitals(self._roots))

    def _look_at(self, vitals: Vitals, now: datetime) -> int:
        """Raise what is found; files are read only if something is, and outside the transaction."""
        if not self._found(vitals, now, may_be_silent=True):
            return 0
        decide = partial(self._found, now=now, may_be_silent=not is_finished(vitals))
        raised = self._alarms.raise_where(vitals.run_id, decide)
        for event in raised:
            log.warning("run_noticed", kind=event.kind, run=vitals.run_name)
        return len(raised)

    def _found(self, vitals: Vitals, now: datetime, *, may_be_silent: bool) -> list[Event]:
        return [
            *self._silence(vitals, now, may_be_silent=may_be_silent),
            *self._failures(vitals, now),
        ]

    def _silence(self, vitals: Vitals, now: datetime, *, may_be_silent: bool) -> Iterator[Event]:
        last, trouble = vitals.last, open_trouble(vitals.told, SILENT)
        if last is None:
            return
        if trouble is not None:
            # the last one may also be another because retention took the very last away
            if trouble.subject != last.fingerprint and last.seen_at > trouble.at:
                yield self._recovery(vitals, trouble, now, "checkpoints arrive again")
            return
        patience = patience_of(vitals, self._settings)
        quiet = now - max(last.seen_at, self._since)
        if patience is None or quiet <= patience or not may_be_silent:
            return
        yield self._event(
            SILENT,
            vitals,
            now,
            subject=last.fingerprint,
            detail=f"the last one came {_span(now - last.seen_at)} ago; "
            f"one every {_span(usual_gap(vitals) or patience)} was usual",
        )

    def _failures(self, vitals: Vitals, now: datetime) -> Iterator[Event]:
        after, trouble = self._settings.failing_after, open_trouble(vitals.told, DIAGNOSIS_FAILING)
        begin = vitals.known_at - timedelta(seconds=self._settings.history_seconds)
        ended = [each for each in vitals.ended if each.written_at >= begin]
        if not after or not ended:
            return
        same = list(takewhile(lambda each: each.ok == ended[0].ok, ended))
        if len(same) < after:
            return
        if trouble is not None and same[0].ok:
            yield self._recovery(vitals, trouble, now, "checkpoints can be measured again")
        elif trouble is None and not same[0].ok:
            why = f", the last one because: {same[0].reason}" if same[0].reason else ""
            yield self._event(
                DIAGNOSIS_FAILING,
                vitals,
                now,
                subject=f"job {same[-1].job_id}",
                detail=f"{len(same)} in a row could not be{why}",
                step=same[0].step,
                path=same[0].path,
            )

    def _recovery(self, vitals: Vitals, trouble: Told, now: datetime, detail: str) -> Event:
        event = self._event(
            RECOVERED, vitals, now, subject=trouble.event_id, detail=detail, of=trouble.kind
        )
        told = self._router.of(vitals.run_name).wants(trouble.kind)
        return event if told else event.untold()

    def _event(
        self, kind: str, vitals: Vitals, now: datetime, *, subject: str, **more: object
    ) -> Event:
        last = vitals.last
        payload: dict[str, Any] = {  # Any: free JSON
            "kind": kind,
            "run": vitals.run_name,
            "run_path": vitals.run_path,
            "step": last and last.step,
            "path": last and last.path,
            "fingerprint": last and last.fingerprint,
            "late": False,
            "at": now.isoformat(),
        }
        return Event(
            kind=kind,
            subject=subject,
            payload=payload | more,
            messages=self._router.of(vitals.run_name).messages(kind, now),
        )


def usual_gap(vitals: Vitals) -> timedelta | None:
    """Give the median of the times between a run's newest checkpoints; None: too few are known.

    By when they were written: of a backlog all are seen at once.
    """
    gaps = [later - earlier for later, earlier in pairwise(vitals.written)]
    positive = [gap.total_seconds() for gap in gaps if gap > timedelta(0)]
    return timedelta(seconds=median(positive)) if len(positive) >= FEWEST_GAPS else None


def patience_of(vitals: Vitals, settings: AlertSettings) -> timedelta | None:
    """Say how long a run may be quiet; None: for ever, as nobody saw it alive."""
    gap = usual_gap(vitals)
    alive = bool(vitals.written) and vitals.written[0] > vitals.known_at
    if gap is None or not alive or not settings.silent_after:
        return None
    return max(gap * settings.silent_after, timedelta(seconds=settings.silent_at_least_seconds))


def is_finished(vitals: Vitals) -> bool:
    """Whether training ended as it should: nothing more is to come.

    Its last file is in `final/`; or its last step is the `max_steps` of its config; or its folder
    is gone.
    """
    final, last = vitals.final_written_at, vitals.last
    if last is None or (final is not None and final >= vitals.written[0] - CLOSE):
        return True
    if not Path(vitals.run_path).is_dir():
        return True
    folders = (Path(vitals.run_path), Path(last.path).parent)
    ends = [_max_steps(folder / name) for folder in folders for name in _CONFIGS]
    return last.step is not None and any(end is not None and last.step >= end for end in ends)


def _max_steps(file: Path) -> int | None:
    """Read the step at which training means to end; None where nobody says so."""
    try:
        with file.open("rb") as opened:
            told = json.loads(opened.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    end = told.get("max_steps") if isinstance(told, dict) else None
    return end if isinstance(end, int) and not isinstance(end, bool) and end > 0 else None


def _span(span: timedelta) -> str:
    minutes = span.total_seconds() / 60
    for limit, size, unit in ((100, 1, "min"), (48 * 60, 60, "h")):
        if minutes < limit:
            return f"{minutes / size:.0f} {unit}"
    return f"{minutes / 1440:.0f} d"
