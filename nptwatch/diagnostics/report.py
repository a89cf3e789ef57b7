"""A result -> JSON with the original scripts' keys, text with the guide's headings. No torch."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nptwatch.diagnostics.grading import (
    TARGET_MSE,
    Grade,
    direction_status,
    loss_status,
    progress_of,
    readiness_of,
)
from nptwatch.settings import QUICK

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from nptwatch.diagnostics.grading import Finding
    from nptwatch.diagnostics.results import QuickResult
    from nptwatch.diagnostics.training_log import TrainerLoss
    from nptwatch.npt.layout import Layout

Report = dict[str, Any]  # Any: free JSON

WIDTH = 60


def number(value: float | None) -> float | None:
    """JSON has no NaN or infinity: what was not measured is null."""
    return value if value is not None and math.isfinite(value) else None


def layers_report(layout: Layout) -> list[Report]:
    """Describe each layer: index, kind, R, K."""
    return [
        {"layer": la.index, "kind": str(la.kind), "rank": la.rank, "num_ranks": la.num_ranks}
        for la in layout.layers
    ]


def quick_report(
    result: QuickResult,
    *,
    checkpoint: str,
    model_name: str,
    step: int | None,
    device: str,
    dtype: str,
    total_seconds: float,
    at: datetime,
    trainer: TrainerLoss | None = None,
    more_findings: Sequence[Finding] = (),
) -> Report:
    """Return the quick diagnostic's JSON: the original's keys and ours beside them.

    Args:
        total_seconds: loading of the base included, where it was loaded for this.
        trainer: the trainer's own loss at this step.
    """
    mean = result.mean
    layers = [layer.index for layer in result.layout.layers]
    issues = [result.why] if result.why else []
    return {
        "profile": QUICK,
        "checkpoint": checkpoint,
        "step": step,
        "diagnostic": {
            "status": "success",
            "load_time": result.load_seconds,
            "npt_layers": layers,
            "num_npt_layers": len(layers),
            "mse_between_modes": number(mean.mse) if mean else None,
            "issues": issues,
            "model_info": {"device": device, "dtype": dtype, "base_model": model_name},
            "num_parameters": result.layout.num_parameters,
            "layers": layers_report(result.layout),
        },
        "accuracy": _accuracy(result),
        "readiness": _readiness(result),
        "progress": _progress(result),
        "grade": str(result.grade) if result.grade else None,
        "residual": result.residual,
        "residual_mse": {rule: number(mse) for rule, mse in result.residual_mse.items()},
        "local_errors": [
            {"layer": own.layer, "mse": number(own.mse), "relative": number(own.relative)}
            for own in result.local
        ],
        "trainer_loss": asdict(trainer) if trainer else None,
        "findings": [{"code": f.code, "text": f.text} for f in (*result.findings, *more_findings)],
        "timestamp": at.isoformat(),
        "sweep_time": result.sweep_seconds,
        "total_time": total_seconds,
    }


def error_report(checkpoint: str, step: int | None, error: Exception, at: datetime) -> Report:
    """Return the report of a checkpoint that cannot be measured: the same keys, all null."""
    nothing = dict.fromkeys(("avg_mse", "avg_cosine_similarity"))
    return {
        "checkpoint": checkpoint,
        "step": step,
        "diagnostic": {"status": "error", "error": str(error), "issues": [str(error)]},
        "accuracy": {**nothing, "individual_mse": [], "individual_cosine": []},
        "readiness": asdict(readiness_of(Grade.UNLOADABLE, None, None, str(error))),
        "progress": {
            "progress_estimate": None,
            "remaining_work": None,
            "current_mse": None,
            "target_mse": TARGET_MSE,
        },
        "grade": str(Grade.UNLOADABLE),
        "findings": [],
        "timestamp": at.isoformat(),
    }


def _accuracy(result: QuickResult) -> Report:
    mean = result.mean
    return {
        "avg_mse": number(mean.mse) if mean else None,
        "avg_cosine_similarity": number(mean.cosine) if mean else None,
        "individual_mse": [score.mse for score in result.scores],
        "individual_cosine": [score.cosine for score in result.scores],
        "kl": number(mean.kl) if mean else None,
        "top1_agreement": number(mean.top1_agreement) if mean else None,
        "relative_mse": number(mean.relative_mse) if mean else None,
        "perplexity_ratio": number(mean.perplexity_ratio) if mean else None,
        "hidden_mse": number(mean.hidden_mse) if mean else None,
    }


def _readiness(result: QuickResult) -> Report:
    if result.grade is None:
        return {
            "ready": None,
            "confidence": None,
            "reason": "accuracy not measured",
            "recommendation": "Run again without --no_accuracy for a verdict",
        }
    mean = result.mean
    words = readiness_of(
        result.grade, mean.mse if mean else None, mean.cosine if mean else None, result.why
    )
    return asdict(words)


def _progress(result: QuickResult) -> Report:
    mse = result.mean.mse if result.mean else None
    words = progress_of(mse) if mse is not None else None
    return {
        "progress_estimate": words.estimate if words else None,
        "remaining_work": words.remaining if words else None,
        "current_mse": number(mse),
        "target_mse": TARGET_MSE,
    }


_EMOJI = {
    "EXCELLENT": "\N{GLOWING STAR}",
    "GOOD": "\N{WHITE HEAVY CHECK MARK}",
    "FAIR": "\N{WARNING SIGN}",
    "MODERATE": "\N{WARNING SIGN}",
    "POOR": "\N{CROSS MARK}",
    "INVALID": "\N{CROSS MARK}",
    "ACCURACY METRICS": "\N{BAR CHART}",
    "TRAINING PROGRESS": "\N{CHART WITH UPWARDS TREND}",
}


def quick_text(report: Report, *, verbose: bool = False, emoji: bool = False) -> str:
    """Return the report for people; its labels are those that the guide greps for."""

    def marked(word: str) -> str:
        return f"{word} {_EMOJI[word]}" if emoji and word in _EMOJI else word

    def heading(word: str) -> str:
        return f"{_EMOJI[word]} {word}:" if emoji else f"{word}:"

    lines = [_title("NPT QUICK DIAGNOSTIC"), *_about(report)]
    accuracy, progress = report["accuracy"], report["progress"]
    if accuracy["avg_mse"] is not None:
        mse, cosine = accuracy["avg_mse"], accuracy["avg_cosine_similarity"]
        direction = direction_status(cosine)
        lines += [
            "",
            heading("ACCURACY METRICS"),
            f"   MSE Loss: {mse:.6f}",
            f"   Cosine Similarity: {cosine:.4f}",
            f"   Loss Status: {marked(loss_status(mse))}",
            f"   Direction Status: {marked('MODERATE' if direction is Grade.FAIR else direction)}",
            f"   KL: {accuracy['kl']:.4f} nats/token   Same top token: "
            f"{accuracy['top1_agreement']:.0%}   Relative MSE: {accuracy['relative_mse']:.4f}",
            "",
            heading("TRAINING PROGRESS"),
            f"   Estimated Progress: {progress['progress_estimate']:.1%}",
            f"   Remaining Work: {progress['remaining_work']}",
        ]
    elif report["grade"] is None:
        lines += ["", heading("ACCURACY METRICS"), "   MSE Loss: accuracy not measured"]
    lines += _trainer_lines(report)
    lines += _status_lines(report, marked)
    if verbose:
        lines += _detail_lines(report)
    return "\n".join(lines) + "\n"


def _title(text: str) -> str:
    return f"{'=' * WIDTH}\n{text}\n{'=' * WIDTH}"


def _about(report: Report) -> list[str]:
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
        ("Device", f"{info['device']}, {info['dtype']}"),
        (
            "Load Time",
            f"{diagnostic['load_time']:.2f}s (total {report['total_time']:.2f}s)",
        ),
    ]
    return [f"{label + ':':<12} {value}" for label, value in rows]


def _trainer_lines(report: Report) -> list[str]:
    loss = report["trainer_loss"]
    if not loss:
        return []
    said = f"{loss['name']} {loss['value']:.6f} at step {loss['step']}: {loss['measures']}"
    return ["", "TRAINER'S OWN LOSS:", *_wrapped(said)]


def _status_lines(report: Report, marked: Any) -> list[str]:  # noqa: ANN401 - a closure
    readiness = report["readiness"]
    lines = ["", "OVERALL STATUS:"]
    if report["grade"] is None:
        return [*lines, f"   Not graded: {readiness['reason']}. {readiness['recommendation']}"]
    lines += [
        f"   Grade: {marked(report['grade'])}",
        f"   Readiness: {'READY' if readiness['ready'] else 'NOT READY'} "
        f"(confidence {readiness['confidence']:.0%})",
        *_wrapped(f"Reason: {readiness['reason']}"),
        *_wrapped(f"Recommendation: {readiness['recommendation']}"),
    ]
    for finding in report["findings"]:
        lines += _wrapped(f"{finding['code']}: {finding['text']}")
    return lines


def _wrapped(text: str) -> list[str]:
    """Break a sentence into lines that fit a terminal of 80 columns; paths stay whole."""
    return textwrap.wrap(
        text,
        width=78,
        initial_indent="   ",
        subsequent_indent="      ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _detail_lines(report: Report) -> list[str]:
    accuracy = report["accuracy"]
    lines = ["", "DETAILED RESULTS:"]
    pairs = zip(accuracy["individual_mse"], accuracy["individual_cosine"], strict=True)
    lines += [f"   prompt {n}: MSE {m:.6f}  cosine {c:.6f}" for n, (m, c) in enumerate(pairs, 1)]
    for rule, mse in report["residual_mse"].items():
        lines.append(f"   residual {rule}: MSE {mse:.6f}")
    for name in ("perplexity_ratio", "hidden_mse"):
        if accuracy[name] is not None:
            lines.append(f"   {name}: {accuracy[name]:.6f}")
    for layer in report["diagnostic"]["layers"]:
        lines.append(
            f"   layer {layer['layer']}: {layer['kind']} R={layer['rank']} K={layer['num_ranks']}"
        )
    return lines
