"""What `nptwatch db check` finds in a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from stocking import QUICK, ROOT, alert_good, measured, whole

from nptwatch.store.catalog import Catalog
from nptwatch.store.checking import Finding, findings
from nptwatch.store.queue import Queue

if TYPE_CHECKING:
    from nptwatch.store.engine import Database


@pytest.fixture
def database(database: Database) -> Database:
    """Give a database with two runs and a status that changed."""
    catalog, queue = Catalog(database), Queue(database)
    for run, step, grade in (("a", 100, "FAIR"), ("a", 200, "GOOD"), ("b", 100, "POOR")):
        catalog.admit(whole(run, step), QUICK)
        claim = queue.claim("w", lease_seconds=60)
        assert claim is not None
        assert queue.finish(claim, "w", measured(grade), alert_good) is not None
    catalog.admit(whole("b", 300), QUICK)
    return database


def spoil(database: Database, *statements: str) -> dict[str, Finding]:
    """Do damage, then check."""
    with database.schema_change() as connection:
        for statement in statements:
            connection.execute(text(statement))
    return {finding.check: finding for finding in findings(database)}


def faults(found: dict[str, Finding]) -> dict[str, tuple[str, ...]]:
    """Give what is wrong, by check."""
    return {check: finding.faults for check, finding in found.items() if not finding.ok}


@pytest.mark.both_engines
def test_a_whole_database_is_whole(database: Database) -> None:
    """Nothing is found in what the store itself has written."""
    found = spoil(database)
    assert faults(found) == {}
    assert {"schema", "tables", "books"} <= found.keys()


@pytest.mark.both_engines
def test_another_schema_is_told_alone(database: Database) -> None:
    """The rest could not be read."""
    found = spoil(database, "UPDATE alembic_version SET version_num = '0001'")
    assert list(found) == ["schema"]
    assert "nptwatch db upgrade" in found["schema"].faults[0]


@pytest.mark.both_engines
@pytest.mark.changes_schema
def test_tables_changed_by_hand_are_told(database: Database) -> None:
    """A dropped index and a column too many are named."""
    found = spoil(
        database,
        "DROP INDEX ix_jobs_claim",
        "ALTER TABLE runs ADD COLUMN colour TEXT",
    )
    assert list(faults(found)) == ["tables"]
    told = " ".join(found["tables"].faults)
    assert "ix_jobs_claim" in told
    assert "colour" in told


@pytest.mark.both_engines
def test_a_status_that_does_not_fit_is_told(database: Database) -> None:
    """It must be the last change's and its result's grade."""
    found = spoil(database, "UPDATE runs SET status = 'EXCELLENT' WHERE name = 'a'")
    assert list(faults(found)) == ["books"]
    assert [line.split(":")[0] for line in found["books"].faults] == [f"{ROOT}/a"] * 2


@pytest.mark.both_engines
def test_a_checkpoint_that_nobody_queued_is_told(database: Database) -> None:
    """It would never be measured."""
    found = spoil(database, "DELETE FROM jobs WHERE state = 'queued'")
    assert list(faults(found)) == ["books"]
    (line,) = found["books"].faults
    assert line.endswith("never queued")


def test_rows_that_point_at_nothing_are_told(database: Database) -> None:
    """On a server they cannot come to be."""
    with database.engine.connect() as connection:
        connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
        connection.execute(text("DELETE FROM checkpoints WHERE step = 300"))
        connection.commit()
    found = {finding.check: finding for finding in findings(database)}
    assert "points at nothing in checkpoints" in " ".join(found["file"].faults)


@pytest.mark.both_engines
def test_counts_and_copies_that_do_not_fit_are_told(database: Database) -> None:
    """What runs and jobs repeat of other rows must be what those say."""
    found = spoil(
        database,
        "UPDATE runs SET done_count = 7 WHERE name = 'a'",
        "UPDATE jobs SET mse = 9 WHERE id = 3",
    )
    (told,) = faults(found).values()
    assert [line.partition(":")[0] for line in told] == [
        f"{ROOT}/a",
        f"{ROOT}/b/checkpoints/checkpoint-100/npt_weights.pt",
    ]


@pytest.mark.both_engines
@pytest.mark.changes_schema
def test_a_missing_view_is_told(database: Database) -> None:
    """`runs` and `status` stand on it."""
    found = spoil(database, "DROP VIEW v_latest")
    assert faults(found) == {"tables": ("view v_latest is missing",)}
