"""`nptwatch history`, `runs` and `show`: what is known of runs and checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.curve import forecast_lines
from nptwatch.cli.history_table import COSINE_DIGITS, MSE_DIGITS, print_history, write_csv
from nptwatch.cli.screen import Column, Screen, as_mapping, number, print_json
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    StateDirOption,
    reading,
    settings_of,
)
from nptwatch.cli.since import parse_since
from nptwatch.diagnostics.identity import bounds_of
from nptwatch.errors import ConfigError
from nptwatch.service.forecasting import forecast_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nptwatch.store.records import HistoryRow, RunRow


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
                number(row.mse, MSE_DIGITS),
                number(row.cosine, COSINE_DIGITS),
                number(row.best_mse, MSE_DIGITS),
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
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="Begin at a step (500), an age (90min, 3h, 2d) or a time (2026-11-22T18:30).",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Show only so many: the last ones, or the first after --after."),
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="KEY", help="Begin behind the row with this key.")
    ] = None,
    before: Annotated[
        str | None, typer.Option(metavar="KEY", help="End before the row with this key.")
    ] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """List a run's checkpoints with their results.

    Below the table stand its MSE as a line and the forecast, which is always made of all steps.
    In JSON each row has its key: page by --limit 100, then --before the first key of the last page.

    Example: nptwatch history equivalence --since 2d --csv
    """
    if as_json and as_csv:
        raise ConfigError("history takes --json or --csv, not both")
    screen = Screen.of_stdout()
    begin = parse_since(since, now=screen.now)
    settings = settings_of(config, state_dir, database_url)
    with reading(settings) as stores:
        rows = stores.history.history(
            run,
            limit=limit,
            since_step=begin.step,
            since_at=begin.at,
            after=after,
            before=before,
        )
        every = [] if as_json or as_csv else stores.history.history(run)
    if as_json:
        print_json([as_mapping(row) | {"key": str(row.key)} for row in rows])
    elif as_csv:
        write_csv(rows, screen.out)
    elif rows:
        print_history(rows, screen)
        for line in forecast_lines(forecast_of(every, bounds_of(settings)), screen):
            screen.say(line)
    else:
        where = " yet" if not every else " since then" if since else " there"
        typer.echo(f"no checkpoints of {run}{where}", err=True)


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
        print_checkpoint(row, Screen.of_stdout(), details)


def print_checkpoint(
    row: HistoryRow, screen: Screen, details: Mapping[str, object] | None = None
) -> None:
    """Print all facts of a checkpoint, and the text of its report where there is one."""
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
        from nptwatch.diagnostics.full_text import full_text
        from nptwatch.diagnostics.quick_text import quick_text

        text = full_text if "summary" in details else quick_text
        screen.say()
        screen.say(text(dict(details)).rstrip())
