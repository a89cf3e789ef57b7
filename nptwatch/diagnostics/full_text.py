"""A full report -> text with the headings of the guide's comprehensive test. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nptwatch.diagnostics.full_details import detail_lines
from nptwatch.diagnostics.text_blocks import (
    Style,
    about_lines,
    accuracy_lines,
    finding_lines,
    title,
    trainer_lines,
    wrapped,
)

if TYPE_CHECKING:
    from nptwatch.diagnostics.report import Report


def full_text(report: Report, *, detailed: bool = False, emoji: bool = False) -> str:
    """Return the report for people.

    Args:
        detailed: each test with all its numbers.
    """
    style = Style(emoji=emoji)
    lines = [
        title("NPT MODEL DIAGNOSTIC REPORT"),
        *about_lines(report),
        *_summary_lines(report["summary"], style),
        *_test_lines(report, style),
        *_loss_lines(report["summary"]),
        *accuracy_lines(report, style),
        *trainer_lines(report),
        *_grade_lines(report, style),
        *_advice_lines(report["summary"]),
    ]
    if detailed:
        lines += ["", "DETAILED TEST RESULTS:"]
        for number, test in enumerate(report["detailed_results"], 1):
            lines += detail_lines(number, test, style)
    return "\n".join(lines) + "\n"


def _summary_lines(summary: Report, style: Style) -> list[str]:
    return [
        "",
        f"OVERALL STATUS: {style.marked(summary['overall_status'])}",
        f"   Average Score: {summary['avg_score']:.2f}",
        f"   Readiness: {summary['readiness_assessment']}",
    ]


def _test_lines(report: Report, style: Style) -> list[str]:
    counts = report["summary"]["test_counts"]
    total = counts["total"]
    return [
        "",
        "TEST RESULTS:",
        f"   Passed: {counts['passed']}/{total}",
        f"   Warnings: {counts['warnings']}/{total}",
        f"   Failed: {counts['failed']}/{total}",
        *(
            f"   {test['score']:.2f}  {test['test_name']}: {style.marked(test['status'])}"
            for test in report["detailed_results"]
        ),
    ]


def _loss_lines(summary: Report) -> list[str]:
    guidance = summary["loss_guidance"]
    loss = guidance["current_estimated_loss"]
    estimated = "not measured" if loss is None else f"{loss:.4f} (NPT vs Standard Mode)"
    return [
        "",
        f"NPT LAYERS: {summary['npt_layers']}",
        "",
        "LOSS ANALYSIS:",
        f"   Current Estimated Loss: {estimated}",
        f"   Target Range: {guidance['target_loss_range']}",
        f"   Ready Threshold: {guidance['ready_threshold']}",
    ]


def _grade_lines(report: Report, style: Style) -> list[str]:
    """Give the grade, which is the quick diagnostic's, and all findings."""
    return [
        "",
        f"GRADE: {style.marked(report['grade'])}",
        *wrapped(report["readiness"]["reason"]),
        *wrapped(f"Recommendation: {report['readiness']['recommendation']}"),
        *finding_lines(report),
    ]


def _advice_lines(summary: Report) -> list[str]:
    advice = summary["key_recommendations"]
    if not advice:
        return []
    lines = ["", "KEY RECOMMENDATIONS:"]
    for number, text in enumerate(advice, 1):
        lines += wrapped(f"{number}. {text}")
    return lines
