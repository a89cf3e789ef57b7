"""The schema's versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, inspect, text
from stocking import FULL, QUICK, claimed, measured, no_alerts, path_of, whole

from nptwatch.errors import ConfigError, SchemaError
from nptwatch.store import migrate
from nptwatch.store.catalog import Catalog
from nptwatch.store.checking import findings
from nptwatch.store.engine import Database
from nptwatch.store.history import History
from nptwatch.store.queue import Queue
from nptwatch.store.tables import VIEWS, Base

if TYPE_CHECKING:
    from collections.abc import Mapping


def test_list_of_revisions_is_alembics() -> None:
    """`check` relies on a constant; it must be what the migrations say."""
    scripts = ScriptDirectory.from_config(migrate.alembic_config())
    found = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(found)) == migrate.REVISIONS
    assert scripts.get_current_head() == migrate.head()


@pytest.mark.both_engines
def test_migrations_make_the_tables_of_the_code(database: Database) -> None:
    """Autogenerate finds nothing left to do."""
    config = migrate.alembic_config()
    with database.schema_change() as connection:
        config.attributes["connection"] = connection
        command.check(config)


def test_migrations_make_the_checks_of_the_code(database: Database) -> None:
    """CHECK constraints, which autogenerate does not compare, are equal too, name by name."""
    found, wanted = {}, {}
    with database.read() as connection:
        seen = inspect(connection)
        for table in Base.metadata.sorted_tables:
            for check in seen.get_check_constraints(table.name):
                found[check["name"]] = " ".join(check["sqltext"].split())
    reference = Database(f"sqlite:///{database.path}.reference")
    reference.create()
    with reference.begin() as connection:
        Base.metadata.create_all(connection)
        seen = inspect(connection)
        for table in Base.metadata.sorted_tables:
            for check in seen.get_check_constraints(table.name):
                wanted[check["name"]] = " ".join(check["sqltext"].split())
    reference.close()
    assert found == wanted
    assert len(found) > 10


@pytest.mark.both_engines
def test_every_constraint_has_a_name(database: Database) -> None:
    """Batch migrations on SQLite cannot change a nameless one."""
    migrated = MetaData()
    with database.read() as connection:
        migrated.reflect(connection)
    assert len(migrated.tables) == len(Base.metadata.tables) + 1
    for table in migrated.tables.values():
        for constraint in table.constraints:
            assert constraint.name, f"{table.name}: {constraint!r}"


def test_upgrade_is_repeatable(tmp_path: Path) -> None:
    """From nothing to the head; a second time there is nothing to do."""
    database = Database(f"sqlite:///{tmp_path}/new.db")
    assert migrate.current(database) is None
    migrate.upgrade(database)
    assert migrate.current(database) == migrate.head()
    migrate.upgrade(database)
    migrate.check(database)
    database.close()


def test_absent_schema_says_what_to_do(tmp_path: Path) -> None:
    """No file and an empty file are both told, and no file is made by looking."""
    file = tmp_path / "new.db"
    database = Database(f"sqlite:///{file}")
    with pytest.raises(SchemaError, match="nptwatch db upgrade"):
        migrate.check(database)
    assert not file.exists()
    file.touch()
    with pytest.raises(SchemaError, match="nptwatch db upgrade"):
        migrate.check(database)
    database.close()


def test_schema_of_a_newer_version_is_left_alone(database: Database) -> None:
    """Neither used nor changed."""
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaError, match=r"9999.*newer"):
        migrate.check(database)
    with pytest.raises(SchemaError, match=r"9999.*newer"):
        migrate.upgrade(database)
    assert migrate.current(database) == "9999"


def test_schema_behind_says_what_to_do(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of the last version asks for the upgrade."""
    monkeypatch.setattr(migrate, "REVISIONS", (*migrate.REVISIONS, "0999"))
    behind = rf"{migrate.REVISIONS[-2]}.*needs 0999.*nptwatch db upgrade"
    with pytest.raises(SchemaError, match=behind):
        migrate.check(database)


def test_failed_migration_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tables or none: a migration is one transaction, on SQLite too."""
    scripts = tmp_path / "migrations"
    real = Path(migrate._scripts())
    (scripts / "versions").mkdir(parents=True)
    (scripts / "env.py").write_text((real / "env.py").read_text())
    (first,) = (real / "versions").glob("0001_*.py")
    broken = first.read_text().replace(
        "    _status_pointer()\n", "    raise SystemError('cut')\n", 1
    )
    (scripts / "versions" / first.name).write_text(broken)
    monkeypatch.setattr(migrate, "_scripts", lambda: scripts)
    database = Database(f"sqlite:///{tmp_path}/new.db")
    with pytest.raises(SystemError, match="cut"):
        migrate.upgrade(database)
    with database.read() as connection:
        assert inspect(connection).get_table_names() == []
    database.close()


def test_an_older_database_is_copied_and_upgraded(tmp_path: Path) -> None:
    """What was stored stays, new columns have their defaults; the copy is as it was."""
    database = Database(f"sqlite:///{tmp_path}/nptwatch.db")
    database.create()
    config = migrate.alembic_config()
    with database.schema_change() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in (
            "INSERT INTO runs (path, name, root, created_at) VALUES ('/r', 'r', '/', '2026-01-01')",
            "INSERT INTO checkpoints (run_id, fingerprint, path, mtime_ns, size_bytes,"
            " first_seen_at) VALUES (1, 'f', '/r/npt_weights.pt', 1, 1, '2026-01-01')",
            "INSERT INTO jobs (run_id, checkpoint_id, profile, settings_hash, state, newest,"
            " mtime_ns, order_step, available_at, attempts, attempts_by_cause, created_at,"
            " updated_at) VALUES (1, 1, 'quick', 's', 'queued', 1, 1, -1, '2026-01-01', 0, '{}',"
            " '2026-01-01', '2026-01-01')",
        ):
            connection.execute(text(statement))
    migrate.upgrade(database)
    migrate.check(database)
    with database.read() as connection:
        job = connection.execute(text("SELECT state, urgency, asked_because FROM jobs")).one()
    assert tuple(job) == ("queued", 1, "new checkpoint")
    database.close()
    before = Database(f"sqlite:///{tmp_path}/nptwatch.db.before-{migrate.head()}")
    assert migrate.current(before) == "0001"
    with before.read() as connection:
        assert connection.scalar(text("SELECT count(*) FROM jobs")) == 1
    before.close()


@pytest.mark.both_engines
@pytest.mark.changes_schema
def test_an_older_history_is_counted_when_it_is_upgraded(database: Database) -> None:
    """What 0004 writes beside the rows is what the store itself would have written."""
    catalog, queue = Catalog(database), Queue(database)
    for step, grade, mse in ((1, "GOOD", 0.07), (2, "INVALID", 0.01), (3, "FAIR", 0.3)):
        catalog.admit(whole(step=step), QUICK)
        assert queue.finish(claimed(queue), "w", measured(grade, mse), no_alerts)
    queue.ask(path_of("a", "checkpoint-1"), FULL, because="me")
    assert queue.finish(claimed(queue), "w", measured("GOOD", 0.07), no_alerts)
    catalog.admit(whole(step=4), QUICK)
    before = History(database).runs(), History(database).best("a"), queue.depth()
    migrate.downgrade(database, "0003")
    migrate.upgrade(database)
    assert (History(database).runs(), History(database).best("a"), queue.depth()) == before
    assert [finding.faults for finding in findings(database) if not finding.ok] == []
    (run,) = History(database).runs()
    assert (run.checkpoints, run.done, run.best_mse) == (4, 3, 0.07)


@pytest.mark.both_engines
@pytest.mark.changes_schema
def test_down_and_up_again_is_where_it_began(database: Database) -> None:
    """Every step goes back and forth; what both schemas have is kept."""
    Catalog(database).admit(whole(), QUICK)
    before = schema_of(database)
    for revision in reversed(migrate.REVISIONS[:-1]):
        migrate.downgrade(database, revision)
        assert migrate.current(database) == revision
        with pytest.raises(SchemaError, match="nptwatch db upgrade"):
            migrate.check(database)
        with database.read() as connection:
            assert bool(inspect(connection).get_view_names()) == (revision >= "0004")
    migrate.upgrade(database)
    assert schema_of(database) == before
    with database.read() as connection:
        assert set(inspect(connection).get_view_names()) == set(VIEWS)
    assert [job.run for job in Queue(database).jobs()] == ["a"]


@pytest.mark.parametrize("revision", ["this", "head", "base", "0000", "9999", ""])
def test_only_older_revisions_are_gone_back_to(database: Database, revision: str) -> None:
    """Anything else is refused with the list of those that are, and changes nothing."""
    if revision == "this":
        revision = migrate.head()
    with pytest.raises(ConfigError, match="older ones: 0001"):
        migrate.downgrade(database, revision)
    migrate.check(database)


def test_a_downgrade_keeps_a_copy(database: Database) -> None:
    """What only the newer schema holds can be had back from the file beside it."""
    copy = migrate.downgrade(database, "0001")
    assert copy == Path(f"{database.path}.before-0001")
    kept = Database(f"sqlite:///{copy}")
    migrate.check(kept)
    kept.close()


def index_text(index: Mapping[str, Any]) -> str:  # Any: as SQLAlchemy reflects it
    """Write an index with the condition of a partial one."""
    options = index.get("dialect_options", {})
    return repr({**index, "dialect_options": {key: str(options[key]) for key in sorted(options)}})


def schema_of(database: Database) -> dict[str, object]:
    """Give all that can be read of the tables; their columns in order of name."""
    with database.read() as connection:
        seen = inspect(connection)
        return {
            table: (
                sorted(repr(sorted(each.items(), key=str)) for each in seen.get_columns(table)),
                sorted(map(repr, seen.get_check_constraints(table))),
                sorted(map(repr, seen.get_foreign_keys(table))),
                sorted(index_text(each) for each in seen.get_indexes(table)),
                sorted(map(repr, seen.get_unique_constraints(table))),
                seen.get_pk_constraint(table),
            )
            for table in seen.get_table_names()
        }
