"""`nptwatch quick`: measure checkpoints now, without a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.measuring import (
    CheckpointOption,
    DeviceOption,
    FailUnderOption,
    ModelNameOption,
    OutputOption,
    PathArgument,
    ProbesOption,
    ReportJsonOption,
    ResidualOption,
    Session,
    exit_code,
    measured,
    target_of,
)
from nptwatch.cli.reports import Reports, names_of
from nptwatch.cli.screen import Column, Screen, number
from nptwatch.cli.session import ConfigOption, settings_of
from nptwatch.cli.targets import weights_below
from nptwatch.diagnostics.quick_text import quick_text
from nptwatch.logs import configure_logs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.diagnostics.report import Report

COLUMNS = (
    Column(title="STEP", right=True),
    Column(title="CHECKPOINT", shrinks=True),
    Column(title="MSE LOSS", right=True),
    Column(title="COSINE", right=True),
    Column(title="GRADE"),
    Column(title="PROGRESS", right=True),
)


def quick(
    path: PathArgument = None,
    *,
    checkpoint: CheckpointOption = None,
    model_name: ModelNameOption = None,
    no_accuracy: Annotated[
        bool,
        typer.Option(
            "--no-accuracy",
            "--no_accuracy",
            help="Structure, values and one forward pass only; no comparison, no grade.",
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Numbers per prompt, layer and rule.")
    ] = False,
    output: OutputOption = None,
    residual: ResidualOption = None,
    probes: ProbesOption = None,
    device: DeviceOption = None,
    as_json: ReportJsonOption = False,
    fail_under: FailUnderOption = None,
    config: ConfigOption = None,
) -> None:
    """Measure a checkpoint, or every checkpoint of a folder, against its base model.

    Exit code: 0 measured, 1 below --fail-under, 3 unloadable or invalid, 4 no base model.

    Example: nptwatch quick experiments/run/checkpoints/checkpoint-8000
    """
    configure_logs(level="warning")
    settings = settings_of(
        config,
        diagnostic__residual=residual,
        diagnostic__probes=probes,
        worker__device=device,
    )
    files = weights_below(target_of(path, checkpoint, verb="quick"), settings.watch)
    session = Session(settings=settings, model_name=model_name, accuracy=not no_accuracy)
    reports = Reports(
        total=len(files),
        text=lambda report, emoji: quick_text(report, verbose=verbose, emoji=emoji),
        table=_print_table,
        each=verbose,
        as_json=as_json,
        output=output,
    )
    raise typer.Exit(exit_code(reports.tell(measured(session, files)), fail_under))


def _print_table(reports: Sequence[Report], screen: Screen) -> None:
    rows = []
    for name, report in zip(names_of(reports), reports, strict=True):
        accuracy = report["accuracy"]
        progress = report["progress"]["progress_estimate"]
        rows.append(
            (
                report["step"],
                name,
                number(accuracy["avg_mse"], 6),
                number(accuracy["avg_cosine_similarity"], 4),
                report["grade"] or "not graded",
                None if progress is None else f"{progress:.0%}",
            )
        )
    screen.table(COLUMNS, rows)
