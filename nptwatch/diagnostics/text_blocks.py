"""The blocks that quick and full text share: the guide's headings and labels. No torch."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nptwatch.diagnostics.grading import Bounds, Grade, direction_status, loss_status
from nptwatch.diagnostics.report_fields import list_at, word_at

if TYPE_CHECKING:
    from nptwatch.diagnostics.report import Report

WIDTH = 60
"""Of rules; lines may have 80."""
WIDEST = 78
_TICK, _WARNING, _CROSS = "\N{WHITE HEAVY CHECK MARK}", "\N{WARNING SIGN}", "\N{CROSS MARK}"
_EMOJI = {
    "EXCELLENT": "\N{GLOWING STAR}",
    "GOOD": _TICK,
    "FAIR": _WARNING,
    "MODERATE": _WARNING,
    "POOR": _CROSS,
    "INVALID": _CROSS,
    "READY": _TICK,
    "PARTIALLY_READY": _WARNING,
    "NOT_READY": _CROSS,
    "PASS": _TICK,
    "WARNING": _WARNING,
    "FAIL": _CROSS,
    "ACCURACY METRICS": "\N{BAR CHART}",
    "TRAINING PROGRESS": "\N{CHART WITH UPWARDS TREND}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How words are shown.

    Attributes:
        emoji: whether they can be.
    """

    emoji: bool

    def marked(self, word: str) -> str:
        """Put the word's mark behind it."""
        return f"{word} {_EMOJI[word]}" if self.emoji and word in _EMOJI else word

    def heading(self, words: str) -> str:
        """Write a heading, its mark before it."""
        return f"{_EMOJI[words]} {words}:" if self.emoji and words in _EMOJI else f"{words}:"


def fixed(value: float | None, digits: int) -> str:
    """Write a number; a dash where it was not measured, or is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share; a dash where it was not measured."""
    return "-" if value is None else f"{value:.{digits}%}"


def title(text: str) -> str:
    """Write a title between two rules."""
    return f"{'=' * WIDTH}\n{text}\n{'=' * WIDTH}"


def about_lines(report: Report) -> list[str]:
    """Say what was measured, and how."""
    diagnostic = report["diagnostic"]
    info = diagnostic["model_info"]
    shapes = sorted(
        {f"{la['kind']} R={la['rank']} K={la['num_ranks']}" for la in diagnostic["layers"]}
    )
    rows = [
        ("Checkpoint", report["checkpoint"]),
        ("Step", "unknown" if report["step"] is None else str(report["step"])),
        ("Base Model", info["base_model"]),
        ("NPT Layers", f"{diagnostic['num_npt_layers']} {diagnostic['npt_layers']}"),
        ("Modulation", f"{'; '.join(shapes)}; {diagnostic['num_parameters']:,} parameters"),
        ("Residual", report["residual"] or "not measured"),
        ("Device", _device_in_words(report)),
        (
            "Load Time",
            f"{diagnostic['load_time']:.2f}s (total {report['total_time']:.2f}s)",
        ),
    ]
    lines = [f"{label + ':':<12} {value}" for label, value in rows]
    for step in list_at(report.get("measured_on"), "steps"):
        lines += textwrap.wrap(f"{'Because:':<12} {step}", WIDEST, subsequent_indent=" " * 13)
    return lines


def _device_in_words(report: Report) -> str:
    """Say where it was measured, in which dtype, and whether the base was too large for it."""
    info = report["diagnostic"]["model_info"]
    gpu, layers = (word_at(report, "measured_on", key) for key in ("gpu", "layers"))
    said = [f"{info['device']} ({gpu})" if gpu else info["device"], info["dtype"]]
    return ", ".join([*said, "streamed layers"] if layers == "streamed" else said)


def accuracy_lines(report: Report, style: Style) -> list[str]:
    """Give the accuracy on the quick prompts, and what the guide says it means for training."""
    accuracy, progress = report["accuracy"], report["progress"]
    if accuracy["avg_mse"] is None:
        if report["grade"] is not None:
            return []
        return ["", style.heading("ACCURACY METRICS"), "   MSE Loss: accuracy not measured"]
    mse, cosine = accuracy["avg_mse"], accuracy["avg_cosine_similarity"]
    bounds = Bounds(**report.get("grade_bounds", {}))
    fair = "MODERATE"  # the guide's word
    direction = str(direction_status(cosine, bounds)).replace(Grade.FAIR, fair)
    return [
        "",
        style.heading("ACCURACY METRICS"),
        f"   MSE Loss: {mse:.6f}",
        f"   Cosine Similarity: {cosine:.4f}",
        f"   Loss Status: {style.marked(loss_status(mse, bounds))}",
        f"   Direction Status: {style.marked(direction)}",
        f"   KL: {fixed(accuracy['kl'], 4)} nats/token   "
        f"Same top token: {percent(accuracy['top1_agreement'], 0)}   "
        f"Relative MSE: {fixed(accuracy['relative_mse'], 4)}",
        "",
        style.heading("TRAINING PROGRESS"),
        f"   Estimated Progress: {progress['progress_estimate']:.1%}",
        f"   Remaining Work: {progress['remaining_work']}",
    ]


def trainer_lines(report: Report) -> list[str]:
    """Show the trainer's own loss with what it measures."""
    loss = report["trainer_loss"]
    if not loss:
        return []
    said = f"{loss['name']} {loss['value']:.6f} at step {loss['step']}: {loss['measures']}"
    return ["", "TRAINER'S OWN LOSS:", *wrapped(said)]


def finding_lines(report: Report) -> list[str]:
    """Give each finding with its explanation."""
    return [
        line
        for finding in report["findings"]
        for line in wrapped(f"{finding['code']}: {finding['text']}")
    ]


def wrapped(text: str, indent: str = "   ") -> list[str]:
    """Break a sentence into lines that fit a terminal of 80 columns; paths stay whole."""
    return textwrap.wrap(
        text,
        width=WIDEST,
        initial_indent=indent,
        subsequent_indent=f"{indent}   ",
        break_long_words=False,
        break_on_hyphens=False,
    )
