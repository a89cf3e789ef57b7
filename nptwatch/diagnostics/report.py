"""A quick result -> JSON with the keys of the original script. No torch."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nptwatch.diagnostics.grading import TARGET_MSE, Grade, progress_of, readiness_of
from nptwatch.diagnostics.identity import DIAGNOSTICS_VERSION
from nptwatch.settings import QUICK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from nptwatch.diagnostics.grading import Finding
    from nptwatch.diagnostics.results import QuickResult
    from nptwatch.diagnostics.training_log import TrainerLoss
    from nptwatch.npt.layout import Layout

Report = dict[str, Any]  # Any: free JSON


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
    base_revision: str | None = None,
    trainer: TrainerLoss | None = None,
    more_findings: Sequence[Finding] = (),
    on: Mapping[str, Any] | None = None,  # Any: free JSON
) -> Report:
    """Return the quick diagnostic's JSON: the original's keys and ours beside them.

    Args:
        total_seconds: loading of the base included, where it was loaded for this.
        base_revision: content identity of the base.
        trainer: the trainer's own loss at this step.
        on: where and how it was measured.
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
        "base_revision": base_revision,
        "measured_on": None if on is None else dict(on),
        "diagnostics_version": DIAGNOSTICS_VERSION,
        "probe_texts": list(result.texts),
        "grade_bounds": asdict(result.bounds),
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
        "individual_mse": [number(score.mse) for score in result.scores],
        "individual_cosine": [number(score.cosine) for score in result.scores],
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
