"""`nptwatch full`: all five tests of checkpoints now, without a database."""

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
from nptwatch.diagnostics.full_text import full_text
from nptwatch.logs import configure_logs
from nptwatch.settings import FULL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.diagnostics.report import Report

COLUMNS = (
    Column(title="STEP", right=True),
    Column(title="CHECKPOINT", shrinks=True),
    Column(title="MSE", right=True),
    Column(title="COSINE", right=True),
    Column(title="GRADE"),
    Column(title="SCORE", right=True),
    Column(title="P/W/F"),
    Column(title="STATUS"),
)
LEGEND = "MSE, COSINE, GRADE: on the quick prompts. P/W/F: tests passed, warned, failed."


def full(
    path: PathArgument = None,
    *,
    checkpoint: CheckpointOption = None,
    model_name: ModelNameOption = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="The first two tests only: basic, and against the base."),
    ] = False,
    detailed: Annotated[
        bool,
        typer.Option(
            "--detailed", help="Numbers of each test: per layer, generations, progression."
        ),
    ] = False,
    output: OutputOption = None,
    residual: ResidualOption = None,
    probes: ProbesOption = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the noise that both sides generate with. Default: settings."),
    ] = None,
    device: DeviceOption = None,
    as_json: ReportJsonOption = False,
    fail_under: FailUnderOption = None,
    config: ConfigOption = None,
) -> None:
    """Run all five tests on a checkpoint, or on every checkpoint of a folder.

    MSE, cosine and grade are those of `nptwatch quick`; status and score are the tests'. Ctrl-C
    prints and writes what is measured so far.
    Exit code: 0 measured, 1 below --fail-under, 3 unloadable or invalid, 4 no base model.

    Example: nptwatch full experiments/run/checkpoints/checkpoint-8000 --detailed
    """
    configure_logs(level="warning")
    settings = settings_of(
        config,
        diagnostic__residual=residual,
        diagnostic__probes=probes,
        diagnostic__seed=seed,
        worker__device=device,
    )
    files = weights_below(target_of(path, checkpoint, verb="full"), settings.watch)
    session = Session(settings=settings, model_name=model_name, profile=FULL, first_tests=quick)
    reports = Reports(
        total=len(files),
        text=lambda report, emoji: full_text(report, detailed=detailed, emoji=emoji),
        table=_print_table,
        each=detailed,
        as_json=as_json,
        output=output,
    )
    raise typer.Exit(exit_code(reports.tell(measured(session, files)), fail_under))


def _print_table(reports: Sequence[Report], screen: Screen) -> None:
    rows = []
    for name, report in zip(names_of(reports), reports, strict=True):
        accuracy, summary = report["accuracy"], report["summary"]
        counts = summary["test_counts"]
        passed = "/".join(str(counts[key]) for key in ("passed", "warnings", "failed"))
        rows.append(
            (
                report["step"],
                name,
                number(accuracy["avg_mse"], 4),
                number(accuracy["avg_cosine_similarity"], 4),
                report["grade"],
                number(summary["avg_score"], 2),
                passed if counts["total"] else None,
                summary["overall_status"],
            )
        )
    screen.table(COLUMNS, rows)
    screen.say(f"\n{LEGEND}")
