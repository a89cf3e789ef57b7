"""`nptwatch history`, `runs` and `show`: what is known of runs and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.screen import Column, Screen, as_mapping, number, print_json
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    StateDirOption,
    reading,
    settings_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nptwatch.store.records import HistoryRow, RunRow

_MSE_DIGITS, _COSINE_DIGITS = 4, 4


def runs(
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """List the runs with their status and newest measured checkpoint.

    Example: nptwatch runs --json
    """
    with reading(settings_of(config, state_dir, database_url)) as stores:
        rows = stores.history.runs()
    if as_json:
        print_json([run_json(row) for row in rows])
    elif rows:
        print_runs(rows, Screen.of_stdout())
    else:
        typer.echo("no runs yet: nothing was found below the watched directories", err=True)


def run_json(row: RunRow) -> dict[str, object]:
    """Give a run as JSON has it: `path` is its newest measured checkpoint, as in `history`."""
    fields = as_mapping(row)
    newest = fields.pop("checkpoint_path")
    return {"run": row.run, "run_path": row.path} | fields | {"path": newest}


def print_runs(rows: Sequence[RunRow], screen: Screen) -> None:
    """Print a table of runs."""
    screen.table(
        (
            Column(title="RUN", shrinks=True),
            Column(title="STATUS"),
            Column(title="STEP", right=True),
            Column(title="MSE", right=True),
            Column(title="COSINE", right=True),
            Column(title="BEST MSE", right=True),
            Column(title="DONE", right=True),
            Column(title="OPEN", right=True),
            Column(title="FAILED", right=True),
            Column(title="MEASURED"),
        ),
        [
            (
                row.run,
                row.status,
                row.step,
                number(row.mse, _MSE_DIGITS),
                number(row.cosine, _COSINE_DIGITS),
                number(row.best_mse, _MSE_DIGITS),
                row.done,
                row.open_jobs,
                row.failed,
                screen.when(row.measured_at),
            )
            for row in rows
        ],
    )


def history(
    run: Annotated[
        str, typer.Argument(help="The run's name, its folder, or how its name ends uniquely.")
    ],
    *,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Show only so many, the last ones.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """List a run's checkpoints with their results.

    Example: nptwatch history equivalence --json
    """
    with reading(settings_of(config, state_dir, database_url)) as stores:
        rows = stores.history.history(run, limit=limit)
    if as_json:
        print_json(rows)
    elif rows:
        print_history(rows, Screen.of_stdout())
    else:
        typer.echo(f"no checkpoints of {run} yet", err=True)


def print_history(rows: Sequence[HistoryRow], screen: Screen) -> None:
    """Print a table of checkpoints; reasons stand below it on a terminal, else in the rows."""
    columns = [
        Column(title="STEP", right=True),
        Column(title="CHECKPOINT", shrinks=True),
        Column(title="STATE"),
        Column(title="MSE", right=True),
        Column(title="COSINE", right=True),
        Column(title="GRADE"),
        Column(title="MEASURED"),
    ]
    cells: list[tuple[object, ...]] = [
        (
            row.step,
            _name(row),
            row.state,
            number(row.mse, _MSE_DIGITS),
            number(row.cosine, _COSINE_DIGITS),
            row.grade,
            screen.when(row.measured_at),
        )
        for row in rows
    ]
    if screen.width is None and any(row.reason for row in rows):
        columns.append(Column(title="REASON"))
        cells = [(*cell, row.reason) for cell, row in zip(cells, rows, strict=True)]
    screen.table(columns, cells)
    if screen.width is not None:
        for row in rows:
            if row.reason:
                name = f"step {row.step}" if row.step is not None else _name(row)
                screen.say(f"{name} {screen.painted(row.state)}: {row.reason}")


def _name(row: HistoryRow) -> str:
    """Name a checkpoint by its folder, with the folders that hold copies of it."""
    names = [Path(path).parent.name for path in (row.path, *row.also)]
    return " = ".join(names)


def show(
    checkpoint: Annotated[
        str, typer.Argument(help="Path of the weights file or its folder, or a job's number.")
    ],
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Show everything that is known of one checkpoint.

    Example: nptwatch show experiments/equivalence/checkpoints/checkpoint-400
    """
    with reading(settings_of(config, state_dir, database_url)) as stores:
        row, details = stores.history.show(checkpoint)
    if as_json:
        print_json(as_mapping(row) | {"details": details})
    else:
        _print_one(row, details, Screen.of_stdout())


def _print_one(row: HistoryRow, details: Mapping[str, object] | None, screen: Screen) -> None:
    facts = as_mapping(row) | {
        "state": screen.painted(row.state),
        "grade": row.grade and screen.painted(row.grade),
        "also": ", ".join(row.also) or None,
        "first_seen_at": screen.when(row.first_seen_at),
        "measured_at": screen.when(row.measured_at),
    }
    for name, value in facts.items():
        if value is not None:
            screen.say(f"{name.replace('_', ' ') + ':':<18} {value}")
    if details and "accuracy" in details:
        from nptwatch.diagnostics.report import quick_text

        screen.say()
        screen.say(quick_text(dict(details), verbose=False, emoji=False).rstrip())
