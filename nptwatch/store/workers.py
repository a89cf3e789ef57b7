"""Worker processes, as they say of themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select, update

from nptwatch.store.engine import insert_into, utc_now
from nptwatch.store.labels import Offer, offer_of, stored_offer
from nptwatch.store.records import WorkerRow, WorkerState
from nptwatch.store.tables import Worker

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from nptwatch.store.engine import Database
    from nptwatch.store.records import Clock

_ROWS = select(
    Worker.worker_id,
    Worker.host,
    Worker.pid,
    Worker.device,
    Worker.state,
    Worker.job_id,
    Worker.base_model,
    Worker.offer,
    Worker.jobs_done,
    Worker.memory_bytes,
    Worker.started_at,
    Worker.seen_at,
).order_by(Worker.started_at.desc(), Worker.worker_id)

_AT_WORK = (WorkerState.STARTING, WorkerState.IDLE, WorkerState.LOADING, WorkerState.BUSY)


class Workers:
    """The register of workers. Every method is one transaction.

    Raises (every method):
        DatabaseError: the database cannot be used.
    """

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    def register(
        self, worker_id: str, host: str, pid: int, device: str, offer: Offer | None = None
    ) -> None:
        """Enter a worker that starts; one of the same name starts anew.

        Args:
            offer: what it takes jobs by; None: it takes all.
        """
        now = self._clock()
        values: dict[str, Any] = {  # Any: as SQLAlchemy takes it
            "host": host,
            "pid": pid,
            "device": device,
            "state": WorkerState.STARTING,
            "job_id": None,
            "base_model": None,
            "offer": self._stored(offer or Offer()),
            "jobs_done": 0,
            "memory_bytes": None,
            "started_at": now,
            "seen_at": now,
        }
        with self._database.begin() as connection:
            connection.execute(
                insert_into(connection, Worker)
                .values(worker_id=worker_id, **values)
                .on_conflict_do_update(index_elements=["worker_id"], set_=values)
            )

    def beat(
        self,
        worker_id: str,
        *,
        state: WorkerState | str,
        job_id: int | None = None,
        base_model: str | None = None,
        jobs_done: int | None = None,
        offer: Offer | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        """Say that a worker lives and what it does.

        Args:
            job_id: what it measures; None: nothing.
            base_model: what it has loaded; None: as said before.
            jobs_done: since it started; None: as said before.
            offer: what it takes jobs by now; None: as said before.
            memory_bytes: how much of the machine's memory it has; None: as said before.
        """
        values: dict[str, Any] = {  # Any: as SQLAlchemy takes it
            "state": WorkerState(state),
            "job_id": job_id,
            "seen_at": self._clock(),
        }
        if base_model is not None:
            values["base_model"] = base_model
        if jobs_done is not None:
            values["jobs_done"] = jobs_done
        if offer is not None:
            values["offer"] = self._stored(offer)
        if memory_bytes is not None:
            values["memory_bytes"] = memory_bytes
        with self._database.begin() as connection:
            connection.execute(update(Worker).where(Worker.worker_id == worker_id).values(**values))

    def stopped(self, worker_id: str) -> None:
        """Note that a worker ended in good order."""
        self.beat(worker_id, state=WorkerState.STOPPED)

    def forget(self, *, after_seconds: float) -> int:
        """Delete workers that ended and were last heard of so long ago; give how many."""
        ended = delete(Worker).where(
            Worker.state.in_([WorkerState.STOPPED, WorkerState.LOST]),
            Worker.seen_at < self._clock() - timedelta(seconds=after_seconds),
        )
        with self._database.begin() as connection:
            return len(connection.scalars(ended.returning(Worker.worker_id)).all())

    def alive(self, since_seconds: float) -> list[WorkerRow]:
        """List workers that are at work and were heard of lately."""
        since = self._clock() - timedelta(seconds=since_seconds)
        query = _ROWS.where(Worker.seen_at >= since, Worker.state.in_(_AT_WORK))
        with self._database.read() as connection:
            return [self._row(row) for row in connection.execute(query).mappings()]

    def rows(self) -> list[WorkerRow]:
        """List all workers, the last started first."""
        with self._database.read() as connection:
            return [self._row(row) for row in connection.execute(_ROWS).mappings()]

    def _stored(self, offer: Offer) -> dict[str, Any]:  # Any: free JSON
        return stored_offer(offer, self._database.paths.stored)

    def _row(self, row: RowMapping) -> WorkerRow:
        offer = offer_of(row["offer"], self._database.paths.here)
        return WorkerRow(**{**row, "offer": offer})
