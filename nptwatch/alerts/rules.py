"""Which results raise which events. Pure.

People are told what they do not know yet: what they believe of a run follows from the events that
it has (levels.py), so that neither a restart nor a second daemon nor a rerun tells them twice.
"""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from nptwatch.alerts.levels import (
    REACHED,
    REGRESSED,
    Steadiness,
    believed_of,
    ever_told,
    level_of,
    open_trouble,
)
from nptwatch.alerts.payloads import payload_of
from nptwatch.alerts.routing import Router
from nptwatch.diagnostics.grading import Grade, at_least
from nptwatch.settings import FULL
from nptwatch.store.news import RECOVERED, Event, Verdict
from nptwatch.store.records import Demand

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nptwatch.alert_settings import AlertSettings
    from nptwatch.alerts.routing import Route
    from nptwatch.store.news import AlertRules, Standing, Told
    from nptwatch.store.records import Request

UNCONFIRMED = "unconfirmed"
"""A note that nobody is sent: the full diagnostic did not agree with the quick one."""

NEW_BEST, INVALID, STALLED = "new_best", "invalid", "stalled"

NOT_READY = "NOT_READY"

_NOTHING: Mapping[str, object] = MappingProxyType({})


def make_rules(settings: AlertSettings, channels: Sequence[str], full: Request) -> AlertRules:
    """Build the rules of these settings.

    Args:
        channels: names of all channels there are.
        full: the full diagnostic, where a level has to be confirmed.
    """
    return Rules(settings, Router(settings, channels), full)


class Rules:
    """Decides inside the transaction of a result.

    Args:
        router: who is told of what.
        full: the full diagnostic by the settings in force.
    """

    def __init__(self, settings: AlertSettings, router: Router, full: Request) -> None:
        self._settings = settings
        self._router = router
        self._full = full
        self._history = timedelta(seconds=settings.history_seconds)
        self._steady = Steadiness(needs=settings.regressed_needs, of=settings.regressed_of)

    def __call__(self, standing: Standing) -> Verdict:
        """Say what a result raises; of what was written long before the watch, nothing."""
        if standing.written_at < standing.known_at - self._history:
            return Verdict()
        route = self._router.of(standing.run_name)
        reached = self._reached(standing, route)
        if reached is None:
            events = [*self._fallen(standing, route), *self._new_best(standing, route)]
            return Verdict(events=(*events, *self._troubles(standing, route)))
        troubles = tuple(self._troubles(standing, route))
        if not route.confirm:
            return Verdict(events=(self._crossing(standing, route, reached), *troubles))
        if standing.profile != FULL:
            because = f"to confirm {standing.point.grade}"
            return Verdict(events=troubles, demand=Demand(request=self._full, because=because))
        if standing.overall_status == NOT_READY:
            note = _event(UNCONFIRMED, standing, route)
            return Verdict(events=(note, *troubles))
        crossing = self._crossing(standing, route, reached, confirmed=True)
        return Verdict(events=(crossing, *troubles))

    def _reached(self, standing: Standing, route: Route) -> Grade | None:
        """Give the highest level that the run has reached and people do not know of.

        The first time it is news at once; after a fall only when it is steady.
        """
        # the full diagnostic of a step that newer quick ones have overtaken still confirms
        confirms = route.confirm and standing.profile == FULL
        for grade in REACHED:
            if not at_least(standing.point.grade, grade):
                continue
            if standing.late and not (confirms and at_least(standing.status, grade)):
                if not ever_told(standing.told, grade, late=True):
                    return grade
                continue
            if at_least(level_of(standing.told), grade):
                continue
            if not ever_told(standing.told, grade, late=False) or self._steady.above(
                standing.recent, grade
            ):
                return grade
        return None

    def _crossing(
        self, standing: Standing, route: Route, grade: Grade, *, confirmed: bool = False
    ) -> Event:
        """Tell by the highest kind that is wanted: passing GOOD on the way is reaching it."""
        kinds = [kind for level, kind in REACHED.items() if at_least(grade, level)]
        kind = next((kind for kind in kinds if route.wants(kind)), kinds[0])
        more = {"confirmed": True} if confirmed else {}
        return _event(kind, standing, route, more=more)

    def _fallen(self, standing: Standing, route: Route) -> Iterator[Event]:
        """Tell that a level which people believe in is lost, when that is steady."""
        believed = believed_of(standing.told)
        if believed is None or standing.late or standing.status == Grade.INVALID:
            return
        for grade in (Grade.GOOD, Grade.EXCELLENT):
            lost = at_least(believed.new, grade) and not at_least(standing.status, grade)
            # below EXCELLENT only: the fall ends at GOOD, or is not known to have ended yet
            ended = grade == Grade.GOOD or at_least(standing.status, Grade.GOOD)
            if lost and ended and self._steady.below(standing.recent, grade):
                before = {
                    "old": believed.new,
                    "previous_mse": believed.mse,
                    "previous_cosine": None,
                }
                yield _event(REGRESSED, standing, route, more=before)
                return

    def _new_best(self, standing: Standing, route: Route) -> Iterator[Event]:
        """Tell of a best checkpoint that is much better than what was told last."""
        point, told = standing.point, standing.told
        if standing.best is None or standing.best.fingerprint != point.fingerprint:
            return
        if standing.late and not standing.caught_up:
            return  # of a backlog only what is best in the end
        known = [
            each.mse
            for each in told
            if each.mse is not None and each.kind in {NEW_BEST, *REACHED.values()}
        ]
        wanted = at_least(point.grade, Grade(self._settings.new_best_from))
        if not wanted or point.mse is None or len(standing.recent) == 1:
            return
        if not known or point.mse < min(known) * (1 - self._settings.new_best_by):
            before = min(known, default=None)
            more = {"previous_mse": before, "previous_cosine": None}
            yield _event(NEW_BEST, standing, route, more=more)

    def _troubles(self, standing: Standing, route: Route) -> Iterator[Event]:
        """Tell of NaN and of standstill, once each until it is over."""
        invalid = open_trouble(standing.told, INVALID)
        if not standing.late and standing.status == Grade.INVALID and invalid is None:
            yield _event(INVALID, standing, route)
        elif (
            invalid is not None
            and not standing.late
            and standing.status != Grade.INVALID
            and self._steady.sound(standing.recent)
        ):
            yield _recovery(standing, route, invalid)
        yield from self._standstill(standing, route)

    def _standstill(self, standing: Standing, route: Route) -> Iterator[Event]:
        best, stalled = standing.best, open_trouble(standing.told, STALLED)
        after = self._settings.stalled_after
        if best is None or not after:
            return
        if stalled is None:
            settled = standing.caught_up or not standing.late
            if settled and standing.newer_than_best >= after:
                detail = (
                    f"{standing.newer_than_best} checkpoints are newer than the best"
                    f"{'' if best.step is None else f' (step {best.step})'}"
                )
                more = {"detail": detail}
                yield _event(STALLED, standing, route, subject=best.fingerprint, more=more)
        elif not standing.late and best.fingerprint == standing.point.fingerprint:
            yield _recovery(standing, route, stalled)


def _event(
    kind: str,
    standing: Standing,
    route: Route,
    *,
    subject: str | None = None,
    more: Mapping[str, object] = _NOTHING,
) -> Event:
    return Event(
        kind=kind,
        subject=subject or standing.point.fingerprint,
        payload={**payload_of(kind, standing), **more},
        late=standing.late,
        messages=() if kind == UNCONFIRMED else route.messages(kind, standing.at),
    )


def _recovery(standing: Standing, route: Route, trouble: Told) -> Event:
    """Tell that a trouble is over, to those who were told of it."""
    event = _event(
        RECOVERED,
        standing,
        route,
        subject=trouble.event_id,
        more={"old": trouble.new, "previous_mse": trouble.mse, "of": trouble.kind},
    )
    return event if route.wants(trouble.kind) else event.untold()
