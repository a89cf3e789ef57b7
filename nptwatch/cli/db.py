"""`nptwatch db`: the database's schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.db_copy import copy
from nptwatch.cli.screen import print_json
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    StateDirOption,
    require_database,
    settings_of,
)
from nptwatch.cli.vacuum import vacuum

if TYPE_CHECKING:
    from nptwatch.settings import Settings
    from nptwatch.store.engine import Database

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="""Create, upgrade, check, copy, vacuum or look at the database.

    Example: nptwatch db upgrade
    """,
)

app.command()(copy)
app.command()(vacuum)


@app.command()
def upgrade(
    *,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Create the tables, or bring them to this version's schema; nothing is lost.

    Example: nptwatch db upgrade --database-url postgresql+psycopg://nptwatch@db/nptwatch
    """
    from nptwatch.store import migrate

    database = _database(settings_of(config, state_dir, database_url))
    try:
        before = migrate.current(database)
        migrate.upgrade(database)
        after = migrate.current(database)
    finally:
        database.close()
    was = "was already" if before == after else f"upgraded from {before or 'nothing'}"
    print(f"{database.safe_url} is at schema {after} ({was})")


@app.command()
def current(
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Print the database's schema revision, and the one this version needs.

    Example: nptwatch db current
    """
    from nptwatch.store import migrate

    settings = settings_of(config, state_dir, database_url)
    require_database(settings)
    database = _database(settings)
    try:
        found = migrate.current(database)
    finally:
        database.close()
    needed = migrate.head()
    if as_json:
        print_json({"database": database.safe_url, "current": found, "needed": needed})
        return
    print(found or "none")
    if found != needed:
        typer.echo(f"this version needs {needed}: run `nptwatch db upgrade`", err=True)


@app.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="The older schema, as `0001`.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Though workers are at work.")] = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Bring the schema back to an older version's, before that version is installed again.

    What only the newer schema holds is lost. A SQLite file is copied beside itself first; of a
    server take a dump. Stop the daemon and all workers before.

    Example: nptwatch db downgrade 0001
    """
    from nptwatch.store import migrate

    settings = settings_of(config, state_dir, database_url)
    require_database(settings)
    database = _database(settings)
    try:
        before = migrate.current(database)
        if not force:
            _require_nobody(database)
        if not yes:
            question = f"Bring {database.safe_url} from schema {before} back to {revision}?"
            typer.confirm(question, abort=True)
        copy = migrate.downgrade(database, revision)
    finally:
        database.close()
    kept = "" if copy is None else f"; as it was: {copy}"
    print(f"{database.safe_url} is at schema {revision} (was {before}){kept}")


@app.command()
def check(
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Look whether the database is whole: schema, tables, file, and rows that must agree.

    Nothing is changed, and a daemon may go on meanwhile. Ends with 5 if something is wrong.

    Example: nptwatch db check
    """
    from nptwatch.errors import DatabaseError
    from nptwatch.store.checking import findings

    settings = settings_of(config, state_dir, database_url)
    require_database(settings)
    database = _database(settings)
    found = []
    try:
        for finding in findings(database):
            found.append(finding)
            if not as_json:
                print(f"{'OK' if finding.ok else 'FAIL':4}  {finding.check}")
                for line in [
                    *finding.faults,
                    *filter(None, [finding.fix if finding.faults else ""]),
                ]:
                    print(f"      {line}")
    finally:
        database.close()
    if as_json:
        print_json({"database": database.safe_url, "findings": found})
    if not all(finding.ok for finding in found):
        raise typer.Exit(DatabaseError.exit_code)


_HEARD_OF_SECONDS = 300.0


def _require_nobody(database: Database) -> None:
    """Hold that no worker is at work, which would go on in tables that it does not know.

    Raises:
        DatabaseError: one was heard of lately.
    """
    from nptwatch.errors import DatabaseError
    from nptwatch.store import migrate
    from nptwatch.store.workers import Workers

    if migrate.current(database) != migrate.head():
        return
    alive = Workers(database).alive(_HEARD_OF_SECONDS)
    if alive:
        names = ", ".join(f"{worker.worker_id} on {worker.host}" for worker in alive)
        raise DatabaseError(f"workers are at work ({names}): stop them first, or say --force")


def _database(settings: Settings) -> Database:
    # not service.build.open_stores: it refuses the very schemas that are looked at here
    from nptwatch.store.engine import Database

    return Database.of(settings, application="nptwatch db")
