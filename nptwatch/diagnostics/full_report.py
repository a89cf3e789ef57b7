"""A full result -> JSON with the keys of the guide's comprehensive test. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nptwatch.diagnostics.full_tests import STANDARD
from nptwatch.diagnostics.report import error_report, number, quick_report
from nptwatch.diagnostics.results import TestStatus
from nptwatch.settings import FULL

if TYPE_CHECKING:
    from datetime import datetime

    from nptwatch.diagnostics.report import Report
    from nptwatch.diagnostics.results import FullResult, TestResult

READY_SCORE, PARTIALLY_READY_SCORE = 0.8, 0.6
KEY_RECOMMENDATIONS = 5

READINESS = {
    "READY": "Model appears ready for use",
    "PARTIALLY_READY": "Model partially ready, some issues remain",
    "NOT_READY": "Model needs significant improvement",
}


def overall_status(avg_score: float) -> str:
    """Turn the mean score of the tests into READY, PARTIALLY_READY or NOT_READY."""
    if avg_score > READY_SCORE:
        return "READY"
    return "PARTIALLY_READY" if avg_score > PARTIALLY_READY_SCORE else "NOT_READY"


def full_report(result: FullResult, **about: Any) -> Report:  # noqa: ANN401 - as quick_report
    """Return the full diagnostic's JSON: the quick one's, the original's keys, and ours.

    Args:
        about: all that `quick_report` takes beside the result; `more_findings` come last.
    """
    more = about.pop("more_findings", ())
    ours = result.findings[len(result.quick.findings) :]
    report = quick_report(result.quick, more_findings=(*ours, *more), **about)
    return {
        **report,
        "profile": FULL,
        "summary": _summary(result),
        "detailed_results": [_test(test) for test in result.tests],
        "seed": result.seed,
        "generation_time": result.generation_seconds,
    }


def full_error_report(checkpoint: str, step: int | None, error: Exception, at: datetime) -> Report:
    """Return the report of a checkpoint that cannot be measured: the same keys, nothing in them."""
    return {
        **error_report(checkpoint, step, error, at),
        "profile": FULL,
        "summary": {
            "overall_status": None,
            "readiness_assessment": str(error),
            "avg_score": None,
            "test_counts": dict.fromkeys(("total", "passed", "warnings", "failed"), 0),
            "npt_layers": [],
            "key_recommendations": [],
            "loss_guidance": _loss_guidance(None),
        },
        "detailed_results": [],
    }


def _summary(result: FullResult) -> Report:
    status = overall_status(result.avg_score)
    advice = dict.fromkeys(text for test in result.tests for text in test.recommendations)
    standard = next((test.details for test in result.tests if test.name == STANDARD), {})
    return {
        "overall_status": status,
        "readiness_assessment": READINESS[status],
        "avg_score": result.avg_score,
        "test_counts": {
            "total": len(result.tests),
            "passed": result.count(TestStatus.PASS),
            "warnings": result.count(TestStatus.WARNING),
            "failed": result.count(TestStatus.FAIL),
        },
        "npt_layers": [layer.index for layer in result.quick.layout.layers],
        "key_recommendations": list(advice)[:KEY_RECOMMENDATIONS],
        "loss_guidance": _loss_guidance(standard.get("avg_mse_npt_vs_original")),
    }


def _loss_guidance(mse: float | None) -> Report:
    return {
        "current_estimated_loss": number(mse),
        "target_loss_range": "0.01 - 0.1",
        "ready_threshold": "< 0.1",
    }


def _test(test: TestResult) -> Report:
    return {
        "test_name": test.name,
        "status": str(test.status),
        "score": test.score,
        "details": _finite(test.details),
        "recommendations": list(test.recommendations),
    }


def _finite(value: Any) -> Any:  # noqa: ANN401 - free JSON in and out
    """JSON has no NaN or infinity: what was not measured is null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return number(value) if isinstance(value, float) else value
