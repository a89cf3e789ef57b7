"""`nptwatch quick`: measure checkpoints now, without a database."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nptwatch.cli.targets import base_named_by, weights_below
from nptwatch.diagnostics.grading import Grade, at_least
from nptwatch.diagnostics.report import error_report, quick_text
from nptwatch.errors import BaseModelError, CheckpointError, ConfigError
from nptwatch.logs import configure_logs
from nptwatch.npt.files import step_of
from nptwatch.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nptwatch.diagnostics.reference import References
    from nptwatch.diagnostics.report import Report
    from nptwatch.settings import Settings


def quick(
    path: Annotated[
        Path | None, typer.Argument(help="Checkpoint file, its folder, or a folder of checkpoints.")
    ] = None,
    *,
    checkpoint: Annotated[Path | None, typer.Option(help="The same, as an option.")] = None,
    model_name: Annotated[
        str | None,
        typer.Option(
            "--model-name",
            "--model_name",
            help="Base model: folder or hub name. Default: settings, else what the run names.",
        ),
    ] = None,
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
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the JSON report to this file.")
    ] = None,
    residual: Annotated[
        str | None, typer.Option(help="Residual rule: auto (lower MSE of both), keep or drop.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:<n>.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the JSON report instead of text.")
    ] = False,
    fail_under: Annotated[
        Grade | None,
        typer.Option(help="Exit with 1 if a grade is lower.", case_sensitive=False),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
) -> None:
    """Measure a checkpoint, or every checkpoint of a folder, against its base model.

    Exit code: 0 measured, 1 below --fail-under, 3 unloadable or invalid, 4 no base model.

    Example: nptwatch quick experiments/run/checkpoints/checkpoint-8000
    """
    configure_logs(level="warning")
    settings = load_settings(config, env=os.environ, overrides=_overrides(residual, device))
    target = _target(path, checkpoint)
    files = weights_below(target, settings.watch)
    session = _Session(settings=settings, model_name=model_name, accuracy=not no_accuracy)
    many = target.is_dir() and len(files) > 1
    reports = _measure_all(session, files, keep_going=many)
    _write(reports if many else reports[0], output)
    if as_json:
        print(json.dumps(reports if many else reports[0], indent=2))
    elif many:
        _print_table(reports)
    else:
        _print_one(reports[0], verbose=verbose)
    raise typer.Exit(_exit_code(reports, fail_under))


def _overrides(residual: str | None, device: str | None) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    if residual is not None:
        overrides["diagnostic"] = {"residual": residual}
    if device is not None:
        overrides["worker"] = {"device": device}
    return overrides


def _target(path: Path | None, checkpoint: Path | None) -> Path:
    named = path or checkpoint
    if named is None or (path and checkpoint):
        raise ConfigError("name one checkpoint: `nptwatch quick PATH` or `--checkpoint PATH`")
    return named.expanduser()


@dataclass(slots=True, kw_only=True)
class _Session:
    """One base model, loaded when the first checkpoint needs it, for all that follow."""

    settings: Settings
    model_name: str | None
    accuracy: bool
    _bases: dict[str, References] = field(default_factory=dict)

    def report(self, weights: Path) -> Report:
        """Measure one checkpoint."""
        # torch takes seconds to import: only when something is measured
        from nptwatch.diagnostics.quick import QuickDiagnostic
        from nptwatch.npt.layout import infer_layout
        from nptwatch.npt.memory import device_errors
        from nptwatch.npt.reader import read_checkpoint
        from nptwatch.worker.gpu import report_of

        started = time.perf_counter()
        max_bytes = self.settings.diagnostic.max_checkpoint_bytes
        checkpoint = read_checkpoint(weights, max_bytes=max_bytes)
        infer_layout(checkpoint.shapes)  # a bad file must not wait for its base to load
        references = self._references(self._base_name(weights))
        diagnostic = QuickDiagnostic(
            references=references, residual=self.settings.diagnostic.residual
        )
        with device_errors(references.base.device):
            result = diagnostic.measure(checkpoint, accuracy=self.accuracy)
        seconds = time.perf_counter() - started
        return report_of(
            result, references.base, weights, step_of(weights), seconds, datetime.now(UTC)
        )

    def _base_name(self, weights: Path) -> str:
        named = self.model_name or self.settings.base.model
        name = named or base_named_by(weights)
        if name is None:
            raise BaseModelError(
                f"{weights}: nobody names its base model (no config.json beside it or in its run); "
                "use --model-name, or set base.model in the settings"
            )
        return name

    def _references(self, name: str) -> References:
        from nptwatch.worker.gpu import load_references

        if name not in self._bases:
            self._bases.clear()  # never two bases in memory
            _say(f"loading base model {name}")
            self._bases[name] = load_references(self.settings, name)
        return self._bases[name]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _measure_all(session: _Session, files: list[Path], *, keep_going: bool) -> list[Report]:
    """Measure one after the other; of several, one that cannot be loaded does not stop the rest."""
    reports = []
    with _progress(len(files)) as advance:
        for file in files:
            try:
                reports.append(session.report(file))
            except CheckpointError as exc:
                _say(f"{file}: {exc}" if keep_going else f"error: {exc}")
                reports.append(error_report(str(file), step_of(file), exc, datetime.now(UTC)))
            advance(file)
    return reports


@contextmanager
def _progress(total: int) -> Iterator[Any]:  # Any: a callable, or rich's
    """A bar on a terminal, a line each elsewhere; nothing for a single file."""
    if total == 1:
        yield lambda _: None
        return
    if not sys.stderr.isatty():
        done = iter(range(1, total + 1))
        yield lambda file: _say(f"measured {next(done)}/{total} {file}")
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=total)
        yield lambda _: bar.advance(task)


def _write(content: Report | list[Report], output: Path | None) -> None:
    if output is None:
        return
    try:
        output.write_text(json.dumps(content, indent=2) + "\n")
    except OSError as exc:
        raise ConfigError(f"cannot write {output}: {exc.strerror}") from exc
    _say(f"report written to {output}")


def _print_one(report: Report, *, verbose: bool) -> None:
    if report["diagnostic"]["status"] == "error":
        return  # said on stderr already
    encoding = (sys.stdout.encoding or "").lower()
    emoji = sys.stdout.isatty() and encoding.startswith("utf")
    print(quick_text(report, verbose=verbose, emoji=emoji), end="")


def _print_table(reports: list[Report]) -> None:
    """One row each: step, name, MSE, cosine, grade, progress."""
    print(f"{'STEP':>9}  {'CHECKPOINT':<22} {'MSE LOSS':>10} {'COSINE':>8}  {'GRADE':<10} PROGRESS")
    for report in reports:
        accuracy = report["accuracy"]
        mse, cosine = accuracy["avg_mse"], accuracy["avg_cosine_similarity"]
        progress = report["progress"]["progress_estimate"]
        cells = (
            f"{'-' if report['step'] is None else report['step']:>9}",
            f" {Path(report['checkpoint']).parent.name[:22]:<22}",
            f"{'-' if mse is None else f'{mse:.6f}':>10}",
            f"{'-' if cosine is None else f'{cosine:.4f}':>8}",
            f" {report['grade'] or 'not graded':<10}",
            "-" if progress is None else f"{progress:.0%}",
        )
        print(" ".join(cells))


def _exit_code(reports: list[Report], fail_under: Grade | None) -> int:
    grades = [report["grade"] for report in reports]
    if any(grade in {Grade.INVALID, Grade.UNLOADABLE} for grade in grades):
        return CheckpointError.exit_code
    if fail_under and not all(at_least(grade, fail_under) for grade in grades):
        return 1
    return 0
