"""What a measured checkpoint's result and its JSON report say, and how it was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nptwatch.diagnostics.full_report import full_report, overall_status
from nptwatch.diagnostics.identity import DIAGNOSTICS_VERSION
from nptwatch.diagnostics.report import number, quick_report
from nptwatch.diagnostics.results import FullResult
from nptwatch.diagnostics.training_log import loss_finding, trainer_loss
from nptwatch.npt.opening import RESIDENT, STREAMED
from nptwatch.npt.streaming import StreamedBase
from nptwatch.store.records import Measured

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from nptwatch.diagnostics.report import Report
    from nptwatch.diagnostics.results import QuickResult
    from nptwatch.npt.base import BaseModel


def measured_on(
    base: BaseModel,
    *,
    gpu: tuple[str, str] | None = None,
    because: str | None = None,
    steps: Sequence[str] = (),
) -> dict[str, Any]:  # Any: free JSON
    """Say where and how a checkpoint was measured.

    Args:
        gpu: its name and UUID.
        because: why the base's layers are held so.
        steps: what was tried before, or waited for.
    """
    return {
        "device": str(base.device),
        "gpu": gpu and gpu[0],
        "gpu_uuid": gpu and gpu[1],
        "layers": STREAMED if isinstance(base, StreamedBase) else RESIDENT,
        "because": because,
        "steps": list(steps),
    }


def result_of(
    result: QuickResult | FullResult,
    base: BaseModel,
    path: Path,
    *,
    step: int | None,
    seconds: float,
    at: datetime,
    on: Mapping[str, Any],  # Any: free JSON
) -> Measured:
    """Give what is stored of a measurement."""
    quick = result.quick if isinstance(result, FullResult) else result
    score = result.avg_score if isinstance(result, FullResult) else None
    mean = quick.mean
    return Measured(
        grade=str(quick.grade),
        base_revision=base.revision,
        diagnostics_version=DIAGNOSTICS_VERSION,
        mse=number(mean.mse) if mean else None,
        cosine=number(mean.cosine) if mean else None,
        kl=number(mean.kl) if mean else None,
        top1_agreement=number(mean.top1_agreement) if mean else None,
        relative_mse=number(mean.relative_mse) if mean else None,
        perplexity_ratio=number(mean.perplexity_ratio) if mean else None,
        hidden_mse=number(mean.hidden_mse) if mean else None,
        residual=quick.residual,
        overall_status=None if score is None else overall_status(score),
        avg_score=score,
        error=quick.why or None,
        duration_seconds=seconds,
        measured_at=at,
        details=report_of(result, base, path, step, seconds, at, on),
    )


def report_of(
    result: QuickResult | FullResult,
    base: BaseModel,
    path: Path,
    step: int | None,
    seconds: float,
    at: datetime,
    on: Mapping[str, Any] | None = None,  # Any: free JSON
) -> Report:
    """Build the JSON report of a result, the trainer's own loss beside it."""
    quick = result.quick if isinstance(result, FullResult) else result
    loss = trainer_loss(path, step)
    more = loss_finding(loss, quick.mean.mse) if loss and quick.mean else None
    about: dict[str, Any] = {  # Any: keyword arguments
        "checkpoint": str(path),
        "model_name": base.name,
        "step": step,
        "device": str(base.device),
        "dtype": str(base.dtype).removeprefix("torch."),
        "total_seconds": seconds,
        "at": at,
        "base_revision": base.revision,
        "trainer": loss,
        "more_findings": [more] if more else [],
        "on": measured_on(base) if on is None else on,
    }
    if isinstance(result, FullResult):
        return full_report(result, **about)
    return quick_report(result, **about)
