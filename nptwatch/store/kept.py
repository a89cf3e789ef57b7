"""Checkpoints that are kept: wanted with the result, kept by whoever has a file, released by one.

The row is the truth and says whose file it is: one folder `kept/` in the world, its place. Files
follow it: made before it says `kept`, removed after it says `released`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import or_, select, update

from nptwatch.store.engine import insert_into, utc_now
from nptwatch.store.names import best_first
from nptwatch.store.records import FileState, KeptFile, KeptRow, KeptState
from nptwatch.store.runs import find_run
from nptwatch.store.tables import Checkpoint, File, Job, KeptCheckpoint, Result, Run

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.engine import Connection

    from nptwatch.store.engine import Database
    from nptwatch.store.records import Clock

MOST_WANTED = 100
"""So many wishes are looked at in a turn, the newest: files of older ones are long gone."""

_NO_VERDICT = "UNLOADABLE"
"""Says nothing of the weights."""

_NO_FILE = dict.fromkeys(("place", "host", "path", "how", "size_bytes", "signature"))

_NUMBERS = (
    "grade",
    "mse",
    "cosine",
    "kl",
    "top1_agreement",
    "relative_mse",
    "perplexity_ratio",
    "residual",
    "overall_status",
    "avg_score",
    "measured_at",
    "base_revision",
)
"""Columns of a result that are told of a kept checkpoint."""


class Kept:
    """What is kept, and what is to be. Every method is one transaction.

    Raises (every method):
        DatabaseError: the database cannot be used.
    """

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    def rows(self, *, run: str | None = None, place: str | None = None) -> list[KeptRow]:
        """List what is wanted, kept or was released, the newest first.

        Args:
            run: only this one's; as in `History.run`.
            place: only what has a file there.

        Raises:
            ConfigError: no such run.
        """
        with self._database.read() as connection:
            only = [] if place is None else [KeptCheckpoint.place == place]
            if run is not None:
                only.append(Checkpoint.run_id == find_run(connection, run))
            return _rows(connection, *only)

    def wanted(self) -> list[KeptRow]:
        """List what is still to be kept, the newest first; what has no file left too."""
        with self._database.read() as connection:
            last = (
                select(KeptCheckpoint.id)
                .where(KeptCheckpoint.state == KeptState.WANTED)
                .order_by(KeptCheckpoint.id.desc())
                .limit(MOST_WANTED)
            )
            return _rows(connection, KeptCheckpoint.id.in_(last))

    def made(self, kept_id: int, file: KeptFile) -> bool:
        """Note that a wanted checkpoint is kept; False: others were first, or it was released."""
        values = {name: getattr(file, name) for name in _NO_FILE}
        return self._change(kept_id, KeptState.WANTED, state=KeptState.KEPT, error=None, **values)

    def seen(self, kept_id: int, file: KeptFile) -> bool:
        """Note that a kept file was touched or moved with its folder, and is what it was."""
        values = {name: getattr(file, name) for name in _NO_FILE}
        here = KeptCheckpoint.place == file.place
        return self._change(kept_id, KeptState.KEPT, here, **values)

    def failed(self, kept_id: int, error: str) -> bool:
        """Note why a wanted checkpoint is not kept yet; False: known, or not wanted."""
        news = or_(KeptCheckpoint.error.is_(None), KeptCheckpoint.error != error)
        return self._change(kept_id, KeptState.WANTED, news, error=error)

    def spoiled(self, kept_id: int, place: str, error: str) -> bool:
        """Note that a kept file is gone or is not what was kept; it is wanted again."""
        here = KeptCheckpoint.place == place
        return self._change(
            kept_id, KeptState.KEPT, here, state=KeptState.WANTED, error=error, **_NO_FILE
        )

    def release(self, kept_ids: Collection[int], why: str) -> list[int]:
        """Keep something no longer; its files go at the next turn of whoever has them.

        Returns:
            Which were wanted or kept, and are not any more.
        """
        statement = (
            update(KeptCheckpoint)
            .where(
                KeptCheckpoint.id.in_(list(kept_ids)),
                KeptCheckpoint.state != KeptState.RELEASED,
            )
            .values(state=KeptState.RELEASED, error=why, updated_at=self._clock())
            .returning(KeptCheckpoint.id)
        )
        with self._database.begin() as connection:
            return sorted(connection.scalars(statement).all())

    def cleared(self, kept_id: int) -> bool:
        """Note that the file of something released is removed."""
        return self._change(kept_id, KeptState.RELEASED, **_NO_FILE)

    def _change(
        self,
        kept_id: int,
        before: KeptState,
        *more: ColumnElement[bool],
        **values: Any,  # noqa: ANN401 - column values
    ) -> bool:
        statement = (
            update(KeptCheckpoint)
            .where(KeptCheckpoint.id == kept_id, KeptCheckpoint.state == before, *more)
            .values(updated_at=self._clock(), **values)
            .returning(KeptCheckpoint.id)
        )
        with self._database.begin() as connection:
            return len(connection.scalars(statement).all()) == 1


def want(connection: Connection, checkpoint_id: int, because: str, now: datetime) -> bool:
    """Have a checkpoint kept; False: it is, or was wanted before and released."""
    inserted: int | None = connection.scalar(
        insert_into(connection, KeptCheckpoint)
        .values(
            checkpoint_id=checkpoint_id,
            state=KeptState.WANTED,
            because=because,
            created_at=now,
            updated_at=now,
        )
        .on_conflict_do_nothing()
        .returning(KeptCheckpoint.id)
    )
    return inserted is not None


def _rows(connection: Connection, *only: ColumnElement[bool]) -> list[KeptRow]:
    chosen = (
        select(KeptCheckpoint.checkpoint_id)
        .join(Checkpoint, Checkpoint.id == KeptCheckpoint.checkpoint_id)
        .where(*only)
    )
    numbers = _numbers(connection, chosen)
    sources = _sources(connection, chosen)
    query = (
        select(
            KeptCheckpoint.id.label("kept_id"),
            KeptCheckpoint.checkpoint_id,
            KeptCheckpoint.state,
            KeptCheckpoint.because,
            KeptCheckpoint.error,
            KeptCheckpoint.created_at,
            KeptCheckpoint.updated_at,
            *(getattr(KeptCheckpoint, name).label(f"file_{name}") for name in _NO_FILE),
            Run.name.label("run"),
            Run.path.label("run_path"),
            Checkpoint.step,
            Checkpoint.fingerprint,
            Checkpoint.base_model,
            Checkpoint.size_bytes,
            Checkpoint.path.label("original"),
        )
        .join(Checkpoint, Checkpoint.id == KeptCheckpoint.checkpoint_id)
        .join(Run, Run.id == Checkpoint.run_id)
        .where(*only)
        .order_by(KeptCheckpoint.id.desc())
    )
    return [_row(dict(row), numbers, sources) for row in connection.execute(query).mappings().all()]


def _row(
    row: dict[str, Any],  # Any: columns
    numbers: Mapping[int, Mapping[str, Any]],
    sources: Mapping[int, list[str]],
) -> KeptRow:
    checkpoint_id = row.pop("checkpoint_id")
    file = {name: row.pop(f"file_{name}") for name in _NO_FILE}
    measured = numbers.get(checkpoint_id, dict.fromkeys(_NUMBERS))
    return KeptRow(
        **{**row, **measured, "base_model": measured.get("base_model") or row["base_model"]},
        file=None if file["path"] is None else KeptFile(**file),
        sources=tuple(best_first(sources.get(checkpoint_id, ()))),
    )


def _numbers(
    connection: Connection, chosen: Select[int]
) -> dict[int, dict[str, Any]]:  # Any: columns
    """Give each checkpoint's newest grade, and of each number the newest that was measured."""
    query = (
        select(
            Job.checkpoint_id,
            *(getattr(Result, name) for name in _NUMBERS),
            Result.details["model_name"].as_string().label("base_model"),
        )
        .join(Result, Result.id == Job.result_id)
        .where(Job.checkpoint_id.in_(chosen), Result.grade != _NO_VERDICT)
        .order_by(Job.id)
    )
    numbers: dict[int, dict[str, Any]] = {}
    for row in connection.execute(query).mappings():
        known = numbers.setdefault(row["checkpoint_id"], {})
        known |= {key: value for key, value in row.items() if value is not None}
    for known in numbers.values():
        del known["checkpoint_id"]
    return {key: dict.fromkeys(_NUMBERS) | known for key, known in numbers.items()}


def _sources(connection: Connection, chosen: Select[int]) -> dict[int, list[str]]:
    query = select(File.checkpoint_id, File.path).where(
        File.checkpoint_id.in_(chosen), File.state == FileState.WHOLE
    )
    paths: dict[int, list[str]] = {}
    for checkpoint_id, path in connection.execute(query):
        assert checkpoint_id is not None, "it was asked for"  # noqa: S101
        paths.setdefault(checkpoint_id, []).append(path)
    return paths
