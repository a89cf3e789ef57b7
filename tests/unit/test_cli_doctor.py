"""How the doctor's findings look on terminals and in pipes."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest

from nptwatch.cli.doctor import _print
from nptwatch.cli.screen import Screen
from nptwatch.doctor.finding import fail, ok

TEXT = "the quick brown fox jumps over the lazy dog and " * 4 + "ends"
PATH = "/a/path/that/is/longer/than/the/terminal" * 3


def shown(width: int | None, *, colours: bool = False) -> list[str]:
    """Print three findings; give the lines."""
    out = io.StringIO()
    screen = Screen(out=out, width=width, colours=colours, now=datetime.now(UTC))
    for finding in (
        ok("short", "fine"),
        fail("long", TEXT, "fix it: " + TEXT),
        fail(f"root {PATH}", "a \x1b[2J of a name\nand a second line", "mount it"),
    ):
        _print(finding, screen)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 160])
def test_lines_are_broken_between_words(width: int) -> None:
    """No line is wider than the terminal, unless one word is; a path stays whole."""
    lines = shown(width)
    assert not [line for line in lines if len(line) > width and PATH not in line]
    assert any(PATH in line for line in lines)
    assert " ".join(" ".join(line.split()) for line in lines).count(TEXT) == 2
    assert all(line[:6] in {"OK    ", "FAIL  ", "      "} for line in lines)


def test_a_pipe_gets_one_line_for_each_thing() -> None:
    """Nothing is broken there, so that grep finds it; control characters are spelt out."""
    assert shown(None) == [
        "OK    short: fine",
        f"FAIL  long: {TEXT}",
        f"      fix: fix it: {TEXT}",
        f"FAIL  root {PATH}: a \\x1b[2J of a name",
        "      and a second line",
        "      fix: mount it",
    ]


def test_marks_have_colours_and_stay_aligned() -> None:
    """Only the word is coloured."""
    lines = shown(80, colours=True)
    assert lines[0] == "\x1b[32mOK\x1b[0m    short: fine"
    assert lines[1].startswith("\x1b[31mFAIL\x1b[0m  long: the quick")
