"""Runs side by side, step by step, as text, JSON and CSV."""

from __future__ import annotations

import csv
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from nptwatch.cli.compare_checkpoints import factor_text, say_warnings
from nptwatch.cli.grid import Group, print_grid
from nptwatch.cli.screen import Column, as_mapping, number, sparkline
from nptwatch.diagnostics.comparable import not_comparable
from nptwatch.diagnostics.comparing import letter
from nptwatch.diagnostics.curves import steps_of, tally
from nptwatch.diagnostics.grading import Grade

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.cli.screen import Screen
    from nptwatch.diagnostics.curves import Curve, Point

_DIGITS = 4
_WIDTH = 80
_CSV_FIELDS = ("mse", "cosine", "kl", "grade")


def runs_json(curves: Sequence[Curve]) -> dict[str, object]:
    """Give the comparison as JSON has it; lists are in the order of the runs."""
    return {
        "kind": "runs",
        "runs": [_run_json(place, curve, curves[0]) for place, curve in enumerate(curves)],
        "warnings": warnings_of(curves),
        "steps": [
            {
                "step": step,
                "values": [_measured(curve.at(step)) for curve in curves],
                "differences": [_differences(curve, curves[0], step) for curve in curves],
            }
            for step in steps_of(curves)
        ],
    }


def _run_json(place: int, curve: Curve, first: Curve) -> dict[str, object]:
    return {
        "name": letter(place),
        "run": curve.name,
        "source": curve.source,
        "measured": len(curve.points),
        "newest": curve.points[-1] if curve.points else None,
        "best": curve.best(),
        "first_good_step": curve.first_at_least(Grade.GOOD),
        "against_first": tally(curve, first) if place else None,
    }


def _measured(point: Point | None) -> dict[str, object] | None:
    if point is None:
        return None
    return {name: value for name, value in as_mapping(point).items() if name != "step"}


def _differences(curve: Curve, first: Curve, step: int) -> dict[str, float | None] | None:
    if curve is first:
        return None
    own, other = curve.at(step), first.at(step)
    if own is None or other is None:
        return {"mse": None, "cosine": None}
    return {"mse": _minus(own.mse, other.mse), "cosine": _minus(own.cosine, other.cosine)}


def _minus(value: float | None, first: float | None) -> float | None:
    return None if value is None or first is None else value - first


def warnings_of(curves: Sequence[Curve]) -> list[str]:
    """Say why the runs do not compare."""
    return not_comparable([curve.sample for curve in curves])


def write_csv(curves: Sequence[Curve], out: TextIO) -> None:
    """Write a line for each step, RFC 4180: what each run has there, then its MSE minus A's."""
    twice = Counter(curve.name for curve in curves)
    names = [curve.name if twice[curve.name] == 1 else curve.source for curve in curves]
    table = csv.writer(out)
    later = range(1, len(curves))
    table.writerow(
        [
            "step",
            *(f"{name} {field}" for name in names for field in _CSV_FIELDS),
            *(f"{names[place]} mse difference" for place in later),
        ]
    )
    for step in steps_of(curves):
        points = [curve.at(step) for curve in curves]
        values = [point and getattr(point, field) for point in points for field in _CSV_FIELDS]
        differences = [_differences(curves[place], curves[0], step) for place in later]
        table.writerow([step, *values, *(held and held["mse"] for held in differences)])


def print_runs(curves: Sequence[Curve], screen: Screen) -> None:
    """Print each run's facts, the steps side by side, and each run's line of MSE."""
    _print_names(curves, screen)
    say_warnings(screen, warnings_of(curves))
    screen.say()
    steps = steps_of(curves)
    first = curves[0]
    head = Group(
        columns=(Column(title="STEP", right=True), *_columns("A")),
        rows=[(str(step), *_cells(first.at(step))) for step in steps],
    )
    print_grid(screen, head, [_later(curves, place, steps) for place in range(1, len(curves))])
    screen.say()
    _print_curves(curves, screen)


def _print_names(curves: Sequence[Curve], screen: Screen) -> None:
    columns = (
        Column(title=""),
        Column(title="RUN", shrinks=True),
        Column(title="STEPS", right=True),
        Column(title="NEWEST", right=True),
        Column(title="GRADE"),
        Column(title="BEST MSE", right=True),
        Column(title="AT STEP", right=True),
        Column(title="FIRST GOOD", right=True),
    )
    rows = []
    for place, curve in enumerate(curves):
        newest, best = curve.points[-1] if curve.points else None, curve.best()
        rows.append(
            (
                letter(place),
                curve.name,
                len(curve.points),
                newest and newest.step,
                newest and newest.grade,
                best and number(best.mse, _DIGITS),
                best and best.step,
                curve.first_at_least(Grade.GOOD),
            )
        )
    screen.table(columns, rows)


def _columns(name: str) -> tuple[Column, ...]:
    return (
        Column(title=f"{name} MSE", right=True),
        Column(title=f"{name} COS", right=True),
        Column(title=f"{name} GRADE"),
    )


def _cells(point: Point | None) -> tuple[str | None, ...]:
    if point is None:
        return (None, None, None)
    return (number(point.mse, _DIGITS), number(point.cosine, _DIGITS), point.grade)


def _later(curves: Sequence[Curve], place: int, steps: Sequence[int]) -> Group:
    name, curve = letter(place), curves[place]
    rows = []
    for step in steps:
        minus = _differences(curve, curves[0], step) or {}
        rows.append(
            (*_cells(curve.at(step)), _signed(minus.get("mse")), _signed(minus.get("cosine")))
        )
    minuses = (
        Column(title=f"{name}-A MSE", right=True),
        Column(title=f"{name}-A COS", right=True),
    )
    return Group(columns=(*_columns(name), *minuses), rows=rows)


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+z.{_DIGITS}f}"


def _print_curves(curves: Sequence[Curve], screen: Screen) -> None:
    """Print each run's MSE as a line of its own scale, and how the later ones did against A."""
    for place, curve in enumerate(curves):
        mses = [point.mse for point in curve.points if point.mse is not None]
        if mses:
            ends = f"MSE {mses[0]:.{_DIGITS}f} to {mses[-1]:.{_DIGITS}f}"
            room = (screen.width or _WIDTH) - len(f"{letter(place)}  {ends}  ")
            line = sparkline(mses, room, unicode=screen.unicode)
            screen.say(f"{letter(place)}  {line}  {ends}")
    for place, curve in enumerate(curves[1:], 1):
        against = tally(curve, curves[0])
        name = letter(place)
        if not against.steps:
            screen.say(f"{name} against A: no step is measured in both")
            continue
        mean = factor_text(against.factor)
        screen.say(
            f"{name} against A: MSE lower at {against.lower} of {against.steps} steps that both"
            f" have{f', {mean} in the mean' if mean else ''}"
        )
