"""Checkpoints side by side, as text and as JSON."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from nptwatch.cli.grid import Group, print_grid
from nptwatch.cli.screen import Column
from nptwatch.diagnostics.comparable import not_comparable
from nptwatch.diagnostics.comparing import (
    Row,
    Scale,
    Section,
    compare_reports,
    has_tests,
    letter,
    shared_findings,
)
from nptwatch.diagnostics.report_fields import at, word_at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nptwatch.cli.compared import Checkpoint
    from nptwatch.cli.screen import Screen

WIDEST_TEXT = 100
_LARGE = 1e5


def checkpoints_json(checkpoints: Sequence[Checkpoint]) -> dict[str, object]:
    """Give the comparison as JSON has it; lists are in the order of the checkpoints."""
    reports = [checkpoint.report for checkpoint in checkpoints]
    return {
        "kind": "checkpoints",
        "checkpoints": [
            {
                "name": letter(place),
                "path": checkpoint.path,
                "source": checkpoint.source,
                "measured_at": checkpoint.measured_at or word_at(checkpoint.report, "timestamp"),
                **{
                    key: at(checkpoint.report, key)
                    for key in ("step", "profile", "grade", "residual")
                },
            }
            for place, checkpoint in enumerate(checkpoints)
        ],
        "warnings": not_comparable(reports),
        "sections": {
            section.key: {row.key: _row_json(row, len(reports)) for row in section.rows}
            for section in compare_reports(reports)
            if section.key != "about"  # told for each checkpoint above
        },
        "findings": [
            {
                "code": finding.code,
                "text": finding.text,
                "checkpoints": [letter(place) for place in finding.places],
            }
            for finding in shared_findings(reports)
        ],
    }


def _row_json(row: Row, count: int) -> dict[str, object]:
    said: dict[str, object] = {}
    if row.words:
        said["words"] = row.words
    if row.scale is not Scale.WORD:
        said["values"] = row.values
        said["differences"] = [row.difference(place) for place in range(count)]
    if row.scale is Scale.RATIO:
        said["factors"] = [row.factor(place) for place in range(count)]
    return said


def print_checkpoints(checkpoints: Sequence[Checkpoint], screen: Screen) -> None:
    """Print who is who, what was measured of each and the differences against the first."""
    reports = [checkpoint.report for checkpoint in checkpoints]
    _print_names(checkpoints, screen)
    say_warnings(screen, not_comparable(reports))
    screen.say()
    sections = [section for section in compare_reports(reports) if not section.detail]
    head = Group(
        columns=(Column(title="MEASURE", shrinks=True), Column(title="A", right=True)),
        rows=_rows(sections, lambda row: (row.label, _value_text(row, 0)), titled=True),
    )
    later = [_later(sections, place) for place in range(1, len(reports))]
    print_grid(screen, head, later)
    _print_findings(screen, checkpoints)
    full = [has_tests(report) for report in reports]
    if any(full) and not all(full):
        without = ", ".join(letter(place) for place, has in enumerate(full) if not has)
        screen.say()
        screen.say(f"no full diagnostic of {without}: --profile full measures what is missing")


def _print_names(checkpoints: Sequence[Checkpoint], screen: Screen) -> None:
    columns = (
        Column(title=""),
        Column(title="FROM", shrinks=True),
        Column(title="CHECKPOINT", shrinks=True),  # the last is shortened first
    )
    rows = []
    for place, checkpoint in enumerate(checkpoints):
        when = screen.when(checkpoint.measured_at)
        source = f"{checkpoint.source}, {when}" if when else checkpoint.source
        rows.append((letter(place), source, checkpoint.path))
    screen.table(columns, rows)


def _later(sections: Sequence[Section], place: int) -> Group:
    name = letter(place)
    titles = (name, f"{name}-A", f"{name}/A")
    return Group(
        columns=tuple(Column(title=title, right=True) for title in titles),
        rows=_rows(
            sections,
            lambda row: (
                _value_text(row, place),
                _difference_text(row, place),
                factor_text(row.factor(place)),
            ),
        ),
    )


def _rows(
    sections: Sequence[Section],
    cells: Callable[[Row], tuple[str | None, ...]],
    *,
    titled: bool = False,
) -> list[tuple[str | None, ...]]:
    """Lay the sections out below each other, an empty line and a title between them."""
    rows: list[tuple[str | None, ...]] = []
    for section in sections:
        own = [cells(row) for row in section.rows]
        nothing = ("",) * len(own[0])
        if rows:
            rows += [nothing, (section.title, *nothing[1:]) if titled else nothing]
        rows += own
    return rows


def _value_text(row: Row, place: int) -> str | None:
    word = row.words[place] if row.words else None
    value = _fixed(row.values[place], row.digits) if row.values else None
    return " ".join(part for part in (word, value) if part) or None


def _difference_text(row: Row, place: int) -> str | None:
    if row.scale is Scale.WORD:
        return ""
    return _fixed(row.difference(place), row.digits, sign="+")


def factor_text(factor: float | None) -> str:
    """Write how many times as large; nothing where that says nothing."""
    return "" if factor is None else f"x{factor:#.3g}".rstrip(".")


def _fixed(value: float | None, digits: int, *, sign: str = "") -> str | None:
    if value is None:
        return None
    # z: a difference of rounding is no "-0.0000"
    return f"{value:{sign}z.{digits}f}" if abs(value) < _LARGE else f"{value:{sign}.3e}"


def say_warnings(screen: Screen, warnings: Sequence[str]) -> None:
    """Say what is wrong with the comparison, where its numbers are read."""
    for warning in warnings:
        _say_wrapped(screen, f"warning: {warning}", indent="  ")


def _print_findings(screen: Screen, checkpoints: Sequence[Checkpoint]) -> None:
    findings = shared_findings([checkpoint.report for checkpoint in checkpoints])
    if findings:
        screen.say()
        screen.say("FINDINGS")
    for finding in findings:
        who = ", ".join(letter(place) for place in finding.places)
        _say_wrapped(screen, f"{who}: {finding.code}: {finding.text}", indent="   ")


def _say_wrapped(screen: Screen, text: str, *, indent: str) -> None:
    lines = textwrap.wrap(
        text,
        width=min(screen.width or WIDEST_TEXT, WIDEST_TEXT),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    screen.say("\n".join(lines))
