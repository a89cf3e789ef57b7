"""`nptwatch best`: which checkpoint of a run to take."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.history import print_checkpoint
from nptwatch.cli.screen import Screen, print_json
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    StateDirOption,
    reading,
    settings_of,
)
from nptwatch.errors import ConfigError

if TYPE_CHECKING:
    from nptwatch.store.records import HistoryRow

NOTHING_MEASURED = 1


class Measure(StrEnum):
    """What makes a checkpoint the best one."""

    MSE = "mse"  # the lowest mean square error of the logits
    COSINE = "cosine"  # the highest cosine of the logits
    KL = "kl"  # the lowest divergence of the predictions


def best(
    run: Annotated[
        str, typer.Argument(help="The run's name, its folder, or how its name ends uniquely.")
    ],
    *,
    by: Annotated[
        Measure, typer.Option(help="What is compared.", case_sensitive=False)
    ] = Measure.MSE,
    only_path: Annotated[
        bool, typer.Option("--path", help="Print the path of its weights file only.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Show the best measured checkpoint of a run.

    INVALID checkpoints never count. Exit code: 0 there is one, 1 nothing was measured yet.

    Example: nptwatch best equivalence --by kl --path
    """
    if as_json and only_path:
        raise ConfigError("best takes --json or --path, not both: JSON has the path too")
    with reading(settings_of(config, state_dir, database_url)) as stores:
        row = stores.history.best(run, by.value)
    if row is None:
        typer.echo(f"no checkpoint of {run} has a measured {by} yet", err=True)
        raise typer.Exit(NOTHING_MEASURED)
    if as_json:
        print_json(row)
    elif only_path:
        print(_present(row))
    else:
        print_checkpoint(row, Screen.of_stdout())


def _present(row: HistoryRow) -> str:
    """Give a path that still has the content, as far as can be seen from here."""
    paths = (row.path, *row.also)
    for path in paths:
        if Path(path).exists():
            return path
    print(f"note: {row.path} is not there: deleted, or on another machine", file=sys.stderr)
    return row.path
