"""`nptwatch db copy`: a history moved to another database."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.screen import print_json
from nptwatch.cli.session import ConfigOption, JsonOption, StateDirOption, settings_of
from nptwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nptwatch.settings import Settings
    from nptwatch.store.engine import Database

IN_USE_SECONDS = 60.0
"""A worker that was heard of so lately is taken to be at work."""


def copy(
    *,
    source: Annotated[
        str | None, typer.Option("--from", help="URL of the database to read; default: ours.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--to", help="URL of the database to fill; default: ours.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Empty an unfinished copy and begin anew.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Though workers are at work.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
) -> None:
    """Copy a whole history into an empty database, and compare every row of both afterwards.

    Stop daemon and workers first. After an interruption the same command goes on where it was; no
    daemon uses the target before the copy is whole. The source is only read. `ours` is the
    database of the settings, so that a password can stay in the environment.

    Example: nptwatch db copy --from sqlite:////var/lib/nptwatch/nptwatch.db --to postgresql+psycopg://nptwatch@db/nptwatch
    """
    from nptwatch.store.copying import Copy

    ours = settings_of(config, state_dir)
    if source is None and target is None:
        raise ConfigError("copy from where to where? name --from, or --to, or both")
    reading = _open(config, state_dir, source) if source else _of(ours)
    try:
        writing = _open(config, state_dir, target) if target else _of(ours)
        try:
            _require_two(reading, writing)
            if not force:
                _require_nobody(reading)
            with _shown(quiet=as_json) as progress:
                done = Copy(source=reading, target=writing, progress=progress).run(restart=restart)
        finally:
            writing.close()
    finally:
        reading.close()
    if as_json:
        print_json({"from": reading.safe_url, "to": writing.safe_url, "rows": done.rows})
        return
    rows = ", ".join(f"{count:,} {name}" for name, count in done.rows.items() if count)
    print(f"{writing.safe_url} has the same rows as {reading.safe_url}: {rows or 'none'}")


def _open(config: object, state_dir: object, url: str) -> Database:
    return _of(settings_of(config, state_dir, url))  # type: ignore[arg-type]


def _of(settings: Settings) -> Database:
    from nptwatch.store.engine import Database

    as_stored = settings.model_copy(update={"path_map": ()})
    return Database.of(as_stored, application="nptwatch db copy")


def _require_two(source: Database, target: Database) -> None:
    """Hold that there is something to read, and that it is not what is written.

    Raises:
        ConfigError: it is not so.
    """
    if source.path is not None and not source.path.exists():
        raise ConfigError(f"there is no database {source.safe_url}: nothing was copied")
    same = source.path is not None and source.path == target.path
    if same or source.engine.url == target.engine.url:
        raise ConfigError(f"{source.safe_url} cannot be copied into itself")


def _require_nobody(source: Database) -> None:
    """Hold that nobody writes to the source meanwhile.

    Raises:
        ConfigError: a worker was heard of lately.
    """
    from nptwatch.store import migrate
    from nptwatch.store.workers import Workers

    migrate.check(source)
    alive = Workers(source).alive(IN_USE_SECONDS)
    if alive:
        names = ", ".join(f"{worker.worker_id} on {worker.host}" for worker in alive)
        raise ConfigError(
            f"{source.safe_url} is in use ({names}): stop the daemon and the workers first, or say"
            " --force"
        )


@contextmanager
def _shown(*, quiet: bool) -> Iterator[Callable[[str, str, int, int], None]]:
    """Show a bar on a terminal, and a line for each table elsewhere."""
    if quiet or not sys.stderr.isatty():

        def say(step: str, table: str, done: int, total: int) -> None:
            if not quiet and done >= total:
                print(f"{step} {table}: {done:,} rows", file=sys.stderr, flush=True)

        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def draw(step: str, table: str, done: int, total: int) -> None:
            bar.update(task, description=f"{step} {table}", completed=done, total=total)

        yield draw
