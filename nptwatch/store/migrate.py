"""The schema's version: bring it up to date, or say that it is not. Alembic loads when used."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from nptwatch.errors import ConfigError, DatabaseError, SchemaError
from nptwatch.store.faults import UPGRADE

if TYPE_CHECKING:
    from alembic.config import Config

    from nptwatch.store.engine import Database

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")
"""All revisions, oldest first; kept here so that `check` need not load Alembic."""

COPYING = "copy-of-"
"""So begins the revision of a database into which another is being copied (store/copying.py)."""


def head() -> str:
    """Give the revision that this version of nptwatch works with."""
    return REVISIONS[-1]


def current(database: Database) -> str | None:
    """Give the database's revision; None where it has none yet.

    Raises:
        DatabaseError: it cannot be read.
    """
    from sqlalchemy import inspect, text

    if database.path is not None and not database.path.exists():
        return None
    with database.read() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return found


def check(database: Database) -> None:
    """Hold that the schema is the one this version works with.

    Raises:
        SchemaError: it is absent, behind or ahead; says what to do.
        DatabaseError: the database cannot be read.
    """
    found = current(database)
    if found == head():
        return
    where = f"database {database.safe_url}"
    if found is None:
        msg = f"{where} has no tables yet: {UPGRADE}"
    elif found.startswith(COPYING):
        msg = (
            f"{where} is an unfinished copy of another one: give the same `nptwatch db copy` again,"
            " and it goes on"
        )
    elif found in REVISIONS:
        msg = f"{where} is at schema {found}, this version needs {head()}: {UPGRADE}"
    else:
        msg = (
            f"{where} is at schema {found}, made by a newer nptwatch than this one (which needs"
            f" {head()}): install that version, or let it run `nptwatch db downgrade {head()}`"
        )
    raise SchemaError(msg)


def upgrade(database: Database) -> None:
    """Create the tables or bring them up to date, in one transaction; safe to run at the same time.

    A SQLite file with tables is copied beside itself first.

    Raises:
        SchemaError: the database was made by a newer version.
        DatabaseError: it cannot be written.
    """
    from alembic import command

    database.create()
    found = current(database)
    if found == head():
        return
    if found is not None and found not in REVISIONS:
        check(database)
    if found is not None and database.path is not None:
        _copy_beside(database.path, head())
    config = alembic_config()
    with database.schema_change() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def downgrade(database: Database, revision: str) -> Path | None:
    """Bring the tables back to an older version's schema, in one transaction.

    What only the newer schema has is lost; a SQLite file is copied beside itself first.

    Returns:
        The copy; None on a server.

    Raises:
        ConfigError: no such revision, or it is not older.
        SchemaError: there are no tables, or a newer version made them.
        DatabaseError: the database cannot be written.
    """
    from alembic import command

    found = current(database)
    if found not in REVISIONS:
        check(database)
    assert found is not None, "check refuses a database without tables"  # noqa: S101
    older = REVISIONS[: REVISIONS.index(found)]
    if revision not in older:
        known = ", ".join(older) or "none"
        raise ConfigError(
            f"database {database.safe_url} is at schema {found} and cannot be brought back to"
            f" {revision!r}; older ones: {known}"
        )
    copy = None if database.path is None else _copy_beside(database.path, revision)
    config = alembic_config()
    with database.schema_change() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
    return copy


def _copy_beside(file: Path, revision: str) -> Path:
    """Keep a SQLite database as it was before its tables are changed; give the copy.

    Raises:
        DatabaseError: there is no room, or the folder cannot be written.
    """
    copy = file.with_name(f"{file.name}.before-{revision}")
    part = copy.with_name(f"{copy.name}.part")
    try:
        with closing(sqlite3.connect(file)) as old, closing(sqlite3.connect(part)) as new:
            old.backup(new)
        part.replace(copy)
    except (OSError, sqlite3.Error) as exc:
        part.unlink(missing_ok=True)
        msg = f"database {file} is left as it is, as no copy can be made beside it: {exc}"
        raise DatabaseError(msg) from exc
    return copy


def alembic_config() -> Config:
    """Give Alembic's configuration, without a file: it only has to find the scripts."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("path_separator", "os")
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    return config


def _scripts() -> Path:
    """Find the migrations: inside an installed wheel, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    msg = f"the migrations are neither in {package} nor beside it: install nptwatch again"
    raise DatabaseError(msg)
