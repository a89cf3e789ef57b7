"""`nptwatch kept`: list what is kept, release it, copy one out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.history_table import COSINE_DIGITS, MSE_DIGITS
from nptwatch.cli.screen import Column, Screen, number, print_json, size_text
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    StateDirOption,
    reading,
    settings_of,
)
from nptwatch.errors import ConfigError
from nptwatch.store.records import KeptState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.store.records import KeptRow

RunOption = Annotated[str | None, typer.Option("--run", help="Only of this run.")]
AllOption = Annotated[bool, typer.Option("--all", help="Released and lost ones too.")]
IdsArgument = Annotated[list[int], typer.Argument(metavar="ID...", help="Numbers, as listed.")]

LOST = "lost"
"""Wanted, and no file of it is left."""

ROOMY = 130
"""Columns from which a table shows more."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def kept(
    ctx: typer.Context,
    *,
    run: RunOption = None,
    everything: AllOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """List the checkpoints that are kept, release them, copy one out.

    Example: nptwatch kept list --run equivalence
    """
    given: dict[str, object] = {"config": config, "state_dir": state_dir}
    given |= {"database_url": database_url, "run": run, "everything": everything}
    if ctx.invoked_subcommand is None:
        list_(
            run=run,
            everything=everything,
            as_json=as_json,
            config=config,
            state_dir=state_dir,
            database_url=database_url,
        )
    elif any((as_json, *given.values())):
        # `kept --json list` must not quietly ignore the option
        given |= {"as_json": as_json}
        ctx.default_map = {ctx.invoked_subcommand: {k: v for k, v in given.items() if v}}


@app.command("list")
def list_(
    *,
    run: RunOption = None,
    everything: AllOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """List what is kept and what is to be, the newest first; errors say why it is not yet.

    Example: nptwatch kept list --json
    """
    with reading(settings_of(config, state_dir, database_url)) as stores:
        rows = stores.kept.rows(run=run)
    if not everything:
        rows = [row for row in rows if state_of(row) in {KeptState.KEPT, KeptState.WANTED}]
    if as_json:
        print_json([_json(row) for row in rows])
    elif rows:
        _print(rows, Screen.of_stdout())
    else:
        typer.echo("nothing is kept", err=True)


@app.command()
def release(
    ids: IdsArgument,
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Keep checkpoints no longer and remove their files; they are not kept again.

    Files of another host go when its daemon takes its next turn. Exit code: 1 where a number is
    not that of something kept or wanted.

    Example: nptwatch kept release 3 4
    """
    from nptwatch.service.build import build_keeper

    settings = settings_of(config, state_dir, database_url)
    with reading(settings) as stores:
        released = stores.kept.release(ids, "released by a person")
        removed = not released or build_keeper(settings, stores, lambda: False).tidy()
        left = [row for row in stores.kept.rows() if row.kept_id in released and row.file]
    missed = sorted(set(ids) - set(released))
    if as_json:
        print_json({"released": released, "not_kept": missed})
    elif released:
        typer.echo(f"released: {', '.join(map(str, released))}")
    if not removed or left:
        typer.echo("files are removed by the daemon that has them, at its next turn", err=True)
    if missed:
        typer.echo(f"not kept: {', '.join(map(str, missed))} (see `nptwatch kept list`)", err=True)
        raise typer.Exit(1)


@app.command()
def export(
    which: Annotated[
        str, typer.Argument(metavar="ID|RUN", help="A number, as listed, or a run: its best.")
    ],
    folder: Annotated[Path, typer.Argument(help="Where to: a new or empty folder.")],
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Copy a kept checkpoint's weights and card into a new folder; the content is verified.

    Example: nptwatch kept export equivalence ./equivalence-good
    """
    from nptwatch.worker import exporting

    settings = settings_of(config, state_dir, database_url)
    with reading(settings) as stores:
        row = _chosen(which, stores.kept.rows(run=None if which.isdecimal() else which))
    file = row.file
    if file is None:
        raise ConfigError(f"{which} is not kept any more: see `nptwatch kept list`")
    weights = Path(file.path)
    exporting.require_here(weights, file.host)
    files = exporting.export(weights, row.fingerprint, folder, settings.watch.roots)
    if as_json:
        print_json({"kept_id": row.kept_id, "run": row.run, "step": row.step, "files": files})
    else:
        for path in files:
            typer.echo(path)


def state_of(row: KeptRow) -> str:
    """Say wanted, kept, released, or lost."""
    is_lost = row.state is KeptState.WANTED and not row.sources
    return LOST if is_lost else str(row.state)


def _chosen(which: str, rows: Sequence[KeptRow]) -> KeptRow:
    """Find what a number names, or the best one of a run."""
    from nptwatch.worker.cards import mse_of

    held = [row for row in rows if row.state is KeptState.KEPT]
    if which.isdecimal():
        held = [row for row in held if row.kept_id == int(which)]
    if not held:
        raise ConfigError(f"nothing is kept of {which}: see `nptwatch kept list`")
    return min(held, key=lambda row: (mse_of(row), row.kept_id))


def _json(row: KeptRow) -> dict[str, object]:
    from nptwatch.cli.screen import as_mapping

    fields = as_mapping(row)
    file = fields.pop("file")
    held = {} if row.file is None else as_mapping(row.file)
    names = ("host", "path", "how")
    return fields | {
        "state": state_of(row),
        **{name: held.get(name) for name in names},
        "card": None if file is None else str(Path(str(held["path"])).parents[1] / "card.json"),
    }


def _print(rows: Sequence[KeptRow], screen: Screen) -> None:
    """Print a table; why and how only where there is room."""
    roomy = screen.width is None or screen.width >= ROOMY
    screen.table(
        [
            Column(title="ID", right=True),
            Column(title="RUN", shrinks=True),
            Column(title="STEP", right=True),
            Column(title="GRADE"),
            Column(title="MSE", right=True),
            *([Column(title="COSINE", right=True)] if roomy else []),
            Column(title="SIZE", right=True),
            Column(title="STATE"),
            *([Column(title="BECAUSE"), Column(title="HOW")] if roomy else []),
            Column(title="PATH OR REASON", shrinks=True),
        ],
        [_cells(row, roomy=roomy) for row in rows],
    )


def _cells(row: KeptRow, *, roomy: bool) -> tuple[object, ...]:
    held = row.state is KeptState.KEPT and row.file
    how = row.file.how if held and row.file else None
    return (
        row.kept_id,
        row.run,
        row.step,
        row.grade,
        number(row.mse, MSE_DIGITS),
        *([number(row.cosine, COSINE_DIGITS)] if roomy else []),
        size_text(row.size_bytes),
        state_of(row),
        *([row.because, how] if roomy else []),
        row.file.path if held and row.file else row.error,
    )
