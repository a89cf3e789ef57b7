"""How things look: aligned tables, colours on a terminal only, JSON for programs.

No rich: its import would take a third of the time that `nptwatch status` may take.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

GAP = "  "
_KIBI = 1024
_BLOCKS, _ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=+*#"
NARROWEST = 12
"""A shortened cell keeps so many characters."""

_RED, _GREEN, _YELLOW, _CYAN, _DIM = 31, 32, 33, 36, 2
_COLOURS = {
    "OK": _GREEN,
    "WARN": _YELLOW,
    "FAIL": _RED,
    "EXCELLENT": _GREEN,
    "GOOD": _GREEN,
    "FAIR": _YELLOW,
    "POOR": _RED,
    "INVALID": _RED,
    "UNLOADABLE": _RED,
    "failed": _RED,
    "unloadable": _RED,
    "lost": _RED,
    "leased": _CYAN,
    "busy": _CYAN,
    "loading": _CYAN,
    "deleted": _DIM,
    "superseded": _DIM,
    "abandoned": _DIM,
    "cancelled": _DIM,
    "stopped": _DIM,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        right: numbers stand at the right.
        shrinks: may be shortened in the middle where a terminal is too narrow.
    """

    title: str
    right: bool = False
    shrinks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """Where text goes and what it can show.

    Attributes:
        width: of the terminal; None: not a terminal, nothing is shortened.
        now: what ages are counted from.
    """

    out: TextIO
    width: int | None
    colours: bool
    now: datetime

    @classmethod
    def of_stdout(cls, env: Mapping[str, str] = os.environ) -> Screen:
        """Look at standard output; NO_COLOR and TERM=dumb turn colours off."""
        terminal = sys.stdout.isatty()
        return cls(
            out=sys.stdout,
            width=shutil.get_terminal_size().columns if terminal else None,
            colours=terminal and not env.get("NO_COLOR") and env.get("TERM") != "dumb",
            now=datetime.now(UTC),
        )

    def say(self, text: str = "") -> None:
        """Print lines."""
        print(text, file=self.out)

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> None:
        """Print aligned rows below their titles; None shows as a dash."""
        cells = [[_text(cell) for cell in row] for row in rows]
        titles = [column.title for column in columns]
        widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
        self._shrink(columns, widths)
        for line in [titles, *cells]:
            self.say(self._line(columns, widths, line).rstrip())

    @property
    def unicode(self) -> bool:
        """Whether more than ASCII can be shown."""
        return (getattr(self.out, "encoding", None) or "").lower().startswith("utf")

    def when(self, at: datetime | None) -> str | None:
        """Say when: an age for people on a terminal, the time (UTC) elsewhere."""
        if at is None:
            return None
        if self.width is None:
            return utc_text(at)
        return f"{age((self.now - at).total_seconds())} ago"

    def _shrink(self, columns: Sequence[Column], widths: list[int]) -> None:
        if self.width is None:
            return
        excess = sum(widths) + len(GAP) * (len(widths) - 1) - self.width
        # the last first: titles run from what a row is about to what is said of it
        for index in reversed(range(len(widths))):
            if columns[index].shrinks and excess > 0:
                least = min(widths[index], max(NARROWEST, len(columns[index].title)))
                cut = min(excess, widths[index] - least)
                widths[index] -= cut
                excess -= cut

    def _line(self, columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> str:
        parts = []
        for column, width, cell in zip(columns, widths, cells, strict=True):
            text = shortened(cell, width)
            padding = " " * (width - len(text))
            text = self.painted(text)
            parts.append(padding + text if column.right else text + padding)
        return GAP.join(parts)

    def painted(self, word: str) -> str:
        """Colour a grade or state."""
        code = _COLOURS.get(word)
        return f"\x1b[{code}m{word}\x1b[0m" if self.colours and code else word


def shortened(text: str, width: int) -> str:
    """Cut the middle out: both ends of a path tell more than it does."""
    if len(text) <= width:
        return text
    tail = (width - 2 + 1) // 2
    return f"{text[: width - 2 - tail]}..{text[len(text) - tail :]}"


def sparkline(values: Sequence[float], width: int, *, unicode: bool) -> str:
    """Draw numbers as a line of blocks, the lowest as the lowest block, on a logarithmic scale.

    Args:
        values: what is no number is left out; zero counts as the smallest above it.
        width: at most so many characters; a character is the median of neighbours where needed.
        unicode: whether blocks can be shown; else characters of ASCII.
    """
    finite = [value for value in values if math.isfinite(value)]
    least = min((value for value in finite if value > 0), default=1.0)
    logs = [math.log(max(value, least)) for value in finite]
    count = min(len(logs), max(width, 1))
    parts = [logs[i * len(logs) // count : (i + 1) * len(logs) // count] for i in range(count)]
    heights = [sorted(part)[len(part) // 2] for part in parts]
    blocks = _BLOCKS if unicode else _ASCII_BLOCKS
    low, span = min(heights, default=0.0), max(heights, default=0.0) - min(heights, default=0.0)
    scale = (len(blocks) - 1) / span if span > 0 else 0.0
    return "".join(blocks[round((height - low) * scale)] for height in heights)


def age(seconds: float) -> str:
    """Say a time span in its largest unit: 40 s, 12 min, 3 h, 5 d."""
    for limit, unit, size in ((60, "s", 1), (3600, "min", 60), (86400, "h", 3600)):
        if seconds < limit:
            return f"{max(seconds, 0) // size:.0f} {unit}"
    return f"{seconds // 86400:.0f} d"


def utc_text(at: datetime) -> str:
    """Write a time as 2026-11-22T20:01:03Z."""
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def number(value: float | None, digits: int) -> str | None:
    """Write a measured number; what was not measured stays None."""
    return None if value is None else f"{value:.{digits}f}"


def size_text(size_bytes: int) -> str:
    """Write a size in its largest binary unit."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < _KIBI:
            return f"{size:.0f} {unit}"
        size /= _KIBI
    return f"{size:.1f} GiB"


def print_json(value: object) -> None:
    """Print JSON: records become objects, times ISO 8601 in UTC, what is no number null."""
    print(json.dumps(plain(value), indent=2, allow_nan=False))


def plain(value: object) -> object:
    """Turn records, times and mappings into what JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(as_mapping(value))
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(held) for held in value]
    return value if value is None or isinstance(value, str | int) else str(value)


def as_mapping(record: DataclassInstance) -> dict[str, object]:
    """Give a record's fields by name."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _text(cell: object) -> str:
    return "-" if cell is None else printable(str(cell))


def printable(text: str) -> str:
    """Spell out control characters: those of a path or reason must not reach a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
