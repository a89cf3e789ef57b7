"""Progress of a measurement, on a real terminal and in a pipe."""

from __future__ import annotations

import os
import re
import sys
import termios
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nptwatch.cli.progress import progress_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

FILES = [Path(f"run/checkpoint-{step}/npt_weights.pt") for step in (100, 200)]
COLUMNS = 80


def drawn_by(does: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> str:
    """Make standard error a terminal of 80 columns; give what is drawn on it."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    seen, drawn = os.openpty()
    termios.tcsetwinsize(drawn, (24, COLUMNS))
    with os.fdopen(drawn, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        does()
        stderr.flush()
    parts = []
    with suppress(OSError):  # that is how a terminal's other side ends
        while part := os.read(seen, 65536):
            parts.append(part)
    os.close(seen)
    return b"".join(parts).decode()


def measure() -> None:
    """Report the measuring of both files."""
    with progress_of(len(FILES)) as progress:
        for file in FILES:
            progress.begin(file)
            progress.say("loading [base] model")
            progress.doing("generating continuations " + "for very long " * 6)
            progress.end(file)


def test_a_terminal_shows_a_bar_with_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoint and test stand beside the bar, in one line however long they are."""
    drawn = drawn_by(measure, monkeypatch).replace("\r", "\n")
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn).split("\n")
    assert any(re.search(r"1/2 .* checkpoint-200: generating continuations", li) for li in lines)
    assert "loading [base] model" in [line.strip() for line in lines]
    assert max(map(len, lines)) <= COLUMNS


def test_a_pipe_gets_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    """Counted, with the file's path; nothing that is overwritten."""
    measure()
    lines = [line for line in capsys.readouterr().err.splitlines() if "loading" not in line]
    assert lines == [f"measured 1/2 {FILES[0]}", f"measured 2/2 {FILES[1]}"]


def test_of_a_single_file_nothing_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """Its result says it all."""
    with progress_of(1) as progress:
        progress.begin(FILES[0])
        progress.doing("measuring")
        progress.end(FILES[0])
    assert capsys.readouterr().err == ""
