"""Events that no result raises, and what people ask and say of all events."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, select, update

from nptwatch.errors import ConfigError
from nptwatch.store.engine import insert_into, utc_now
from nptwatch.store.events import raise_event
from nptwatch.store.news import EventRecord, MessageRecord
from nptwatch.store.postgres import lock_runs
from nptwatch.store.records import OutboxState
from nptwatch.store.runs import find_run
from nptwatch.store.tables import EventRow, OutboxRow, Run
from nptwatch.store.vitals import vitals_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection

    from nptwatch.store.engine import Database
    from nptwatch.store.news import Event, Vitals
    from nptwatch.store.records import Clock

SHORTEST_ID = 4
"""Characters by which an event may be named."""


class Alarms:
    """What people were told, or could be. Every method is one transaction.

    Raises (every method):
        DatabaseError: the database cannot be used.
    """

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    def raise_event(self, event: Event, *, run_id: int | None = None) -> bool:
        """Store an event of a run, or of the daemon itself; False: it was raised before."""
        with self._database.begin() as connection:
            raised = raise_event(connection, event, run_id=run_id, at=self._clock())
            return raised is not None

    def vitals(self, roots: Collection[str]) -> list[Vitals]:
        """Give the signs of life of all runs below these watched roots, by name."""
        with self._database.read() as connection:
            runs = select(Run.id).where(Run.root.in_(roots)).order_by(Run.name)
            return [vitals_of(connection, run_id) for run_id in connection.scalars(runs).all()]

    def raise_where(self, run_id: int, decide: Callable[[Vitals], Sequence[Event]]) -> list[Event]:
        """Raise what follows from a run's signs of life, with the run to oneself.

        Whoever else decides the same at the same time finds what was raised here.

        Args:
            decide: must not block.

        Returns:
            What was raised and was not before.
        """
        at = self._clock()
        with self._database.begin() as connection:
            lock_runs(connection, [run_id])
            return [
                event
                for event in decide(vitals_of(connection, run_id))
                if raise_event(connection, event, run_id=run_id, at=at) is not None
            ]

    def events(
        self,
        *,
        run: str | None = None,
        kinds: Collection[str] = (),
        states: Collection[OutboxState] = (),
        unacked: bool = False,
        limit: int = 50,
    ) -> list[EventRecord]:
        """List events, the last one first.

        Args:
            run: only of this run, by its name or path.
            kinds: only of these kinds; none named: all.
            states: only those with a message in one of these states; none named: all.
            unacked: only those that nobody acknowledged.
            limit: at most so many.

        Raises:
            ConfigError: no such run.
        """
        wanted: list[ColumnElement[bool]] = []
        if kinds:
            wanted.append(EventRow.kind.in_(kinds))
        if states:
            its = OutboxRow.event_row_id == EventRow.id
            wanted.append(exists().where(its, OutboxRow.state.in_(states)))
        if unacked:
            wanted.append(EventRow.acked_at.is_(None))
        with self._database.read() as connection:
            if run is not None:
                wanted.append(EventRow.run_id == find_run(connection, run))
            return _records(connection, wanted, limit)

    def event(self, event_id: str) -> EventRecord:
        """Find one event by its id or the beginning of it.

        Raises:
            ConfigError: there is none, or several.
        """
        with self._database.read() as connection:
            row_id = _find(connection, event_id)
            return _records(connection, [EventRow.id == row_id], 1)[0]

    def ack(self, event_ids: Sequence[str] | None, by: str) -> int:
        """Note that somebody has seen events; give how many were not acknowledged before.

        Args:
            event_ids: ids, or beginnings of them; None: all events.

        Raises:
            ConfigError: one names none, or several; then nothing is noted.
        """
        with self._database.begin() as connection:
            statement = update(EventRow).where(EventRow.acked_at.is_(None))
            if event_ids is not None:
                found = [_find(connection, each) for each in event_ids]
                statement = statement.where(EventRow.id.in_(found))
            acked = statement.values(acked_at=self._clock(), acked_by=by).returning(EventRow.id)
            return len(connection.scalars(acked).all())

    def replay(self, event_id: str, channels: Collection[str] = ()) -> list[str]:
        """Have an event sent again, by the same id; what is being sent now is left alone.

        Args:
            channels: only to these, to which it need not have gone before; none named: to those
                to which it went.

        Returns:
            The channels to which it goes again.

        Raises:
            ConfigError: the id names none, or several.
        """
        now = self._clock()
        with self._database.begin() as connection:
            row_id = _find(connection, event_id)
            its = OutboxRow.event_row_id == row_id
            known = set(connection.scalars(select(OutboxRow.channel).where(its)))
            fresh = {
                "state": OutboxState.PENDING,
                "attempts": 0,
                "available_at": now,
                "error": None,
                "delivered_at": None,
            }
            again = connection.scalars(
                update(OutboxRow)
                .where(
                    its,
                    OutboxRow.state != OutboxState.SENDING,
                    OutboxRow.channel.in_(channels or known),
                )
                .values(**fresh)
                .returning(OutboxRow.channel)
            ).all()
            new = sorted(set(channels) - known)
            for channel in new:
                connection.execute(
                    insert_into(connection, OutboxRow).values(
                        event_row_id=row_id, channel=channel, created_at=now, **fresh
                    )
                )
            return sorted([*again, *new])


def _find(connection: Connection, event_id: str) -> int:
    if len(event_id) < SHORTEST_ID:
        raise ConfigError(f"{event_id!r}: name an event by at least {SHORTEST_ID} characters")
    named = EventRow.event_id.startswith(event_id.lower(), autoescape=True)
    found = connection.scalars(select(EventRow.id).where(named).limit(2)).all()
    if len(found) != 1:
        what = "several events" if found else "no event"
        raise ConfigError(f"{event_id!r} names {what}: see `nptwatch alerts list`")
    return found[0]


def _records(
    connection: Connection, wanted: Sequence[ColumnElement[bool]], limit: int
) -> list[EventRecord]:
    query = (
        select(
            EventRow.id,
            EventRow.event_id,
            EventRow.kind,
            Run.name.label("run"),
            EventRow.late,
            EventRow.at,
            EventRow.acked_at,
            EventRow.acked_by,
            EventRow.payload,
        )
        .outerjoin(Run, Run.id == EventRow.run_id)
        .where(*wanted)
        .order_by(EventRow.id.desc())
        .limit(limit)
    )
    rows = [dict(row) for row in connection.execute(query).mappings()]
    messages = _messages(connection, [row["id"] for row in rows])
    return [EventRecord(messages=tuple(messages[row.pop("id")]), **row) for row in rows]


def _messages(connection: Connection, row_ids: Sequence[int]) -> dict[int, list[MessageRecord]]:
    query = (
        select(
            OutboxRow.event_row_id,
            OutboxRow.channel,
            OutboxRow.state,
            OutboxRow.attempts,
            OutboxRow.error,
            OutboxRow.available_at,
            OutboxRow.delivered_at,
        )
        .where(OutboxRow.event_row_id.in_(row_ids))
        .order_by(OutboxRow.id)
    )
    found: dict[int, list[MessageRecord]] = defaultdict(list)
    for row in connection.execute(query).mappings():
        about: dict[str, Any] = dict(row)  # Any: columns
        found[about.pop("event_row_id")].append(MessageRecord(**about))
    return found
