"""What all commands that use the database share: their options, settings and connection."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.errors import ConfigError, DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nptwatch.service.build import Stores
    from nptwatch.settings import Loaded, Settings

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file.")]
StateDirOption = Annotated[
    Path | None, typer.Option("--state-dir", help="Folder of database and caches.")
]
DatabaseUrlOption = Annotated[
    str | None, typer.Option("--database-url", help="SQLAlchemy URL of the database.")
]
RootsArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[ROOT]...", help="Directories to watch; instead of watch.roots."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settings_of(
    config: Path | None,
    state_dir: Path | None = None,
    database_url: str | None = None,
    **overrides: object,
) -> Settings:
    """Load the settings with a command's flags on top.

    Args:
        overrides: further flags, `section__name=value`; None: not given.
    """
    return loaded_by(config, state_dir, database_url, **overrides).settings


def loaded_by(
    config: Path | None,
    state_dir: Path | None = None,
    database_url: str | None = None,
    **overrides: object,
) -> Loaded:
    """Do as `settings_of`, and say where the settings come from."""
    from nptwatch.settings import load

    flags: dict[str, object] = {key.replace("__", "."): value for key, value in overrides.items()}
    flags |= {"state_dir": state_dir, "database.url": database_url}
    return load(config, env=os.environ, overrides=flags)


def require_roots(settings: Settings) -> None:
    """Hold that there is something to watch.

    Raises:
        ConfigError: no root is set, or one is not a directory.
    """
    if not settings.watch.roots:
        raise ConfigError(
            "no directory to watch: name one (`nptwatch run ~/experiments`), or set watch.roots"
        )
    missing = [str(root) for root in settings.watch.roots if not root.is_dir()]
    if missing:
        raise ConfigError(f"not a directory: {', '.join(missing)}")


def has_database(settings: Settings) -> bool:
    """Tell whether there is a database to read; a server's is always taken to be there."""
    return settings.sqlite_file is None or settings.sqlite_file.exists()


def require_database(settings: Settings) -> None:
    """Hold that there is a database to read.

    Raises:
        DatabaseError: its file is not there.
    """
    if not has_database(settings):
        raise DatabaseError(
            f"no database yet at {settings.sqlite_file}: start `nptwatch run`, or name another "
            "with --state-dir, --database-url or --config"
        )


@contextmanager
def reading(settings: Settings) -> Iterator[Stores]:
    """Open the database as the daemon made it; creates and changes nothing.

    Raises:
        DatabaseError: it is not there, its schema is another version's, or it cannot be read.
    """
    require_database(settings)
    from nptwatch.service.build import open_stores

    stores = open_stores(settings)
    try:
        yield stores
    finally:
        stores.close()
