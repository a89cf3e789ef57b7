"""`nptwatch db`: the database's schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from nptwatch.cli.screen import print_json
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    StateDirOption,
    require_database,
    settings_of,
)

if TYPE_CHECKING:
    from nptwatch.settings import Settings
    from nptwatch.store.engine import Database

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="""Create, upgrade or look at the database's schema.

    Example: nptwatch db upgrade
    """,
)


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


def _database(settings: Settings) -> Database:
    # not service.build.open_stores: it refuses the very schemas that are looked at here
    from nptwatch.store.engine import Database

    return Database.of(settings, application="nptwatch db")
