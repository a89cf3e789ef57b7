"""Taking a job from the queue: the one statement, and what the worker then needs to know."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, bindparam, exists, func, literal_column, or_, select, update
from sqlalchemy.orm import aliased

from nptwatch.store.labels import base_pattern
from nptwatch.store.names import best_first
from nptwatch.store.postgres import is_postgres
from nptwatch.store.records import Claim, FileState, JobState, KeptState
from nptwatch.store.tables import Checkpoint, File, Job, KeptCheckpoint, Run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement, RowMapping, Select
    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.base import ReadOnlyColumnCollection
    from sqlalchemy.sql.dml import ReturningUpdate

    from nptwatch.paths import PathMap
    from nptwatch.store.labels import Offer

_QUEUED: ColumnElement[JobState] = literal_column(f"'{JobState.QUEUED.value}'")
"""In the text, not bound: a server's plan for any value has no use for a partial index."""

_OF_JOB = (
    Job.id,
    Job.checkpoint_id,
    Job.run_id,
    Job.profile,
    Job.settings_hash,
    Job.attempts,
)


def claim_by(
    offer: Offer, held: str | None, paths: PathMap
) -> tuple[ReturningUpdate[*tuple[Any, ...]], dict[str, Any]]:  # Any: parameters
    """Give the claim of a worker, and the parameters that it has by what the worker offers.

    Args:
        held: the base that the worker has in memory and prefers; None: it prefers none.
    """
    about = _parameters(offer, paths)
    if held is not None:
        about["held"] = held
    return claim_statement(frozenset(about)), about


def waits_for(
    offer: Offer, paths: PathMap
) -> tuple[Select[bool], dict[str, Any]]:  # Any: parameters
    """Give the question whether a job that fits is queued, due or not, and its parameters."""
    about = _parameters(offer, paths)
    return select(exists().where(*_fitting(about))), about


def _parameters(offer: Offer, paths: PathMap) -> dict[str, Any]:  # Any: parameters
    about: dict[str, Any] = {}  # Any: parameters
    if offer.gpu_mib is not None:
        about["gpu_mib"] = offer.gpu_mib
    if offer.bases:
        about["bases"] = base_pattern(map(paths.stored, offer.bases))
    if offer.blind:
        about["blind"] = offer.blind
    return about


@cache
def claim_statement(by: frozenset[str] = frozenset()) -> ReturningUpdate[*tuple[Any, ...]]:
    """Build the claim: pick and take in one statement, so that no job is handed out twice.

    On Postgres SKIP LOCKED lets workers pick side by side; SQLite has one writer and no such
    clause (SQLAlchemy leaves it out there).

    Args:
        by: which of gpu_mib, bases, blind and held the worker has a word on; what it has none on
            costs nothing.
    """
    front = _in_order(_fitting(by)).with_for_update(skip_locked=True).scalar_subquery()
    chosen = func.coalesce(_of_held_base(by), front) if "held" in by else front
    return (
        update(Job)
        .where(Job.id == chosen, Job.state == JobState.QUEUED)
        .values(
            state=JobState.LEASED,
            reason=None,
            worker_id=bindparam("worker"),
            leased_until=bindparam("until"),
            updated_at=bindparam("now"),
        )
        .returning(*_OF_JOB)
    )


_candidate = aliased(Job, name="candidate")


def _fitting(by: Iterable[str]) -> list[ColumnElement[bool]]:
    """Give what a job must be for the worker to take it; why_not (labels.py) says the same."""
    job = _candidate
    fits: list[ColumnElement[bool]] = [job.state == _QUEUED]
    if "gpu_mib" in by:
        fits.append(or_(job.min_gpu_mib.is_(None), job.min_gpu_mib <= bindparam("gpu_mib")))
    if "bases" in by:
        named = job.base_model.regexp_match(bindparam("bases", type_=Text))
        fits.append(or_(job.base_model.is_(None), named))
    if "blind" in by:
        folders: ColumnElement[str] = bindparam("blind", expanding=True)
        unseen = select(Run.id).where(or_(Run.path.in_(folders), Run.root.in_(folders)))
        fits.append(job.run_id.not_in(unseen))
    return fits


def _in_order(fits: Iterable[ColumnElement[bool]]) -> Select[int]:
    """Pick the first job in the order that ix_jobs_claim, read backwards, has them in."""
    return (
        select(_candidate.id)
        .where(*fits, _candidate.available_at <= bindparam("now"))
        .order_by(
            _candidate.urgency.desc(),
            _candidate.newest.desc(),
            _candidate.mtime_ns.desc(),
            _candidate.order_step.desc(),
            _candidate.id.desc(),
        )
        .limit(1)
    )


def _of_held_base(by: Iterable[str]) -> ColumnElement[int | None]:
    """Pick the first job of the held base among the equals of what is first of all.

    Equal are jobs as urgent and as new in their run; ix_jobs_claim_base has those of one base in
    order. What is first of all is not locked: another worker may be taking it.
    """
    fits = _fitting(by)
    front = _in_order(fits).with_only_columns(_candidate.urgency, _candidate.newest).cte("front")
    equals = (
        _candidate.base_model == bindparam("held"),
        _candidate.urgency == select(front.c.urgency).scalar_subquery(),
        _candidate.newest == select(front.c.newest).scalar_subquery(),
    )
    return _in_order([*fits, *equals]).with_for_update(skip_locked=True).scalar_subquery()


def take(
    connection: Connection,
    statement: ReturningUpdate[*tuple[Any, ...]],  # Any: columns
    about: Mapping[str, Any],  # Any: parameters
) -> Claim | None:
    """Take the first job that fits; None: there is none.

    A server takes and tells in one statement, which saves a way there and back; SQLite knows no
    UPDATE inside a SELECT.

    Args:
        statement: as `claim_by` gives it.
        about: its parameters, and `now`, `worker` and `until`.
    """
    if is_postgres(connection):
        rows = connection.execute(_taken_and_told(statement), about).mappings().all()
    elif (job_id := connection.scalar(statement, about)) is not None:
        rows = connection.execute(_told_of_one(), {"claimed": job_id}).mappings().all()
    else:
        rows = []
    return _claim_of(rows) if rows else None


@cache
def _taken_and_told(
    statement: ReturningUpdate[*tuple[Any, ...]],  # Any: columns
) -> Select[*tuple[Any, ...]]:  # Any: columns
    return _told_of(statement.cte("taken").c)


@cache
def _told_of_one() -> Select[*tuple[Any, ...]]:  # Any: columns
    return _told_of(Job).where(Job.id == bindparam("claimed"))


def _told_of(
    job: type[Job] | ReadOnlyColumnCollection[str, Any],
) -> Select[*tuple[Any, ...]]:  # Any: columns
    """Ask what a worker needs to know of a job; a row for each of its paths."""
    return (
        select(
            job.id.label("job_id"),
            job.checkpoint_id,
            job.run_id,
            Run.path.label("run_path"),
            Run.name.label("run_name"),
            Run.root.label("run_root"),
            Checkpoint.fingerprint,
            Checkpoint.step,
            Checkpoint.mtime_ns,
            Checkpoint.base_model,
            job.profile,
            job.settings_hash,
            job.attempts,
            File.path,
            KeptCheckpoint.path.label("kept_path"),
            KeptCheckpoint.host.label("kept_by"),
        )
        .join(Checkpoint, Checkpoint.id == job.checkpoint_id)
        .join(Run, Run.id == job.run_id)
        .outerjoin(File, (File.checkpoint_id == Checkpoint.id) & (File.state == FileState.WHOLE))
        .outerjoin(
            KeptCheckpoint,
            (KeptCheckpoint.checkpoint_id == Checkpoint.id)
            & (KeptCheckpoint.state == KeptState.KEPT),
        )
    )


def _claim_of(rows: Sequence[RowMapping]) -> Claim:
    """Put together what a worker needs, existing paths included, what is kept last."""
    about = {key: value for key, value in rows[0].items() if key not in {"path", "kept_path"}}
    paths = best_first(row["path"] for row in rows if row["path"] is not None)
    kept = rows[0]["kept_path"]
    return Claim(**about, paths=tuple(paths) if kept is None else (*paths, kept))
