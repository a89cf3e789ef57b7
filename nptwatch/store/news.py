"""What the alert rules are told of a run, and what they answer: frozen records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from datetime import datetime

    from nptwatch.store.records import Demand, OutboxState

RECOVERED = "recovered"
"""The kind whose subject is the id of the event that is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """No message where one of these kinds went the same way, of the same run, so shortly before."""

    seconds: float
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An event's way to one channel.

    Attributes:
        not_before: when it may be sent; None: at once.
        gap: suppresses it; None: nothing does.
    """

    channel: str
    not_before: datetime | None = None
    gap: Gap | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that people may be told.

    Attributes:
        subject: what makes it this one of its kind and run, for ever: it is raised once.
        late: of an older step than the run's status stands on.
        messages: to whom it goes; nobody: it is only listed.
    """

    kind: str
    subject: str
    payload: Mapping[str, Any]  # Any: free JSON
    late: bool = False
    messages: tuple[Message, ...] = ()

    def untold(self) -> Event:
        """Give the same, sent to nobody."""
        return replace(self, messages=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the rules make of a result: events, and a measurement that they want to hear first."""

    events: tuple[Event, ...] = ()
    demand: Demand | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The last event of a kind, among the late ones or among the others, that a run has.

    Attributes:
        new, mse: of its payload.
        confirmed: of its payload: a full diagnostic agreed.
        over: a recovery from it was told.
    """

    event_id: str
    kind: str
    subject: str
    late: bool
    new: str | None
    mse: float | None
    confirmed: bool
    over: bool
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A measured checkpoint."""

    path: str
    fingerprint: str
    step: int | None
    grade: str
    mse: float | None
    cosine: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the rules are told after each result that says something of its run.

    Attributes:
        point: what was measured, and `profile` by what.
        overall_status: a full diagnostic's own word.
        written_at: when the checkpoint was written.
        known_at: when the run was first seen.
        old: the run's status before, with its numbers; `status`: the one now.
        late: an older step than the status stands on; it left the status alone.
        caught_up: no other checkpoint of the run waits for its quick diagnostic.
        recent: grades of the run's newest measured checkpoints, the newest first.
        best: the run's checkpoint with the lowest MSE, and how many measured ones are newer.
        told: the run's last events, one for each kind and lateness.
    """

    run_id: int
    run_name: str
    run_path: str
    point: Point
    profile: str
    overall_status: str | None
    findings: tuple[Mapping[str, str], ...]
    written_at: datetime
    known_at: datetime
    old: str | None
    previous_mse: float | None
    previous_cosine: float | None
    status: str
    late: bool
    caught_up: bool
    recent: tuple[str, ...]
    best: Point | None
    newer_than_best: int
    told: tuple[Told, ...]
    at: datetime


AlertRules: TypeAlias = Callable[[Standing], Verdict]
"""Decides what a result raises; called inside `finish`'s transaction, so it must not block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A measurement that came to an end.

    Attributes:
        ok: it has a result that says something of the run.
        reason: why not.
    """

    job_id: int
    ok: bool
    reason: str | None
    path: str
    step: int | None
    written_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What shows whether a run is alive and can be measured.

    Attributes:
        known_at: when the run was first seen.
        last: fingerprint, path and step of the checkpoint that came last, and when it was seen.
        written: when its newest checkpoints were written, the newest first.
        final_written_at: when a whole file in a folder called `final` was written.
        ended: the last measurements, the newest first.
    """

    run_id: int
    run_name: str
    run_path: str
    known_at: datetime
    last: Arrival | None
    written: tuple[datetime, ...]
    final_written_at: datetime | None
    ended: tuple[Ended, ...]
    told: tuple[Told, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A checkpoint and when it was first seen."""

    fingerprint: str
    path: str
    step: int | None
    seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRecord:
    """A stored message."""

    channel: str
    state: OutboxState
    attempts: int
    error: str | None
    available_at: datetime
    delivered_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """A stored event with its messages."""

    event_id: str
    kind: str
    run: str | None
    late: bool
    at: datetime
    acked_at: datetime | None
    acked_by: str | None
    payload: Mapping[str, Any] = field(repr=False)  # Any: free JSON
    messages: tuple[MessageRecord, ...]
