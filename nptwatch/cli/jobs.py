"""`nptwatch jobs`: list them, bring failed ones back, cancel queued ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.screen import Column, Screen, as_mapping, print_json
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    StateDirOption,
    reading,
    settings_of,
)
from nptwatch.errors import ConfigError
from nptwatch.store.labels import Waiting, reason_untaken
from nptwatch.store.records import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nptwatch.store.labels import Offer
    from nptwatch.store.records import JobRow

IdsArgument = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="Job numbers.")]
AllOption = Annotated[bool, typer.Option("--all", help="All of them.")]
StateOption = Annotated[
    list[JobState] | None, typer.Option("--state", help="Only jobs in this state; repeatable.")
]
RunOption = Annotated[str | None, typer.Option("--run", help="Only jobs of this run.")]
BeforeOption = Annotated[
    str | None,
    typer.Option("--before", metavar="KEY", help="Go on behind the row with this key (--json)."),
]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="Show at most so many.")]

ROOMY = 110
"""Columns from which a table shows more."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def jobs(
    ctx: typer.Context,
    *,
    state: StateOption = None,
    run: RunOption = None,
    limit: LimitOption = 50,
    before: BeforeOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """List jobs, try failed ones again, cancel queued ones.

    Example: nptwatch jobs list --state failed
    """
    if ctx.invoked_subcommand is None:
        _list(state, run, limit, before, config, state_dir, database_url, as_json=as_json)
    elif any((state, run, before, as_json, config, state_dir, database_url)):
        # `jobs --json list` must not quietly ignore the option
        given: dict[str, object] = {"config": config, "state_dir": state_dir}
        given |= {"database_url": database_url}
        given |= {"state": state, "run": run, "before": before, "as_json": as_json}
        ctx.default_map = {ctx.invoked_subcommand: {k: v for k, v in given.items() if v}}


@app.command("list")
def list_(
    *,
    state: StateOption = None,
    run: RunOption = None,
    limit: LimitOption = 50,
    before: BeforeOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """List jobs, the last changed first.

    In JSON each has its key; the last one of a page is what --before of the next page takes.

    Example: nptwatch jobs list --state failed --json
    """
    _list(state, run, limit, before, config, state_dir, database_url, as_json=as_json)


@app.command()
def retry(
    ids: IdsArgument = None,
    *,
    everything: AllOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Queue failed jobs again; named ones however they ended, unless with a result.

    Example: nptwatch jobs retry 17
    """
    chosen = _chosen(ids, everything, "retry")
    with reading(settings_of(config, state_dir, database_url)) as stores:
        _tell("queued again", stores.queue.retry(chosen), chosen)


@app.command()
def cancel(
    ids: IdsArgument = None,
    *,
    everything: AllOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Cancel queued jobs; one that runs is left to end.

    Example: nptwatch jobs cancel --all
    """
    chosen = _chosen(ids, everything, "cancel")
    with reading(settings_of(config, state_dir, database_url)) as stores:
        _tell("cancelled", stores.queue.cancel(chosen), chosen)


def _chosen(ids: Sequence[int] | None, everything: bool, verb: str) -> list[int] | None:
    """Give the chosen jobs, None for all; all must be asked for."""
    if bool(ids) == everything:
        raise ConfigError(f"name jobs, as in `nptwatch jobs {verb} 17 18`, or say --all")
    return list(ids) if ids else None


def _tell(done: str, count: int, chosen: list[int] | None) -> None:
    """Say how many; exit 1 where fewer than were named."""
    typer.echo(f"{count} {'job' if count == 1 else 'jobs'} {done}")
    missed = len(set(chosen)) - count if chosen else 0
    if missed:
        typer.echo(
            f"{missed} not: no such job, or not in a state for it (`nptwatch jobs`)", err=True
        )
        raise typer.Exit(1)


def _list(
    states: Sequence[JobState] | None,
    run: str | None,
    limit: int,
    before: str | None,
    config: Path | None,
    state_dir: Path | None,
    database_url: str | None,
    *,
    as_json: bool,
) -> None:
    settings = settings_of(config, state_dir, database_url)
    with reading(settings) as stores:
        path = stores.history.run(run).path if run else None
        rows = stores.queue.jobs(states=states or None, run=path, limit=limit, before=before)
        offers = [worker.offer for worker in stores.workers.alive(settings.worker.lease_seconds)]
    stuck = {row.job_id: why for row in rows if (why := _why_stuck(row, offers))}
    if as_json:
        more = ({"key": str(row.key), "stuck": stuck.get(row.job_id)} for row in rows)
        print_json([as_mapping(row) | about for row, about in zip(rows, more, strict=True)])
    elif rows:
        _print(rows, stuck, Screen.of_stdout())
    else:
        typer.echo("no such jobs", err=True)


def _why_stuck(row: JobRow, offers: Sequence[Offer]) -> str | None:
    """Say why no worker at work takes a queued job."""
    if row.state is not JobState.QUEUED:
        return None
    needs = Waiting(
        base_model=row.base_model,
        min_gpu_mib=row.min_gpu_mib,
        run_path=row.run_path,
        run_root=row.run_root,
        jobs=1,
        oldest_at=row.created_at,
    )
    return reason_untaken(needs, offers)


def _print(rows: Sequence[JobRow], stuck: Mapping[int, str], screen: Screen) -> None:
    """Print a table; why a job was asked for only where there is room."""
    roomy = screen.width is None or screen.width >= ROOMY
    columns = [
        Column(title="ID", right=True),
        Column(title="RUN", shrinks=True),
        Column(title="STEP", right=True),
        Column(title="PROFILE"),
        Column(title="STATE"),
        Column(title="TRIES", right=True),
        Column(title="CHANGED"),
        *([Column(title="ASKED", shrinks=True)] if roomy else []),
        Column(title="REASON", shrinks=True),
    ]
    screen.table(columns, [_cells(row, stuck, screen, roomy=roomy) for row in rows])


def _cells(
    row: JobRow, stuck: Mapping[int, str], screen: Screen, *, roomy: bool
) -> tuple[object, ...]:
    why = stuck.get(row.job_id)
    return (
        row.job_id,
        row.run,
        row.step,
        row.profile,
        row.state,
        row.attempts,
        screen.when(row.updated_at),
        *([row.asked_because] if roomy else []),
        f"no worker takes it: {why}" if why else row.reason,
    )
