"""`nptwatch db copy`: from SQLite to a real Postgres and back, interrupted, resumed, compared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select, text
from stocking import QUICK, alert_good, measured, seen, whole

from nptwatch.errors import ConfigError, DatabaseError, SchemaError
from nptwatch.store import migrate
from nptwatch.store.catalog import Catalog
from nptwatch.store.chore_records import ChoreRecord
from nptwatch.store.chores import Chores
from nptwatch.store.copying import Copy
from nptwatch.store.engine import Database, utc_now
from nptwatch.store.exporting import Exports
from nptwatch.store.history import History
from nptwatch.store.queue import Queue
from nptwatch.store.records import FileState
from nptwatch.store.tables import Base
from nptwatch.store.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postgres import Postgres

BATCH_ROWS = 20
"""Fewer than usual: admitting thousands takes longer than copying them."""

DIES = """
import os, signal, sys
from nptwatch.store.copying import Copy
from nptwatch.store.engine import Database

def progress(step, table, done, total):
    if (step, table) == tuple(sys.argv[3:]):
        os.kill(os.getpid(), signal.SIGKILL)

source, target = map(Database, sys.argv[1:3])
Copy(source=source, target=target, progress=progress, batch_rows=20).run()
"""


def url_of(database: Database) -> str:
    """Give a database's URL, password included."""
    return database.engine.url.render_as_string(hide_password=False)


@pytest.fixture
def filled(database: Database) -> Database:
    """Give a database with something in every table, and more jobs than a batch holds."""
    catalog, queue = Catalog(database), Queue(database)
    for run, step, grade in (("a", 1, "FAIR"), ("a", 2, "GOOD"), ("b", 1, "GOOD")):
        catalog.admit(whole(run, step), QUICK)
        claim = queue.claim("w", lease_seconds=60)
        assert claim is not None
        report = {"grade": grade, "deep": {"list": [1, 0.1, None, True, "ü"]}, "big": 2**53}
        result = measured(grade, 0.1 / 3, details=report)
        queue.finish(claim, "w", result, alert_good, keep=lambda _: "the test says so")
    for step in range(10, 10 + BATCH_ROWS):
        catalog.admit(whole("many", step), QUICK)
    catalog.note(seen("b", "checkpoint-9"), FileState.UNLOADABLE, "no ZIP\0archive")
    Workers(database).register("w", "host", 1, "cpu")
    Workers(database).stopped("w")
    chore = ChoreRecord(
        daemon="host:/state",
        name="keep",
        started_at=utc_now(),
        duration_seconds=0.1,
        failures=0,
        failing_since=None,
        failed_at=None,
        error=None,
    )
    Chores(database).note([chore])
    exports = Exports(database, "host:/state")
    for run in exports.behind("jsonl:1"):
        exports.claim("jsonl:1", run, lease_seconds=60, limit=1)
    return database


@pytest.fixture
def target(engine: str, tmp_path: Path, postgres: Postgres) -> Iterator[Database]:
    """Give an empty database on the other engine."""
    url = postgres.new() if engine == "sqlite" else f"sqlite:///{tmp_path}/copy.db"
    opened = Database(url)
    yield opened
    opened.close()


def contents(database: Database) -> dict[str, list[dict[str, object]]]:
    """Give all rows of all tables, texts as Postgres can have them."""
    with database.read() as connection:
        return {
            table.name: [
                {
                    name: value.replace("\0", "\ufffd") if isinstance(value, str) else value
                    for name, value in row.items()
                }
                for row in connection.execute(
                    select(table).order_by(*table.primary_key.columns)
                ).mappings()
            ]
            for table in Base.metadata.sorted_tables
        }


@pytest.mark.both_engines
def test_a_copy_is_the_same_and_goes_on(filled: Database, target: Database) -> None:
    """Every row of every table; then new rows get new ids and the copy is whole."""
    done = Copy(source=filled, target=target, batch_rows=BATCH_ROWS).run()
    wanted = contents(filled)
    assert contents(target) == wanted
    assert done.rows == {name: len(rows) for name, rows in wanted.items()}
    assert all(count > 0 for count in done.rows.values())
    migrate.check(target)
    Catalog(target).admit(whole("new", 1), QUICK)
    assert History(target).run("a").status == "GOOD"
    assert len(Queue(target).jobs(limit=10_000)) == BATCH_ROWS + 4


@pytest.mark.both_engines
@pytest.mark.parametrize(
    "death", [("copy", "runs"), ("copy", "jobs"), ("copy", "outbox"), ("compare", "jobs")]
)
def test_killed_in_the_middle_it_goes_on(
    filled: Database, target: Database, death: tuple[str, str]
) -> None:
    """What was committed is not copied twice; until it is whole nobody may use the target."""
    killed = subprocess.run(
        [sys.executable, "-c", DIES, url_of(filled), url_of(target), *death], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(SchemaError, match="unfinished copy"):
        migrate.check(target)
    copied = []
    again = Copy(
        source=filled,
        target=target,
        batch_rows=BATCH_ROWS,
        progress=lambda step, table, done, _: copied.append((step, table, done)),
    ).run()
    assert again.before > 0
    assert contents(target) == contents(filled)
    if death[1] == "jobs":
        first = next((done for step, table, done in copied if (step, table) == ("copy", "jobs")), 0)
        assert first != BATCH_ROWS, "the first batch was there already"
    migrate.check(target)


@pytest.mark.both_engines
def test_a_source_that_changed_meanwhile_is_told(filled: Database, target: Database) -> None:
    """The first difference is named and the target stays closed; a restart mends it."""

    def change(step: str, table: str, _done: int, _total: int) -> None:
        if (step, table) == ("copy", "jobs"):
            with filled.begin() as connection:
                connection.execute(text("UPDATE runs SET root = '/other' WHERE name = 'b'"))

    with pytest.raises(DatabaseError, match=r"runs \d: root differ.*--restart"):
        Copy(source=filled, target=target, progress=change).run()
    with pytest.raises(SchemaError, match="unfinished copy"):
        migrate.check(target)
    Copy(source=filled, target=target).run(restart=True)
    assert contents(target) == contents(filled)


@pytest.mark.both_engines
def test_a_row_too_many_is_told(filled: Database, target: Database) -> None:
    """Rows that only the target has are a difference too."""

    def change(step: str, table: str, _done: int, _total: int) -> None:
        if (step, table) == ("compare", "runs"):
            with filled.begin() as connection:
                connection.execute(text("DELETE FROM outbox"))

    with pytest.raises(DatabaseError, match=r"outbox 1: "):
        Copy(source=filled, target=target, progress=change).run()


def test_a_target_with_rows_of_its_own_is_left_alone(filled: Database, tmp_path: Path) -> None:
    """Neither a copy nor a restart touches somebody's history."""
    other = Database(f"sqlite:///{tmp_path}/other.db")
    migrate.upgrade(other)
    Catalog(other).admit(whole("mine"), QUICK)
    before = contents(other)
    for restart in (False, True):
        with pytest.raises(ConfigError, match="a history of its own"):
            Copy(source=filled, target=other).run(restart=restart)
    assert contents(other) == before
    migrate.check(other)
    other.close()


def test_an_unfinished_copy_of_another_source_is_left_alone(
    filled: Database, tmp_path: Path
) -> None:
    """Two histories are never mixed."""
    other = Database(f"sqlite:///{tmp_path}/other.db")
    migrate.upgrade(other)
    with other.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'copy-of-elsewhere'"))
    with pytest.raises(ConfigError, match="of another database"):
        Copy(source=filled, target=other).run()
    with other.read() as connection:
        assert (
            connection.scalar(select(func.count()).select_from(Base.metadata.tables["runs"])) == 0
        )
    Copy(source=filled, target=other).run(restart=True)
    assert contents(other) == contents(filled)
    other.close()


def command(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the real command."""
    return subprocess.run(
        [sys.executable, "-m", "nptwatch", "db", "copy", *arguments],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command(filled: Database, tmp_path: Path, postgres: Postgres) -> None:
    """The password may stay in the environment; JSON tells the rows; itself is no target."""
    home = {"NPTWATCH_STATE_DIR": str(tmp_path / "state")}
    ours = {**home, "NPTWATCH_DATABASE__URL": postgres.new()}
    done = command("--from", url_of(filled), "--json", **ours)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["rows"]["runs"] == 3
    back = command("--to", f"sqlite:///{tmp_path}/back.db", **ours)
    assert back.returncode == 0, back.stderr
    assert "has the same rows as" in back.stdout
    assert "compare jobs: 23 rows" in back.stderr
    assert command("--from", url_of(filled), "--to", url_of(filled), **home).returncode == 2
    assert command(**home).returncode == 2
    missing = command("--from", f"sqlite:///{tmp_path}/none.db", "--to", url_of(filled), **home)
    assert (missing.returncode, "there is no database" in missing.stderr) == (2, True)
    assert not (tmp_path / "none.db").exists()


def test_a_source_in_use_is_not_copied(filled: Database, tmp_path: Path) -> None:
    """A worker that was heard of just now would write behind the copy's back."""
    Workers(filled).register("busy", "host", 2, "cpu")
    home = {"NPTWATCH_STATE_DIR": str(tmp_path / "state")}
    target = f"sqlite:///{tmp_path}/copy.db"
    refused = command("--from", url_of(filled), "--to", target, **home)
    assert (refused.returncode, "busy on host" in refused.stderr) == (2, True)
    assert not Path(f"{tmp_path}/copy.db").exists()
    assert command("--from", url_of(filled), "--to", target, "--force", **home).returncode == 0
