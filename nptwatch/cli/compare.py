"""`nptwatch compare`: checkpoints side by side, or runs step by step."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.compare_checkpoints import checkpoints_json, print_checkpoints
from nptwatch.cli.compare_runs import print_runs, runs_json, warnings_of, write_csv
from nptwatch.cli.compared import Checkpoint, Lookup, is_report
from nptwatch.cli.measuring import DeviceOption, ModelNameOption, Session, measured
from nptwatch.cli.screen import Screen, print_json
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    StateDirOption,
    has_database,
    reading,
    settings_of,
)
from nptwatch.diagnostics.curves import Curve
from nptwatch.errors import ConfigError, DatabaseError
from nptwatch.logs import configure_logs
from nptwatch.settings import FULL, QUICK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.cli.compared import Subject
    from nptwatch.diagnostics.report import Report
    from nptwatch.settings import Settings
    from nptwatch.store.history import History


class Profile(StrEnum):
    """How thoroughly."""

    QUICK = QUICK  # what is known is enough, whichever profile measured it
    FULL = FULL  # all five tests


def compare(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="A B...",
            help="Checkpoints (file, folder, job number, or JSON report), or runs (name, folder).",
        ),
    ],
    *,
    profile: Annotated[
        Profile, typer.Option(help="full: measure what has no full result yet.")
    ] = Profile.QUICK,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Measure files now, whatever the database knows of them."),
    ] = False,
    model_name: ModelNameOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: runs only.")] = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Compare checkpoints side by side, or runs step by step.

    What the database knows is not measured again; a file that it does not know is measured now.

    Example: nptwatch compare checkpoints/checkpoint-400 checkpoints/checkpoint-800
    """
    if len(what) < 2 or (as_json and as_csv):  # noqa: PLR2004 - two
        raise ConfigError("compare takes two or more checkpoints or runs, and --json or --csv")
    configure_logs(level="warning")
    settings = settings_of(config, state_dir, database_url, worker__device=device)
    session = Session(settings=settings, model_name=model_name, profile=profile.value)
    with ExitStack() as stack:
        history = None if fresh else _history(settings, what, stack)
        lookup = Lookup(
            settings=settings,
            history=history,
            measure=_Measure(session=session),
            profile=profile.value,
        )
        subjects = [lookup.find(named) for named in what]
    checkpoints = [each for each in subjects if isinstance(each, Checkpoint)]
    curves = [each for each in subjects if isinstance(each, Curve)]
    if checkpoints and curves:
        raise ConfigError(_mixture(what, subjects))
    if checkpoints and as_csv:
        raise ConfigError("--csv is for runs; --json has all numbers of checkpoints")
    if checkpoints:
        _show_checkpoints(checkpoints, as_json=as_json)
    else:
        _show_runs(curves, as_json=as_json, as_csv=as_csv)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measure:
    """Measures files that nothing is known of; the base is loaded once for all of them."""

    session: Session

    def __call__(self, files: Sequence[Path]) -> list[Report]:
        """Measure files in order; of several, one that cannot be measured stops no other."""
        if len(files) == 1:
            return [self.session.report(files[0])]
        return list(measured(self.session, files))


def _history(settings: Settings, what: Sequence[str], stack: ExitStack) -> History | None:
    """Open the database where there is one and something to ask it.

    Raises:
        DatabaseError: it cannot be read, and not everything named is on disk.
    """
    if not has_database(settings) or all(is_report(Path(named)) for named in what):
        return None
    try:
        return stack.enter_context(reading(settings)).history
    except DatabaseError as exc:
        if not all(Path(named).expanduser().exists() for named in what):
            raise
        typer.echo(f"note: the database is not used: {exc}", err=True)
        return None


def _mixture(what: Sequence[str], subjects: Sequence[Subject]) -> str:
    runs = [named for named, each in zip(what, subjects, strict=True) if isinstance(each, Curve)]
    others = [named for named in what if named not in runs]
    return (
        f"runs and checkpoints do not compare: {', '.join(runs)} is a run, {', '.join(others)} a"
        " checkpoint; name a run's checkpoint (`nptwatch best RUN --path` prints its best)"
    )


def _show_checkpoints(checkpoints: Sequence[Checkpoint], *, as_json: bool) -> None:
    if as_json:
        print_json(checkpoints_json(checkpoints))
    else:
        print_checkpoints(checkpoints, Screen.of_stdout())


def _show_runs(curves: Sequence[Curve], *, as_json: bool, as_csv: bool) -> None:
    if as_json:
        print_json(runs_json(curves))
    elif as_csv:
        for warning in warnings_of(curves):
            typer.echo(f"warning: {warning}", err=True)
        write_csv(curves, sys.stdout)
    else:
        print_runs(curves, Screen.of_stdout())
