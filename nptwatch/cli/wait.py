"""`nptwatch wait`: for scripts that go on when a run is good enough."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.history import run_json
from nptwatch.cli.screen import print_json
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    StateDirOption,
    reading,
    settings_of,
)
from nptwatch.diagnostics.grading import Grade, at_least
from nptwatch.errors import ConfigError, DatabaseError, SchemaError

if TYPE_CHECKING:
    from nptwatch.settings import Settings
    from nptwatch.store.records import RunRow

NOT_MET = 1

SCHEMA_SECONDS = 5.0
"""A database that is just being made has no tables for a moment."""


def wait(
    run: Annotated[str, typer.Argument(help="The run's name, folder, or unique end of its path.")],
    *,
    until: Annotated[
        Grade, typer.Option(help="Lowest status that is good enough.", case_sensitive=False)
    ] = Grade.GOOD,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Give up after so long.")
    ] = None,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Look so often.")] = 2.0,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Wait until a run's status is good enough.

    The run, and the database, need not be there yet. Exit code: 0 good enough, 1 timed out.

    Example: nptwatch wait equivalence --until good --timeout 3600
    """
    if until in {Grade.INVALID, Grade.UNLOADABLE}:
        raise ConfigError(f"--until takes POOR, FAIR, GOOD or EXCELLENT, got {until}")
    settings = settings_of(config, state_dir, database_url)
    row = _wait(settings, run, until, every, timeout)
    if row is None:
        typer.echo(f"{run} was not {until} within {timeout:g} s", err=True)
        raise typer.Exit(NOT_MET)
    if as_json:
        print_json(run_json(row))
    else:
        at = "" if row.step is None else f" at step {row.step}"
        print(f"{row.run} is {row.status}{at}: MSE {row.mse}, cosine {row.cosine}")


def _wait(
    settings: Settings, run: str, until: Grade, every: float, timeout: float | None
) -> RunRow | None:
    """Look until the status is reached (give the run) or time is up (None)."""
    deadline = None if timeout is None else time.monotonic() + timeout
    said = ""
    schema_deadline = time.monotonic() + SCHEMA_SECONDS
    while True:
        try:
            row, state = _look(settings, run)
        except SchemaError:
            if time.monotonic() > schema_deadline:
                raise
            row, state = None, "the database is not ready"
        if row is not None and at_least(row.status, until):
            return row
        if state != said:
            typer.echo(f"waiting: {state}", err=True)
            said = state
        left = every if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(every, left))


def _look(settings: Settings, run: str) -> tuple[RunRow | None, str]:
    """Give the run, if it is there, and its state in words.

    Raises:
        NptwatchError: what no waiting mends.
    """
    try:
        with reading(settings) as stores:
            try:
                row = stores.history.run(run)
            except ConfigError as exc:  # not there yet, or a typo: the text lists what is there
                return None, str(exc)
    except DatabaseError as exc:
        if not exc.retryable:
            raise
        return None, str(exc)
    at = "" if row.step is None else f" at step {row.step}"
    return row, f"{row.run} is {row.status or 'not measured yet'}{at}"
