"""The demo's display and last page, from a real database."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from stocking import QUICK, ask_full, measured, seen, whole

from nptwatch.demo.children import DemoError
from nptwatch.demo.closing import Closing
from nptwatch.demo.folder import RUN, DemoFolder
from nptwatch.demo.show import LineShow, LiveShow, Progress, Snapshot
from nptwatch.store.catalog import Catalog
from nptwatch.store.history import History
from nptwatch.store.news import Verdict
from nptwatch.store.queue import Queue
from nptwatch.store.recording import follow_nothing
from nptwatch.store.records import FileState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nptwatch.store.engine import Database
    from nptwatch.store.news import Standing
    from nptwatch.store.records import FollowUp, HistoryRow

GRADES = (("POOR", 0.9), ("FAIR", 0.2), ("GOOD", 0.07), ("EXCELLENT", 0.03))


def no_rules(_: Standing) -> Verdict:
    """Raise nothing."""
    return Verdict()


class Watched:
    """A run in a real database, as watcher and worker would fill it."""

    def __init__(self, database: Database, folder: DemoFolder) -> None:
        self._catalog = Catalog(database)
        self._queue = Queue(database)
        self.history = History(database)
        self._folder = folder
        self._where = {"run_path": str(folder.run), "root": str(folder.experiments)}

    def path(self, name: str) -> str:
        """Where a checkpoint of the run lies."""
        return str(self._folder.run / "checkpoints" / name / "npt_weights.pt")

    def queue(self, step: int) -> None:
        """Find a whole checkpoint."""
        path = self.path(f"checkpoint-{step}")
        self._catalog.admit(whole(RUN, step, path=path, **self._where), QUICK)

    def settling(self, name: str) -> None:
        """Find a checkpoint that is not whole yet."""
        file = seen(RUN, path=self.path(name), **self._where)
        self._catalog.note(file, FileState.SETTLING, "not the same on two polls yet")

    def measure(self, grade: str, mse: float, *, follow: FollowUp = follow_nothing) -> None:
        """Give the queued checkpoint its quick result, and have a full one follow."""
        claim = self._queue.claim("w", lease_seconds=60)
        assert claim is not None
        assert self._queue.finish(claim, "w", measured(grade, mse), no_rules, follow)

    def measure_fully(self, grade: str, mse: float) -> None:
        """Give the job that followed its result."""
        claim = self._queue.claim("w", lease_seconds=60)
        assert claim is not None
        result = measured(grade, mse, overall_status="PARTIALLY_READY", avg_score=0.74)
        assert self._queue.finish(claim, "w", result, no_rules)

    def rows(self) -> Sequence[HistoryRow]:
        """What the demo reads."""
        return self.history.history(str(self._folder.run))


@pytest.fixture
def folder(tmp_path: Path) -> DemoFolder:
    """Give the demo's folder."""
    return DemoFolder(path=tmp_path)


@pytest.fixture
def watched(database: Database, folder: DemoFolder) -> Watched:
    """Give a run without checkpoints."""
    return Watched(database, folder)


def terminal(*, height: int = 24) -> Console:
    """Give a terminal of 80 columns whose text can be read."""
    return Console(
        file=io.StringIO(), force_terminal=True, width=80, height=height, color_system=None
    )


def pipe() -> Console:
    """Give a pipe whose text can be read."""
    return Console(file=io.StringIO(), force_terminal=False, width=80)


def text_of(console: Console) -> str:
    """Give what was printed."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_lines_say_each_change_once(watched: Watched) -> None:
    """A pipe gets one line when state or grade change, and none when nothing does."""
    console = pipe()
    show = LineShow(console)
    watched.settling("checkpoint-25")
    for _ in range(2):
        show.update(Snapshot(phase="training", rows=watched.rows()))
    watched.queue(25)
    show.update(Snapshot(phase="training", rows=watched.rows()))
    watched.measure("POOR", 0.9)
    for _ in range(2):
        show.update(Snapshot(phase="training", rows=watched.rows()))
    assert text_of(console).splitlines() == [
        "training ...",
        "checkpoint-25  settling",
        "checkpoint-25  queued",
        "checkpoint-25  done  MSE 0.9000  cosine 0.9700  POOR",
    ]


def test_a_full_diagnostic_is_shown_with_its_reason(watched: Watched) -> None:
    """Queued or done, it is a line of its own in a pipe, and a cell of the table."""
    console = pipe()
    show = LineShow(console)
    watched.queue(25)
    watched.measure("GOOD", 0.07, follow=ask_full)
    show.update(Snapshot(phase="training", rows=watched.rows()))
    watched.measure_fully("GOOD", 0.07)
    show.update(Snapshot(phase="training", rows=watched.rows()))
    quick = "checkpoint-25  done  MSE 0.0700  cosine 0.9700  GOOD"
    assert text_of(console).splitlines()[1:] == [
        f"{quick}  full: queued (the test says so)",
        f"{quick}  full: PARTIAL 0.74 (the test says so)",
    ]
    drawn = terminal()
    with LiveShow(drawn) as live:
        live.update(Snapshot(phase="training", rows=watched.rows()))
    assert "GOOD   PARTIAL 0.74" in text_of(drawn)


def test_live_table_shows_numbers_and_fits_80_columns(watched: Watched) -> None:
    """State, MSE, cosine and grade of each step stand in the table; no line is too long."""
    watched.queue(25)
    watched.measure("FAIR", 0.23456)
    watched.queue(50)
    console = terminal()
    progress = Progress(step=60, steps=1000, loss=0.0123)
    with LiveShow(console) as show:
        show.update(Snapshot(phase="training", training=progress, rows=watched.rows(), alerts=1))
    lines = text_of(console).splitlines()
    words = [line.split() for line in lines]
    assert ["25", "done", "0.2346", "0.9700", "FAIR"] in words
    assert ["50", "queued", "-", "-", "-"] in words
    assert any("step 60 of 1000, its loss 0.0123" in line for line in lines)
    assert any("2 checkpoints found, 1 measured, 1 alerts delivered" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_live_table_keeps_the_newest_on_a_low_terminal(watched: Watched) -> None:
    """Where not all checkpoints fit, the oldest are left out and counted."""
    for step in range(100, 2100, 100):
        watched.queue(step)
    console = terminal(height=14)
    with LiveShow(console) as show:
        show.update(Snapshot(phase="training", rows=watched.rows()))
    text = text_of(console)
    assert "\n2000  queued" in text
    assert "\n 100  queued" not in text
    assert "\n1500  queued" not in text
    assert "(15 earlier checkpoints not shown)" in text


def closing(folder: DemoFolder, console: Console) -> Closing:
    """Give the last page."""
    return Closing(folder=folder, command="nptwatch", cwd=folder.path.parent, console=console)


def test_last_page_has_history_status_alert_and_next_steps(
    watched: Watched, folder: DemoFolder
) -> None:
    """All that was recorded is printed, and commands with paths that can be typed here."""
    for step, (grade, mse) in enumerate(GRADES, start=1):
        watched.queue(step)
        watched.measure(grade, mse, follow=ask_full if grade == "GOOD" else follow_nothing)
        if grade == "GOOD":
            watched.measure_fully(grade, mse)
    folder.alerts.write_text(
        json.dumps({"kind": "reached_good", "text": "Run reached GOOD"}) + "\n"
    )
    console = pipe()
    closing(folder, console).report(watched.history, 42.4)
    text = text_of(console)
    here = folder.path.name
    assert "status: POOR (step 1) -> FAIR (step 2) -> GOOD (step 3) -> EXCELLENT (step 4)" in text
    assert "   3  done   0.0700  0.9700  GOOD       PARTIAL 0.74\n" in text
    assert "1 of 4 checkpoints got the full one too (the test says so: 1)" in text
    assert "  reached_good:\n  Run reached GOOD\n" in text
    assert f"Done in 42 s. The database is {here}/state/nptwatch.db." in text
    assert f"  nptwatch history {RUN} --config {here}/nptwatch.toml\n" in text
    final = f"{here}/experiments/{RUN}/checkpoints/final"
    first = f"{here}/experiments/{RUN}/checkpoints/checkpoint-1"
    for command in (f"best {RUN}", f"forecast {RUN}", f"compare {first} {final}", f"quick {final}"):
        assert f"  nptwatch {command} --config {here}/nptwatch.toml\n" in text
    assert f"  nptwatch full {final} --detailed --config {here}/nptwatch.toml\n" in text


def test_a_run_that_is_not_good_fails(watched: Watched, folder: DemoFolder) -> None:
    """Exit code 1 and the grade that was reached, after the history."""
    watched.queue(1)
    watched.measure("FAIR", 0.2)
    console = pipe()
    with pytest.raises(DemoError, match="did not reach GOOD: it ended FAIR") as raised:
        closing(folder, console).report(watched.history, 1)
    assert raised.value.exit_code == 1
    assert "FAIR (step 1)" in text_of(console)


def test_a_missing_alert_fails(watched: Watched, folder: DemoFolder) -> None:
    """GOOD without an alert is no success."""
    watched.queue(1)
    watched.measure("GOOD", 0.07, follow=ask_full)
    watched.measure_fully("GOOD", 0.07)
    with pytest.raises(DemoError, match="no alert"):
        closing(folder, pipe()).report(watched.history, 1)


def test_a_missing_full_diagnostic_fails(watched: Watched, folder: DemoFolder) -> None:
    """GOOD asks for one by policy: none at all is told, and one that is not done, with its state."""
    watched.queue(1)
    watched.measure("GOOD", 0.07)
    with pytest.raises(DemoError, match="no full diagnostic followed"):
        closing(folder, pipe()).report(watched.history, 1)
    watched.queue(2)
    watched.measure("GOOD", 0.06, follow=ask_full)
    with pytest.raises(DemoError, match=r"checkpoint-2/npt_weights\.pt: full diagnostic queued"):
        closing(folder, pipe()).report(watched.history, 1)


def test_an_unmeasured_checkpoint_fails(watched: Watched, folder: DemoFolder) -> None:
    """A checkpoint without a result is named with its state."""
    watched.queue(1)
    watched.measure("GOOD", 0.07)
    watched.queue(2)
    with pytest.raises(DemoError, match=r"checkpoint-2/npt_weights\.pt: queued"):
        closing(folder, pipe()).report(watched.history, 1)
