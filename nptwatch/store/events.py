"""Events and their messages, written and looked up on the caller's connection."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from sqlalchemy import exists, func, select

from nptwatch.store.engine import insert_into
from nptwatch.store.host_path import paths_of
from nptwatch.store.jsons import json_of
from nptwatch.store.news import RECOVERED, Told
from nptwatch.store.records import OutboxState
from nptwatch.store.tables import EventRow, OutboxRow, Run

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import Connection

    from nptwatch.store.news import Event, Gap, Message

_EVENTS = UUID("6e9a3c1e-5d0f-4c52-9d3b-6b1f7c0a4e21")
"""Namespace of event ids: the same event has the same id on every host and after every restart."""

_PATHS = frozenset({"run_path", "path"})
"""What of a payload is a path."""


def event_id(run_path: str, kind: str, subject: str) -> str:
    """Give the id by which an event is raised once, and receivers drop repeated deliveries."""
    return str(uuid5(_EVENTS, f"{run_path}\n{kind}\n{subject}"))


def raise_event(
    connection: Connection,
    event: Event,
    *,
    run_id: int | None,
    at: datetime,
    change_id: int | None = None,
) -> int | None:
    """Store an event with its messages; give how many. None: it was raised before.

    It names paths as the database does, whichever host raises it: its receivers are anywhere.
    """
    paths = paths_of(connection.dialect)
    run_path = paths.stored(connection.scalar(select(Run.path).where(Run.id == run_id)) or "")
    payload = json_of(event.payload)
    for name in _PATHS & payload.keys():
        payload[name] = payload[name] and paths.stored(payload[name])
    row_id = connection.scalar(
        insert_into(connection, EventRow)
        .values(
            event_id=event_id(run_path, event.kind, event.subject),
            kind=event.kind,
            run_id=run_id,
            change_id=change_id,
            subject=event.subject,
            payload=payload,
            late=event.late,
            at=at,
        )
        .on_conflict_do_nothing()
        .returning(EventRow.id)
    )
    if row_id is None:
        return None
    return sum(_post(connection, row_id, message, run_id, at) for message in event.messages)


def _post(
    connection: Connection, row_id: int, message: Message, run_id: int | None, at: datetime
) -> bool:
    """Put a message into the outbox; one for each channel."""
    suppressed = message.gap is not None and _too_soon(
        connection, message.channel, message.gap, run_id, at
    )
    posted = connection.scalar(
        insert_into(connection, OutboxRow)
        .values(
            event_row_id=row_id,
            channel=message.channel,
            state=OutboxState.SUPPRESSED if suppressed else OutboxState.PENDING,
            error="too soon after another message of its run (min_gap)" if suppressed else None,
            attempts=0,
            available_at=max(message.not_before or at, at),
            created_at=at,
        )
        .on_conflict_do_nothing()
        .returning(OutboxRow.id)
    )
    return posted is not None


def _too_soon(
    connection: Connection, channel: str, gap: Gap, run_id: int | None, at: datetime
) -> bool:
    sent_before = (
        exists()
        .where(OutboxRow.event_row_id == EventRow.id)
        .where(
            EventRow.run_id.is_not_distinct_from(run_id),
            EventRow.kind.in_(gap.kinds),
            OutboxRow.channel == channel,
            OutboxRow.state != OutboxState.SUPPRESSED,
            OutboxRow.created_at > at - timedelta(seconds=gap.seconds),
        )
    )
    return bool(connection.scalar(select(sent_before)))


def told_of(connection: Connection, run_id: int) -> tuple[Told, ...]:
    """Give the run's last event of each kind, late ones and others apart."""
    last = (
        select(func.max(EventRow.id))
        .where(EventRow.run_id == run_id)
        .group_by(EventRow.kind, EventRow.late)
    )
    rows = connection.execute(
        select(
            EventRow.event_id,
            EventRow.kind,
            EventRow.subject,
            EventRow.late,
            EventRow.payload,
            EventRow.at,
        )
        .where(EventRow.id.in_(last))
        .order_by(EventRow.id)
    ).all()
    over = set(
        connection.scalars(
            select(EventRow.subject).where(
                EventRow.run_id == run_id,
                EventRow.kind == RECOVERED,
                EventRow.subject.in_([row.event_id for row in rows]),
            )
        )
    )
    return tuple(
        Told(
            event_id=row.event_id,
            kind=row.kind,
            subject=row.subject,
            late=row.late,
            new=row.payload.get("new"),
            mse=row.payload.get("mse"),
            confirmed=bool(row.payload.get("confirmed")),
            over=row.event_id in over,
            at=row.at,
        )
        for row in rows
    )
