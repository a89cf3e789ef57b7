"""How tables, numbers, times and JSON look."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType

import pytest

from nptwatch.cli.screen import (
    Column,
    Screen,
    age,
    number,
    plain,
    print_json,
    shortened,
    size_text,
    sparkline,
    utc_text,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LONG = "experiments/2026-11/llama-1b/dual-modulation/equivalence"


def screen(width: int | None = None, *, colours: bool = False) -> Screen:
    """Give a screen whose text a test can read."""
    return Screen(out=io.StringIO(), width=width, colours=colours, now=NOW)


def text_of(shown: Screen) -> str:
    """Give what was printed."""
    assert isinstance(shown.out, io.StringIO)
    return shown.out.getvalue()


def table(width: int | None, *, colours: bool = False) -> list[str]:
    """Print a small table."""
    shown = screen(width, colours=colours)
    columns = (
        Column(title="STEP", right=True),
        Column(title="RUN", shrinks=True),
        Column(title="GRADE"),
    )
    shown.table(columns, [(5, "a", "GOOD"), (1000, LONG, None)])
    return text_of(shown).splitlines()


def test_table_is_aligned() -> None:
    """Numbers stand at the right, the rest at the left; None is a dash."""
    lines = table(None)
    assert lines[0] == "STEP  RUN" + " " * (len(LONG) - 3) + "  GRADE"
    assert lines[1] == "   5  a" + " " * (len(LONG) - 1) + "  GOOD"
    assert lines[2] == f"1000  {LONG}  -"


@pytest.mark.parametrize("width", [40, 60, 80])
def test_narrow_terminal_shortens_the_middle(width: int) -> None:
    """A table fits its terminal; both ends of a long name stay."""
    lines = table(width)
    assert max(map(len, lines)) <= width
    assert "1000  exp" in lines[2]
    assert lines[2].endswith("-")


def test_wide_terminal_shortens_nothing() -> None:
    """What fits is shown whole."""
    assert LONG in table(160)[2]


def test_colours_do_not_move_columns() -> None:
    """Escape codes have no width."""
    plain_lines, painted = table(80), table(80, colours=True)
    assert painted != plain_lines
    assert [line.replace("\x1b[32m", "").replace("\x1b[0m", "") for line in painted] == plain_lines


def test_control_characters_do_not_reach_the_terminal() -> None:
    """A path or reason may hold anything, also what no encoding can write."""
    shown = screen()
    shown.table([Column(title="PATH")], [("a\x1b[31m\nb\udcff",)])
    assert text_of(shown) == "PATH\na\\x1b[31m\\nb\\udcff\n"


def test_times_are_ages_on_a_terminal_only() -> None:
    """People see how long ago, programs see when."""
    at = NOW - timedelta(minutes=12)
    assert screen(80).when(at) == "12 min ago"
    assert screen().when(at) == "2026-11-22T11:48:00Z"
    assert screen().when(None) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (172800, "2 d")],
)
def test_ages(seconds: float, text: str) -> None:
    """One unit; a clock that runs behind gives no negative age."""
    assert age(seconds) == text


def test_shortened_keeps_its_width() -> None:
    """The cut text is exactly as wide as asked."""
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghijk", 7) == "ab..ijk"


def test_numbers_and_sizes() -> None:
    """A measured zero is a number; what was not measured is nothing."""
    assert number(0.0, 4) == "0.0000"
    assert number(None, 4) is None
    assert [size_text(s) for s in (0, 2048, 3 * 1024**2, 5 * 1024**4)] == [
        "0 B",
        "2 KiB",
        "3 MiB",
        "5120.0 GiB",
    ]


def test_times_are_utc() -> None:
    """Whatever zone a time comes in."""
    east = datetime(2026, 11, 22, 13, 0, tzinfo=timezone(timedelta(hours=1)))
    assert utc_text(east) == "2026-11-22T12:00:00Z"


def test_json_has_only_what_json_has(capsys: pytest.CaptureFixture[str]) -> None:
    """Records are objects, times ISO 8601 in UTC, NaN and infinity null."""

    @dataclass(frozen=True)
    class Record:
        at: datetime
        held: MappingProxyType[str, float]
        many: tuple[float | None, ...]

    record = Record(at=NOW, held=MappingProxyType({"a": math.nan}), many=(0.5, None, math.inf))
    print_json([record])
    assert json.loads(capsys.readouterr().out) == [
        {"at": "2026-11-22T12:00:00.000Z", "held": {"a": None}, "many": [0.5, None, None]}
    ]
    assert plain(True) is True


def test_columns_shrink_no_more_than_needed() -> None:
    """The last column that can gives way first; what already fits is left whole."""
    shown = screen(60)
    columns = (Column(title="RUN", shrinks=True), Column(title="REASON", shrinks=True))
    shown.table(columns, [("r" * 30, "x" * 40)])
    run, reason = text_of(shown).splitlines()[1].split()
    assert run == "r" * 30
    assert len(reason) == 28


@pytest.mark.parametrize(("unicode", "line"), [(True, "█▇▆▅▄▃▂▁"), (False, "#*+=-._")])
def test_sparkline_is_logarithmic(unicode: bool, line: str) -> None:
    """Equal factors are equal steps down; the ends use the whole height."""
    assert sparkline([2.0**-step for step in range(len(line))], 80, unicode=unicode) == line


def test_sparkline_fits_its_width() -> None:
    """More numbers than characters share one, and a spike does not hide its neighbours."""
    falling = [100.0 * 0.99**step for step in range(1000)]
    assert sparkline(falling, 8, unicode=True) == "█▇▆▅▄▃▂▁"
    assert sparkline([*falling[:500], 1e9, *falling[500:]], 8, unicode=True) == "█▇▆▅▄▃▂▁"
    assert len(sparkline(falling, 37, unicode=True)) == 37


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([0.5], "▁"),
        ([0.3, 0.3], "▁▁"),
        ([0.0, 1.0, 2.0], "▁▁█"),
        ([1, math.nan, 2], "▁█"),
    ],
)
def test_sparkline_of_odd_numbers(values: list[float], line: str) -> None:
    """None, one, equal ones, zeros and what is no number draw what there is."""
    assert sparkline(values, 10, unicode=True) == line
