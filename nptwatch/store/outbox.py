"""Messages on their way to people: claimed by one sender at a time, delivered at least once."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, or_, select, true, update
from sqlalchemy.orm import aliased

from nptwatch.store.engine import utc_now
from nptwatch.store.leases import retry_after
from nptwatch.store.records import Delivery, OutboxState
from nptwatch.store.tables import EventRow, OutboxRow

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection

    from nptwatch.store.engine import Database
    from nptwatch.store.records import Clock

STRAY = timedelta(hours=1)
"""A message that nobody took for so long has no channel any more."""


class Outbox:
    """Undelivered messages. Every method is one transaction.

    Raises (every method):
        DatabaseError: the database cannot be used.
    """

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    def claim(
        self,
        *,
        lease_seconds: float,
        skip: Collection[str] = (),
        known: Collection[str] | None = None,
    ) -> Delivery | None:
        """Take the message that is due longest; one whose sender went silent is due again.

        The try is counted here, so that a message that kills its sender is given up one day.

        Args:
            skip: channels whose messages are left for others.
            known: the channels that the sender has. A message for another one may be for a daemon
                with other settings: it is taken when nobody has for an hour. None: all.
        """
        now = self._clock()
        candidate = aliased(OutboxRow, name="candidate")
        chosen = (
            select(candidate.id)
            .where(
                _due(candidate, now),
                candidate.channel.not_in(list(skip)),
                _is_ours(candidate, known, now),
            )
            .order_by(candidate.available_at, candidate.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        statement = (
            update(OutboxRow)
            .where(OutboxRow.id == chosen, _due(OutboxRow, now))
            .values(
                state=OutboxState.SENDING,
                claimed_until=now + timedelta(seconds=lease_seconds),
                attempts=OutboxRow.attempts + 1,
            )
            .returning(
                OutboxRow.id.label("outbox_id"),
                OutboxRow.event_row_id,
                OutboxRow.channel,
                OutboxRow.attempts,
            )
        )
        with self._database.begin() as connection:
            row = connection.execute(statement).mappings().one_or_none()
            return None if row is None else _delivery(connection, dict(row))

    def delivered(self, outbox_id: int) -> bool:
        """Note a delivery; False: it was noted or given up before."""
        statement = (
            update(OutboxRow)
            .where(OutboxRow.id == outbox_id, OutboxRow.state == OutboxState.SENDING)
            .values(
                state=OutboxState.DELIVERED,
                claimed_until=None,
                error=None,
                delivered_at=self._clock(),
            )
            .returning(OutboxRow.id)
        )
        with self._database.begin() as connection:
            return connection.scalar(statement) is not None

    def failed(
        self,
        outbox_id: int,
        error: str,
        *,
        max_attempts: int,
        retry_delay_seconds: float,
        stretch: float = 1.0,
        at_least_seconds: float = 0.0,
    ) -> OutboxState:
        """Put a message back for later (the pause doubles), or give it up at `max_attempts`.

        Args:
            stretch: the pause is made so many times as long, by chance, so that what failed
                together does not come back together.
            at_least_seconds: shortest pause, as the receiver asked for.

        Returns:
            The state it is in now; unchanged if this sender no longer has it.
        """
        now = self._clock()
        this = OutboxRow.id == outbox_id
        with self._database.begin() as connection:
            row = connection.execute(
                select(OutboxRow.state, OutboxRow.attempts).where(this).with_for_update()
            ).one()
            if row.state is not OutboxState.SENDING:
                return OutboxState(row.state)
            over = row.attempts >= max_attempts
            pause = retry_after(row.attempts, retry_delay_seconds) * stretch
            state = OutboxState.GIVEN_UP if over else OutboxState.PENDING
            connection.execute(
                update(OutboxRow)
                .where(this)
                .values(
                    state=state,
                    claimed_until=None,
                    error=error,
                    available_at=now + max(pause, timedelta(seconds=at_least_seconds)),
                )
            )
            return state

    def pending(self) -> int:
        """Count messages that are not delivered yet and not given up."""
        waiting = OutboxRow.state.in_([OutboxState.PENDING, OutboxState.SENDING])
        with self._database.read() as connection:
            return connection.scalar(select(func.count()).where(waiting)) or 0

    def counts(self) -> dict[tuple[str, OutboxState], int]:
        """Count all messages there are, by channel and state."""
        with self._database.read() as connection:
            return message_counts(connection)


def message_counts(connection: Connection) -> dict[tuple[str, OutboxState], int]:
    """Count all messages there are, by channel and state."""
    query = select(OutboxRow.channel, OutboxRow.state, func.count()).group_by(
        OutboxRow.channel, OutboxRow.state
    )
    return {
        (channel, OutboxState(state)): count for channel, state, count in connection.execute(query)
    }


def _delivery(connection: Connection, claimed: dict[str, Any]) -> Delivery:  # Any: columns
    event = select(EventRow.event_id, EventRow.kind, EventRow.payload)
    about = connection.execute(event.where(EventRow.id == claimed.pop("event_row_id"))).mappings()
    return Delivery(**claimed, **about.one())


def _is_ours(
    row: type[OutboxRow], known: Collection[str] | None, now: datetime
) -> ColumnElement[bool]:
    if known is None:
        return true()
    return or_(row.channel.in_(known), row.available_at <= now - STRAY)


def _due(row: type[OutboxRow], now: datetime) -> ColumnElement[bool]:
    return or_(
        and_(row.state == OutboxState.PENDING, row.available_at <= now),
        and_(row.state == OutboxState.SENDING, row.claimed_until <= now),
    )
