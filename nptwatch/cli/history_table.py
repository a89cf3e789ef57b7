"""How a run's checkpoints are shown: a table with the curve below it, or CSV."""

from __future__ import annotations

import csv
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from nptwatch.cli.curve import mse_line
from nptwatch.cli.screen import Column, number, plain
from nptwatch.store.records import HistoryRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.cli.screen import Screen

MSE_DIGITS, COSINE_DIGITS = 4, 4
_DONE = "done"
_ROOM_FOR_ALL = 90
"""Columns of a terminal that has room for FULL and MEASURED."""

_SHORT = {"PARTIALLY_READY": "PARTIAL"}
_LEGEND = "MSE, COSINE and GRADE: of the quick prompts. FULL: verdict and mean score."


def print_history(rows: Sequence[HistoryRow], screen: Screen) -> None:
    """Print a table of checkpoints; reasons stand below it on a terminal, else in the rows."""
    columns = {
        Column(title="STEP", right=True): [row.step for row in rows],
        Column(title="CHECKPOINT", shrinks=True): [checkpoint_name(row) for row in rows],
        Column(title="STATE"): [row.state for row in rows],
        Column(title="MSE", right=True): [number(row.mse, MSE_DIGITS) for row in rows],
        Column(title="COSINE", right=True): [number(row.cosine, COSINE_DIGITS) for row in rows],
        Column(title="GRADE"): [row.grade for row in rows],
    }
    full = [full_text(row) for row in rows]
    if any(full):
        columns[Column(title="FULL")] = full
    if not any(full) or screen.width is None or screen.width >= _ROOM_FOR_ALL:
        columns[Column(title="MEASURED")] = [screen.when(row.measured_at) for row in rows]
    if screen.width is None and any(row.reason for row in rows):
        columns[Column(title="REASON")] = [row.reason for row in rows]
    screen.table([*columns], [*zip(*columns.values(), strict=True)])
    if screen.width is not None:
        _print_reasons(rows, screen)
    below = [_LEGEND] if any(full) else []
    below += [line] if (line := mse_line(rows, screen)) is not None else []
    if below:
        screen.say("\n" + "\n".join(below))


def _print_reasons(rows: Sequence[HistoryRow], screen: Screen) -> None:
    for row in rows:
        if row.reason:
            name = f"step {row.step}" if row.step is not None else checkpoint_name(row)
            screen.say(f"{name} {screen.painted(row.state)}: {row.reason}")


def checkpoint_name(row: HistoryRow) -> str:
    """Name a checkpoint by its folder, with the folders that hold copies of it."""
    return " = ".join(Path(path).parent.name for path in (row.path, *row.also))


def full_text(row: HistoryRow) -> str | None:
    """Say what the full diagnostic found, or how far its job is; None where nobody asked."""
    if row.overall_status is None:
        return None if row.full_state in {None, _DONE} else row.full_state
    verdict = _SHORT.get(row.overall_status, row.overall_status)
    return verdict if row.avg_score is None else f"{verdict} {row.avg_score:.2f}"


def write_csv(rows: Sequence[HistoryRow], out: TextIO) -> None:
    """Write RFC 4180: all fields by name, times in UTC, copies' paths parted by colons."""
    names = [field.name for field in fields(HistoryRow)]
    table = csv.writer(out)
    table.writerow(names)
    for row in rows:
        table.writerow([_csv_cell(getattr(row, name)) for name in names])


def _csv_cell(value: object) -> object:
    return ":".join(value) if isinstance(value, tuple) else plain(value)
