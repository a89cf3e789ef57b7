"""Measuring checkpoints now, without a database: what `quick`, `full` and `compare` share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.progress import LineProgress, progress_of
from nptwatch.cli.targets import base_named_by
from nptwatch.diagnostics.full_report import full_error_report
from nptwatch.diagnostics.grading import Grade, at_least
from nptwatch.diagnostics.report import error_report
from nptwatch.errors import BaseModelError, CheckpointError, ConfigError
from nptwatch.npt.files import step_of
from nptwatch.settings import FULL, QUICK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nptwatch.cli.progress import Progress
    from nptwatch.diagnostics.full import FullDiagnostic
    from nptwatch.diagnostics.quick import QuickDiagnostic
    from nptwatch.diagnostics.report import Report
    from nptwatch.diagnostics.results import FullResult, QuickResult
    from nptwatch.npt.reader import Checkpoint
    from nptwatch.settings import Settings

PathArgument = Annotated[
    Path | None, typer.Argument(help="Checkpoint file, its folder, or a folder of checkpoints.")
]
CheckpointOption = Annotated[
    Path | None, typer.Option("--checkpoint", help="The same, as an option.")
]
ModelNameOption = Annotated[
    str | None,
    typer.Option(
        "--model-name",
        "--model_name",
        help="Base model: folder or hub name. Default: settings, else what the run names.",
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write the JSON report to this file; of several a list."),
]
ResidualOption = Annotated[
    str | None,
    typer.Option("--residual", help="Residual rule: auto (lower MSE of both), keep or drop."),
]
ProbesOption = Annotated[
    Path | None,
    typer.Option(
        "--probes",
        metavar="FILE",
        help='Texts to measure on instead of the guide\'s: one a line, or .jsonl with "text".',
    ),
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:<n>.")]
ReportJsonOption = Annotated[
    bool, typer.Option("--json", help="Print the JSON report instead of text.")
]


class LeastGrade(StrEnum):
    """What may be asked of a checkpoint: INVALID and UNLOADABLE are no grades to be above."""

    EXCELLENT = "EXCELLENT"
    GOOD = "GOOD"
    FAIR = "FAIR"
    POOR = "POOR"


FailUnderOption = Annotated[
    LeastGrade | None,
    typer.Option("--fail-under", help="Exit with 1 if a grade is lower.", case_sensitive=False),
]


def target_of(path: Path | None, checkpoint: Path | None, *, verb: str) -> Path:
    """Take what is named as argument or as option.

    Raises:
        ConfigError: neither or both.
    """
    named = path or checkpoint
    if named is None or (path and checkpoint):
        raise ConfigError(f"name one checkpoint: `nptwatch {verb} PATH` or `--checkpoint PATH`")
    return named.expanduser()


@dataclass(slots=True, kw_only=True)
class Session:
    """One base model, loaded when the first checkpoint needs it, for all that follow.

    Args:
        profile: QUICK or FULL.
        accuracy: False: of the quick diagnostic, structure, values and one forward pass only.
        first_tests: of the full diagnostic, the first two tests only.
    """

    settings: Settings
    model_name: str | None
    profile: str = QUICK
    accuracy: bool = True
    first_tests: bool = False
    _loaded: dict[str, QuickDiagnostic | FullDiagnostic] = field(default_factory=dict)

    def report(self, weights: Path, progress: Progress | None = None) -> Report:
        """Measure one checkpoint.

        Raises:
            CheckpointError: it cannot be measured.
            BaseModelError: nobody names its base, or it cannot be loaded.
        """
        # torch takes seconds to import: only when something is measured
        from nptwatch.npt.layout import infer_layout
        from nptwatch.npt.memory import device_errors
        from nptwatch.npt.reader import read_checkpoint
        from nptwatch.worker.reporting import report_of

        progress = progress or LineProgress()
        started = time.perf_counter()
        max_bytes = self.settings.diagnostic.max_checkpoint_bytes
        checkpoint = read_checkpoint(weights, max_bytes=max_bytes)
        infer_layout(checkpoint.shapes)  # a bad file must not wait for its base to load
        diagnostic = self._diagnostic(self._base_name(weights), progress)
        base = diagnostic.references.base
        with device_errors(base.device):
            result = self._measure(diagnostic, checkpoint, progress)
        seconds = time.perf_counter() - started
        return report_of(result, base, weights, step_of(weights), seconds, datetime.now(UTC))

    def _measure(
        self,
        diagnostic: QuickDiagnostic | FullDiagnostic,
        checkpoint: Checkpoint,
        progress: Progress,
    ) -> QuickResult | FullResult:
        from nptwatch.diagnostics.full import FullDiagnostic

        if isinstance(diagnostic, FullDiagnostic):
            return diagnostic.measure(checkpoint, quick=self.first_tests, progress=progress.doing)
        progress.doing("measuring")
        return diagnostic.measure(checkpoint, accuracy=self.accuracy)

    def _base_name(self, weights: Path) -> str:
        named = self.model_name or self.settings.base.model
        name = named or base_named_by(weights)
        if name is None:
            raise BaseModelError(
                f"{weights}: nobody names its base model (no config.json beside it or in its run); "
                "use --model-name, or set base.model in the settings"
            )
        return name

    def _diagnostic(self, name: str, progress: Progress) -> QuickDiagnostic | FullDiagnostic:
        from nptwatch.worker.bases import full_diagnostic, load_references, quick_diagnostic

        if name not in self._loaded:
            self._loaded.clear()  # never two bases in memory
            progress.say(f"loading base model {name}")
            progress.doing("loading its base model")
            build = full_diagnostic if self.profile == FULL else quick_diagnostic
            self._loaded[name] = build(self.settings, load_references(self.settings, name))
        return self._loaded[name]


def measured(session: Session, files: Sequence[Path]) -> Iterator[Report]:
    """Measure one after the other; one that cannot be measured does not stop the rest.

    What was measured before an interruption, or an error that is not a checkpoint's, is the
    caller's already.
    """
    with progress_of(len(files)) as progress:
        for file in files:
            progress.begin(file)
            try:
                report = session.report(file, progress)
            except CheckpointError as exc:
                progress.say(f"{file}: {exc}" if len(files) > 1 else f"error: {exc}")
                as_error = full_error_report if session.profile == FULL else error_report
                report = as_error(str(file), step_of(file), exc, datetime.now(UTC))
            yield report
            progress.end(file)  # told once the caller has it: what was told as measured is not lost


def exit_code(reports: Sequence[Report], fail_under: LeastGrade | None) -> int:
    """Give the command's exit code: the checkpoints' fault before a grade that is too low."""
    grades = [report["grade"] for report in reports]
    if any(grade in {Grade.INVALID, Grade.UNLOADABLE} for grade in grades):
        return CheckpointError.exit_code
    if fail_under and not all(at_least(grade, Grade(fail_under)) for grade in grades):
        return 1
    return 0
