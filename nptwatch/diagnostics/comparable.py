"""Whether the numbers of several reports may be compared at all. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nptwatch.diagnostics.comparing import letter
from nptwatch.diagnostics.report_fields import list_at, number_at, word_at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nptwatch.diagnostics.report import Report


def not_comparable(reports: Sequence[Report]) -> list[str]:
    """Say why the numbers do not compare: what they were measured against, or how, differs."""
    graded = [(letter(n), report) for n, report in enumerate(reports) if _measured(report)]
    # a folder and a hub name may be one base: the names count only where a revision is unknown
    revisions = all(word_at(report, "base_revision") for _, report in graded)
    facts: dict[str, Callable[[Report], str | None]] = {
        "base models": lambda report: _base(report, by_revision=revisions),
        "residual rules": lambda report: word_at(report, "residual"),
        "probe texts": _probes,
        "diagnostics versions": lambda report: word_at(report, "diagnostics_version"),
        "numeric types": lambda report: word_at(report, "diagnostic", "model_info", "dtype"),
    }
    said = []
    for what, fact in facts.items():
        known = {name: value for name, report in graded if (value := fact(report)) is not None}
        if len(set(known.values())) > 1:
            which = ", ".join(f"{name} {value}" for name, value in known.items())
            said.append(f"the numbers are not comparable, {what} differ: {which}")
    return said


def _measured(report: Report) -> bool:
    return number_at(report, "accuracy", "avg_mse") is not None


def _base(report: Report, *, by_revision: bool) -> str | None:
    if by_revision:
        return word_at(report, "base_revision")
    return word_at(report, "diagnostic", "model_info", "base_model")


def _probes(report: Report) -> str | None:
    if "probe_texts" not in report:
        return None
    texts = [str(text) for text in list_at(report, "probe_texts")]
    return f"{texts}" if texts else "the guide's"
