"""One page of a run's checkpoints, found by its key: the rest of the run is not read."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import collate, literal, select, tuple_

from nptwatch.store.postgres import is_postgres
from nptwatch.store.tables import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, SQLColumnExpression
    from sqlalchemy.engine import Connection

    from nptwatch.store.keys import HistoryKey
    from nptwatch.store.records import HistoryRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which part of a run's history is asked for.

    Attributes:
        limit: at most so many: the last ones, or, where only `after` is given, the first ones.
        since_step: leave out earlier steps, and those that are not known.
        since_at: leave out what was measured before, or, if it was not, first seen before.
        after: only what comes after this place.
        before: only what comes before this place.
    """

    limit: int | None = None
    since_step: int | None = None
    since_at: datetime | None = None
    after: HistoryKey | None = None
    before: HistoryKey | None = None

    @property
    def forward(self) -> bool:
        """Whether a limit cuts off the end and not the beginning."""
        return self.after is not None and self.before is None

    def cut(self, rows: list[HistoryRow]) -> list[HistoryRow]:
        """Leave out of sorted rows what is not on the page."""
        kept = [row for row in rows if self._has(row)]
        if self.limit is None:
            return kept
        return kept[: self.limit] if self.forward else kept[max(0, len(kept) - self.limit) :]

    def _has(self, row: HistoryRow) -> bool:
        if self.since_step is not None and (row.step is None or row.step < self.since_step):
            return False
        if self.since_at is not None and (row.measured_at or row.first_seen_at) < self.since_at:
            return False
        place = row.key.place
        return (self.after is None or place > self.after.place) and (
            self.before is None or place < self.before.place
        )


def checkpoint_ids(connection: Connection, run_id: int, page: Page) -> list[int] | None:
    """Find the checkpoints of a page by the index on run and step.

    Returns:
        The checkpoints that a page of so many rows can have; None: all of the run may be on it.
    """
    if page.limit is None or page.since_at is not None:
        return None  # when something was measured is known of its result only
    found: list[int] = []
    for unknown in (False, True) if page.forward else (True, False):
        columns = _columns(connection, unknown=unknown)
        only = _bounds(page, columns, unknown=unknown)
        order = [each if page.forward else each.desc() for each in columns]
        query = select(Checkpoint.id).where(Checkpoint.run_id == run_id, *only).order_by(*order)
        found += connection.scalars(query.limit(page.limit - len(found))).all()
    return found


def _columns(
    connection: Connection, *, unknown: bool
) -> list[SQLColumnExpression[Any]]:  # Any: types
    """Give what those with a step, or those without, are sorted by; paths as Python sorts them."""
    path = collate(Checkpoint.path, "C") if is_postgres(connection) else Checkpoint.path
    columns: list[SQLColumnExpression[Any]] = [Checkpoint.first_seen_at, path]
    return columns if unknown else [Checkpoint.step, *columns]


def _bounds(
    page: Page,
    columns: Sequence[SQLColumnExpression[Any]],  # Any: types
    *,
    unknown: bool,
) -> Iterator[ColumnElement[bool]]:
    """Say which steps, or none, and what lies between the keys; those without a step come last."""
    yield Checkpoint.step.is_(None) if unknown else Checkpoint.step.is_not(None)
    if page.since_step is not None:
        yield Checkpoint.step >= page.since_step  # never true of an unknown one
    for key, compare in ((page.after, operator.gt), (page.before, operator.lt)):
        if key is None:
            continue
        if (key.step is None) is not unknown:
            # all of these come after the key, or all before it
            yield literal(unknown is (compare is operator.gt))
            continue
        types = (Checkpoint.step.type, Checkpoint.first_seen_at.type, Checkpoint.path.type)
        place = [literal(*each) for each in zip(key.place[1:], types, strict=True)]
        yield compare(tuple_(*columns), tuple_(*place[1 if unknown else 0 :]))
        if not unknown:  # says nothing new, but the index understands it
            edge = key.step or 0
            yield Checkpoint.step >= edge if compare is operator.gt else Checkpoint.step <= edge
