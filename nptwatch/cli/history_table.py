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


def print_history(rows: Sequence[HistoryRow], screen: Screen) -> None:
    """Print a table of checkpoints; reasons stand below it on a terminal, else in the rows."""
    columns = [
        Column(title="STEP", right=True),
        Column(title="CHECKPOINT", shrinks=True),
        Column(title="STATE"),
        Column(title="MSE", right=True),
        Column(title="COSINE", right=True),
        Column(title="GRADE"),
        Column(title="MEASURED"),
    ]
    cells = [_cells(row, screen) for row in rows]
    if screen.width is None and any(row.reason for row in rows):
        columns.append(Column(title="REASON"))
        cells = [(*cell, row.reason) for cell, row in zip(cells, rows, strict=True)]
    screen.table(columns, cells)
    if screen.width is not None:
        _print_reasons(rows, screen)
    if (line := mse_line(rows, screen)) is not None:
        screen.say(f"\n{line}")


def _cells(row: HistoryRow, screen: Screen) -> tuple[object, ...]:
    return (
        row.step,
        checkpoint_name(row),
        row.state,
        number(row.mse, MSE_DIGITS),
        number(row.cosine, COSINE_DIGITS),
        row.grade,
        screen.when(row.measured_at),
    )


def _print_reasons(rows: Sequence[HistoryRow], screen: Screen) -> None:
    for row in rows:
        if row.reason:
            name = f"step {row.step}" if row.step is not None else checkpoint_name(row)
            screen.say(f"{name} {screen.painted(row.state)}: {row.reason}")


def checkpoint_name(row: HistoryRow) -> str:
    """Name a checkpoint by its folder, with the folders that hold copies of it."""
    return " = ".join(Path(path).parent.name for path in (row.path, *row.also))


def write_csv(rows: Sequence[HistoryRow], out: TextIO) -> None:
    """Write RFC 4180: all fields by name, times in UTC, copies' paths parted by colons."""
    names = [field.name for field in fields(HistoryRow)]
    table = csv.writer(out)
    table.writerow(names)
    for row in rows:
        table.writerow([_csv_cell(getattr(row, name)) for name in names])


def _csv_cell(value: object) -> object:
    return ":".join(value) if isinstance(value, tuple) else plain(value)
