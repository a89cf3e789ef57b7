"""A quick report -> text with the guide's headings and labels. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nptwatch.diagnostics.text_blocks import (
    Style,
    about_lines,
    accuracy_lines,
    finding_lines,
    fixed,
    percent,
    title,
    trainer_lines,
    wrapped,
)

if TYPE_CHECKING:
    from nptwatch.diagnostics.report import Report


def quick_text(report: Report, *, verbose: bool = False, emoji: bool = False) -> str:
    """Return the report for people; its labels are those that the guide greps for."""
    style = Style(emoji=emoji)
    lines = [
        title("NPT QUICK DIAGNOSTIC"),
        *about_lines(report),
        *accuracy_lines(report, style),
        *trainer_lines(report),
        *_status_lines(report, style),
        *(_detail_lines(report) if verbose else ()),
    ]
    return "\n".join(lines) + "\n"


def _status_lines(report: Report, style: Style) -> list[str]:
    readiness = report["readiness"]
    lines = ["", "OVERALL STATUS:"]
    if report["grade"] is None:
        return [*lines, f"   Not graded: {readiness['reason']}. {readiness['recommendation']}"]
    return [
        *lines,
        f"   Grade: {style.marked(report['grade'])}",
        f"   Readiness: {'READY' if readiness['ready'] else 'NOT READY'} "
        f"(confidence {readiness['confidence']:.0%})",
        *wrapped(f"Reason: {readiness['reason']}"),
        *wrapped(f"Recommendation: {readiness['recommendation']}"),
        *finding_lines(report),
    ]


def _detail_lines(report: Report) -> list[str]:
    accuracy = report["accuracy"]
    lines = ["", "DETAILED RESULTS:"]
    pairs = zip(accuracy["individual_mse"], accuracy["individual_cosine"], strict=True)
    lines += [
        f"   prompt {n}: MSE {fixed(m, 6)}  cosine {fixed(c, 6)}"
        for n, (m, c) in enumerate(pairs, 1)
    ]
    for rule, mse in report["residual_mse"].items():
        lines.append(f"   residual {rule}: MSE {fixed(mse, 6)}")
    for name in ("perplexity_ratio", "hidden_mse"):
        if accuracy[name] is not None:
            lines.append(f"   {name}: {accuracy[name]:.6f}")
    local = {own["layer"]: own for own in report.get("local_errors", ())}
    for layer in report["diagnostic"]["layers"]:
        shape = f"{layer['kind']} R={layer['rank']} K={layer['num_ranks']}"
        lines.append(f"   layer {layer['layer']}: {shape}{_local(local.get(layer['layer']))}")
    return lines


def _local(own: Report | None) -> str:
    """Say how far a layer is from the base's when both are fed the same."""
    if own is None or own["mse"] is None:
        return ""
    return f"; local error {fixed(own['mse'], 6)}, {percent(own['relative'])} of its update"
