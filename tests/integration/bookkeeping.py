"""What must be true of a database after any load, however many processes died under it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import func, select, text

from nptwatch.alert_settings import AlertSettings
from nptwatch.alerts.levels import REACHED, REGRESSED
from nptwatch.diagnostics.grading import Grade, at_least
from nptwatch.store.history import History
from nptwatch.store.queue import Queue
from nptwatch.store.records import JobState
from nptwatch.store.tables import Checkpoint, EventRow, Job, OutboxRow, Result, StatusChangeRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Row

    from nptwatch.store.engine import Database

_TABLE = """
CREATE TABLE audit (job_id INTEGER, worker TEXT, old TEXT, new TEXT, counted INTEGER, reason TEXT)
"""
_SQLITE = (
    _TABLE,
    """
    CREATE TRIGGER audit_jobs AFTER UPDATE OF state ON jobs WHEN old.state <> new.state BEGIN
        INSERT INTO audit VALUES
            (new.id, old.worker_id, old.state, new.state, new.attempts - old.attempts, new.reason);
    END
    """,
    """
    CREATE TRIGGER audit_results AFTER UPDATE ON results BEGIN
        INSERT INTO audit VALUES (NULL, NULL, 'result', 'rewritten', 0, NULL);
    END
    """,
)
_POSTGRES = (
    _TABLE,
    """
    CREATE FUNCTION audit_job() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO audit VALUES
            (new.id, old.worker_id, old.state, new.state, new.attempts - old.attempts, new.reason);
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION audit_result() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO audit VALUES (NULL, NULL, 'result', 'rewritten', 0, NULL);
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER audit_jobs AFTER UPDATE OF state ON jobs FOR EACH ROW
        WHEN (old.state <> new.state) EXECUTE FUNCTION audit_job()
    """,
    """
    CREATE TRIGGER audit_results AFTER UPDATE ON results FOR EACH ROW
        EXECUTE FUNCTION audit_result()
    """,
)


class Step(NamedTuple):
    """A job that went from one state to another, as the database itself noted it."""

    job_id: int | None
    worker: str | None  # who had it
    old: str
    new: str
    counted: int
    reason: str | None


def audit(database: Database) -> None:
    """Have the database note every change of a job's state, whoever makes it."""
    with database.begin() as connection:
        for statement in _POSTGRES if database.path is None else _SQLITE:
            connection.execute(text(statement))


def audited(database: Database) -> list[Step]:
    """Give what was noted."""
    with database.read() as connection:
        return [Step(*row) for row in connection.execute(text("SELECT * FROM audit")).all()]


def check_results(database: Database, jobs: int) -> None:
    """Hold that each job is done, by a result of its own, and the file is sound."""
    assert Queue(database).depth() == dict.fromkeys(JobState, 0) | {JobState.DONE: jobs}
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(Result)) == jobs
        linked = connection.scalars(select(Job.result_id)).all()
        assert len(set(linked)) == jobs
        if database.path is not None:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []


def check_story(database: Database) -> None:
    """Hold that each run's changes follow from one another and end in its status."""
    history = History(database)
    for run in history.runs():
        story = list(reversed(history.changes(run.run, limit=10_000)))
        assert story[-1].new == run.status, "the last change is the status"
        assert [change.old for change in story] == [None, *[change.new for change in story[:-1]]]
        assert run.step == max(row.step or 0 for row in history.history(run.run))


def check_messages(
    database: Database, kind_of: Callable[[str | None, str], str | None], channels: int = 1
) -> int:
    """Hold that each change that asks for a message has it, once on each channel; give how many.

    Args:
        kind_of: what rules that know nothing but the change raise from it; None: nothing.
    """
    wanted = {
        (change.run_id, kind, change.fingerprint)
        for change in _changes(database)
        if (kind := kind_of(change.old, change.new)) is not None
    }
    posted = [(event.run_id, event.kind, event.subject) for event in _posted(database)]
    assert Counter(posted) == dict.fromkeys(wanted, channels)
    return len(posted)


def check_told(database: Database, channels: int = 1) -> int:
    """Hold that people were told each new height of a run, once, and nothing that they knew; give how often.

    The rules are those that people have, with the kinds that they have by default.
    """
    posted = _posted(database)
    assert set(Counter(event.event_id for event in posted).values()) <= {channels}
    assert {event.kind for event in posted} <= set(AlertSettings().kinds)
    first: dict[tuple[int, str], str] = {}
    for change in _changes(database):
        for grade in REACHED:
            if at_least(change.new, grade):
                first.setdefault((change.run_id, grade), change.fingerprint)
                break
    told = {(event.run_id, event.payload["new"], event.subject) for event in posted}
    heights = {
        (run_id, grade, subject)
        for (run_id, grade), subject in first.items()
        if grade == Grade.EXCELLENT or (run_id, Grade.EXCELLENT) not in first
    }
    assert heights <= told, "the first time that a run was so good is told"
    believed: dict[int | None, str] = {}
    for event in posted:
        if event.kind not in {*REACHED.values(), REGRESSED} or event.late:
            continue
        known, new = believed.get(event.run_id), event.payload["new"]
        assert at_least(known, new) == (event.kind == REGRESSED), "told what they did not know"
        believed[event.run_id] = new
    return len(posted)


def _changes(database: Database) -> Sequence[Row[*tuple[Any, ...]]]:  # Any: named columns
    with database.read() as connection:
        return connection.execute(
            select(
                StatusChangeRow.run_id,
                Checkpoint.fingerprint,
                StatusChangeRow.old,
                StatusChangeRow.new,
            )
            .join(Job, Job.id == StatusChangeRow.job_id)
            .join(Checkpoint, Checkpoint.id == Job.checkpoint_id)
            .order_by(StatusChangeRow.id)
        ).all()


def _posted(database: Database) -> Sequence[Row[*tuple[Any, ...]]]:  # Any: named columns
    """Give the events with a row for each message."""
    with database.read() as connection:
        return connection.execute(
            select(
                EventRow.event_id,
                EventRow.run_id,
                EventRow.kind,
                EventRow.subject,
                EventRow.payload,
                EventRow.late,
            )
            .join(OutboxRow, OutboxRow.event_row_id == EventRow.id)
            .order_by(EventRow.id)
        ).all()
