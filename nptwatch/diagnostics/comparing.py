"""Reports side by side: what two or more of them say of the same things. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from nptwatch.diagnostics.report_fields import at, list_at, number_at, word_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.diagnostics.report import Report


class Scale(StrEnum):
    """How two values of a row compare."""

    RATIO = "ratio"  # an error, 0 is best: the difference, and how many times as large
    LINEAR = "linear"  # the difference only
    WORD = "word"  # nothing to subtract


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measure of all reports.

    Attributes:
        values: a number for each report, None where it has none.
        words: said instead of the number, or before it; empty for a row of plain numbers.
        digits: after the decimal point.
    """

    key: str
    label: str
    scale: Scale
    values: tuple[float | None, ...] = ()
    words: tuple[str | None, ...] = ()
    digits: int = 4

    def difference(self, index: int) -> float | None:
        """Subtract the first report's value; None for the first and where one is missing."""
        first, value = self._pair(index)
        return None if first is None or value is None else value - first

    def factor(self, index: int) -> float | None:
        """Divide by the first report's value; None where that says nothing."""
        first, value = self._pair(index)
        if self.scale is not Scale.RATIO or first is None or value is None or first <= 0:
            return None
        return value / first

    def _pair(self, index: int) -> tuple[float | None, float | None]:
        if index == 0 or self.scale is Scale.WORD:
            return None, None
        return self.values[0], self.values[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Rows that belong together.

    Attributes:
        detail: for programs; too long for a table.
    """

    key: str
    title: str
    rows: tuple[Row, ...]
    detail: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFinding:
    """A finding with the reports that have it, by their place."""

    code: str
    text: str
    places: tuple[int, ...]


def letter(place: int) -> str:
    """Name the reports A, B, ... Z, AA, AB, ..."""
    before, here = divmod(place, 26)
    return (letter(before - 1) if before else "") + chr(ord("A") + here)


def has_tests(report: Report) -> bool:
    """Tell whether it is a full diagnostic's report."""
    return bool(_tests(report))


def compare_reports(reports: Sequence[Report]) -> list[Section]:
    """Return what there is to compare, in reading order; sections without numbers are left out."""
    found = [
        Section(key="about", title="CHECKPOINT", rows=_about(reports)),
        Section(key="accuracy", title="ACCURACY METRICS", rows=_accuracy(reports)),
        *_local(reports),
    ]
    if sum(has_tests(report) for report in reports) > 1:
        found += [
            Section(key="tests", title="TEST RESULTS", rows=_test_rows(reports)),
            Section(key="full", title="FULL DIAGNOSTIC", rows=_full_rows(reports)),
            _alone(reports),
        ]
    return [section for section in found if section.rows]


def shared_findings(reports: Sequence[Report]) -> list[SharedFinding]:
    """Collect the findings; equal ones of several reports become one."""
    places: dict[tuple[str, str], list[int]] = {}
    for place, report in enumerate(reports):
        for finding in list_at(report, "findings"):
            said = (word_at(finding, "code") or "?", word_at(finding, "text") or "")
            places.setdefault(said, []).append(place)
    return [
        SharedFinding(code=code, text=text, places=tuple(dict.fromkeys(held)))
        for (code, text), held in places.items()
    ]


def _about(reports: Sequence[Report]) -> tuple[Row, ...]:
    labels = {"step": "Step", "profile": "Profile", "grade": "Grade", "residual": "Residual rule"}
    rows = [
        Row(
            key=key,
            label=label,
            scale=Scale.WORD,
            words=tuple(word_at(report, key) for report in reports),
        )
        for key, label in labels.items()
    ]
    counts = tuple(word_at(report, "diagnostic", "num_npt_layers") for report in reports)
    return (*rows, Row(key="npt_layers", label="NPT layers", scale=Scale.WORD, words=counts))


_ACCURACY = (
    ("mse", "avg_mse", "MSE Loss", Scale.RATIO, 6),
    ("cosine", "avg_cosine_similarity", "Cosine Similarity", Scale.LINEAR, 4),
    ("kl", "kl", "KL (nats/token)", Scale.RATIO, 4),
    ("top1_agreement", "top1_agreement", "Same top token", Scale.LINEAR, 4),
    ("relative_mse", "relative_mse", "Relative MSE", Scale.RATIO, 4),
    ("perplexity_ratio", "perplexity_ratio", "Perplexity ratio", Scale.LINEAR, 4),
    ("hidden_mse", "hidden_mse", "Hidden MSE", Scale.RATIO, 6),
)


def _accuracy(reports: Sequence[Report]) -> tuple[Row, ...]:
    rows = [
        Row(
            key=key,
            label=label,
            scale=scale,
            digits=digits,
            values=tuple(number_at(report, "accuracy", name) for report in reports),
        )
        for key, name, label, scale, digits in _ACCURACY
    ]
    progress = tuple(number_at(report, "progress", "progress_estimate") for report in reports)
    trainer = tuple(number_at(report, "trainer_loss", "value") for report in reports)
    rows += [
        Row(
            key="progress",
            label="Estimated Progress",
            scale=Scale.LINEAR,
            digits=2,
            values=progress,
        ),
        Row(
            key="trainer_loss",
            label="Trainer's own loss",
            scale=Scale.RATIO,
            digits=6,
            values=trainer,
        ),
    ]
    return _with_numbers(rows)


def _local(reports: Sequence[Report]) -> list[Section]:
    """Each layer's own error, fed the base's input."""

    def of(measure: str) -> list[dict[str, float | None]]:
        return [
            {
                word_at(own, "layer") or "?": number_at(own, measure)
                for own in list_at(report, "local_errors")
            }
            for report in reports
        ]

    return [
        Section(key="local_mse", title="LAYER'S OWN ERROR (MSE)", rows=_layers(of("mse"))),
        Section(
            key="local_relative",
            title="LAYER'S OWN ERROR, RELATIVE",
            rows=_layers(of("relative")),
            detail=True,
        ),
    ]


def _alone(reports: Sequence[Report]) -> Section:
    alone = []
    for report in reports:
        layers = at(_details(report, "Per-Layer Performance"), "layer_results")
        held = layers if isinstance(layers, Mapping) else {}
        alone.append({str(n): number_at(layer, "mse_loss") for n, layer in held.items()})
    return Section(key="alone_mse", title="LAYER ALONE (MSE)", rows=_layers(alone))


def _layers(by_report: Sequence[Mapping[str, float | None]]) -> tuple[Row, ...]:
    names = {name for layers in by_report for name in layers}
    ordered = sorted(names, key=lambda name: (not name.isdecimal(), name.zfill(6)))
    return _with_numbers(
        [
            Row(
                key=name,
                label=f"layer {name}",
                scale=Scale.RATIO,
                digits=6,
                values=tuple(layers.get(name) for layers in by_report),
            )
            for name in ordered
        ]
    )


def _test_rows(reports: Sequence[Report]) -> tuple[Row, ...]:
    verdicts = tuple(word_at(report, "summary", "overall_status") for report in reports)
    scores = tuple(number_at(report, "summary", "avg_score") for report in reports)
    rows = [
        Row(key="overall_status", label="Overall status", scale=Scale.WORD, words=verdicts),
        Row(
            key="avg_score",
            label="Average score",
            scale=Scale.LINEAR,
            digits=2,
            values=scores,
        ),
    ]
    # five tests, or two with --quick: all that any of them has
    names = dict.fromkeys(name for report in reports for name in _tests(report))
    for name in names:
        held = [_tests(report).get(name) for report in reports]
        rows.append(
            Row(
                key=name,
                label=name.replace("Layer Activation", "Activation"),
                scale=Scale.LINEAR,
                digits=1,
                values=tuple(number_at(test, "score") for test in held),
                words=tuple(word_at(test, "status") for test in held),
            )
        )
    return tuple(rows)


_FULL = (
    ("standard_mse", "NPT vs Standard Mode", "avg_mse_standard_vs_original", "Standard mode MSE"),
    ("npt_mse", "NPT vs Standard Mode", "avg_mse_npt_vs_original", "NPT mode MSE"),
    ("final_mse", "Progressive Layer Activation", "final_mse", "Progressive, final MSE"),
    ("coherence", "Generation Quality", "avg_coherence", "Coherence"),
    ("similarity", "Generation Quality", "avg_similarity", "Similarity to the base"),
    ("greedy_prefix", "Generation Quality", "avg_greedy_common_prefix", "Greedy tokens in common"),
)


def _full_rows(reports: Sequence[Report]) -> tuple[Row, ...]:
    rows = []
    for key, test, name, label in _FULL:
        error = key.endswith("mse")
        rows.append(
            Row(
                key=key,
                label=label,
                scale=Scale.RATIO if error else Scale.LINEAR,
                digits=6 if error else 2,
                values=tuple(number_at(_details(report, test), name) for report in reports),
            )
        )
    return _with_numbers(rows)


def _with_numbers(rows: Sequence[Row]) -> tuple[Row, ...]:
    return tuple(row for row in rows if any(value is not None for value in row.values))


def _tests(report: Report) -> dict[str, Report]:
    return {
        name: test
        for test in list_at(report, "detailed_results")
        if (name := word_at(test, "test_name"))
    }


def _details(report: Report, test: str) -> Any:  # noqa: ANN401 - free JSON
    return at(_tests(report).get(test), "details")
