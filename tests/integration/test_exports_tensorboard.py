"""TensorBoard's event files, as TensorBoard itself reads them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING
from urllib.error import URLError

import pytest
from exporting import ENV, Exporting
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from watching import until

from nptwatch.exports import event_files
from nptwatch.exports.event_files import LogDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import FakeClock

    from nptwatch.exports.event_files import Points
    from nptwatch.store.engine import Database

MSE = "nptwatch/mse"


@pytest.fixture
def board(database: Database, clock: FakeClock, tmp_path: Path) -> Exporting:
    """Give an export to TensorBoard."""
    return Exporting(database, clock, tmp_path, "tensorboard")


def points(*steps: int, value: float = 1.0) -> Points:
    """Give a point for each step."""
    return {step: (1e9 + step, {MSE: value}) for step in steps}


def files(folder: Path) -> list[Path]:
    """Give the event files with points, in the order in which TensorBoard reads them."""
    return sorted(path for path in folder.iterdir() if path.stat().st_size)


def steps(folder: Path) -> list[int]:
    """Give the steps that stand in a log directory, as they stand."""
    (file,) = files(folder)
    return [event.step for event in EventFileLoader(str(file)).Load() if event.HasField("summary")]


def test_late_steps_are_put_in_their_place(board: Exporting) -> None:
    """A file in step order is all that there is, and TensorBoard reads all of it."""
    board.record(100, 300)
    exporter = board.exporter()
    exporter.turn()
    board.record(200, 400, 50)
    board.record(7, run="deep/b")
    exporter.turn()
    assert steps(board.folder / "a") == [50, 100, 200, 300, 400]
    read = EventAccumulator(str(board.folder / "a"))
    read.Reload()
    assert [(point.step, point.value) for point in read.Scalars(MSE)] == [
        (step, pytest.approx(1 / step)) for step in (50, 100, 200, 300, 400)
    ]
    assert {point.value for point in read.Scalars("nptwatch/grade")} == {3.0}
    assert {point.wall_time for point in read.Scalars(MSE)} == {board.clock.now.timestamp()}
    assert steps(board.folder / "deep/b") == [7]


def test_invalid_and_unreadable_checkpoints_draw_no_numbers(board: Exporting) -> None:
    """Of NaN only the grade is drawn; of what was not read, or has no step, nothing."""
    board.record(100, grade="INVALID")
    board.record(200, grade="UNLOADABLE")
    board.record(None)
    board.record(5, run="c", grade="UNLOADABLE")
    board.exporter().turn()
    read = EventAccumulator(str(board.folder / "a"))
    read.Reload()
    assert read.Tags()["scalars"] == ["nptwatch/grade"]
    assert [(point.step, point.value) for point in read.Scalars("nptwatch/grade")] == [(100, 0.0)]
    assert not (board.folder / "c").exists()


def test_a_batch_that_is_exported_again_changes_nothing(board: Exporting) -> None:
    """The daemon was killed before it noted that it was written."""
    board.record(100, 200)
    board.exporter().turn()
    board.forget_how_far()
    board.exporter().turn()
    assert steps(board.folder / "a") == [100, 200]


def test_steps_in_order_are_appended(tmp_path: Path) -> None:
    """A file is not written anew for each checkpoint."""
    log = LogDirectory(tmp_path)
    log.add(points(100))
    (before,) = files(tmp_path)
    content = before.read_bytes()
    log.add(points(200, 300))
    assert files(tmp_path) == [before]
    assert before.read_bytes().startswith(content)
    assert steps(tmp_path) == [100, 200, 300]


def test_a_step_that_is_measured_again_has_its_new_numbers(tmp_path: Path) -> None:
    """They take the old one's place; what only the old one had stays."""
    log = LogDirectory(tmp_path)
    log.add({100: (1e9, {MSE: 1.0, "nptwatch/kl": 2.0}), 200: (1e9, {MSE: 3.0})})
    log.add({100: (2e9, {MSE: 0.5, "nptwatch/avg_score": 0.75})})
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    found = {
        tag: [(each.step, each.value) for each in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }
    assert found == {
        MSE: [(100, 0.5), (200, 3.0)],
        "nptwatch/kl": [(100, 2.0)],
        "nptwatch/avg_score": [(100, 0.75)],
    }


def test_a_file_that_was_cut_is_written_anew(tmp_path: Path) -> None:
    """A writer was killed at any byte: what was whole is kept, what comes again is added."""
    whole = tmp_path / "whole"
    LogDirectory(whole).add(points(100, 200))
    (made,) = files(whole)
    before = made.stat().st_size
    LogDirectory(whole).add(points(300))
    content = made.read_bytes()
    for left in range(1, len(content) + 1):
        folder = tmp_path / str(left)
        folder.mkdir()
        (folder / made.name).write_bytes(content[:left])
        LogDirectory(folder).add(points(300) if left >= before else points(100, 200, 300))
        assert steps(folder) == [100, 200, 300]


def test_killed_between_two_files_the_last_one_counts(tmp_path: Path) -> None:
    """The new file was there already, the old one not yet emptied."""
    log = LogDirectory(tmp_path)
    log.add(points(100, 300))
    (old,) = files(tmp_path)
    content = old.read_bytes()
    log.add(points(200))
    old.write_bytes(content)
    log.add(points(400))
    assert steps(tmp_path) == [100, 200, 300, 400]


def test_emptied_files_are_removed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names grow whatever the clock says, and old ones do not pile up."""
    log = LogDirectory(tmp_path)
    log.add(points(100))
    now = time.time()
    with monkeypatch.context() as patched:
        patched.setattr(event_files.time, "time", lambda: now - 5000)
        for step in (90, 80):
            log.add(points(step))
    for path in tmp_path.iterdir():
        if not path.stat().st_size:
            os.utime(path, (now - 4000, now - 4000))
    log.add(points(70))
    assert steps(tmp_path) == [70, 80, 90, 100]
    assert len(list(tmp_path.iterdir())) == 2


def test_the_process_loads_no_torch(tmp_path: Path) -> None:
    """Nor TensorFlow: it takes a fraction of a second and little memory."""
    code = (
        "import sys, nptwatch.exports.to_tensorboard, nptwatch.exports.event_files;"
        "print({'torch', 'tensorflow', 'sqlalchemy'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, check=True)
    assert ran.stdout == b"set()\n"


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[str]:
    """Start TensorBoard on a folder; give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "log").mkdir()
    with (tmp_path / "tensorboard.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore", "-m", "tensorboard.main", "--logdir", "log"),
                *("--host", "127.0.0.1", "--port", str(port), "--reload_interval", "1"),
            ],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
    yield f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?run=r&tag={MSE}"
    process.terminate()
    process.wait(20)


def test_an_open_tensorboard_shows_late_steps_in_their_place(tmp_path: Path, shown: str) -> None:
    """Its data server forgets what comes after a step that is lower; here it never does."""
    log = LogDirectory(tmp_path / "log/r")
    log.add(points(100, 300))

    def seen() -> list[int]:
        try:
            with urllib.request.urlopen(shown, timeout=5) as answer:  # noqa: S310 - loopback
                return [step for _, step, _ in json.load(answer)]
        except (URLError, OSError):
            return []

    until(lambda: seen() == [100, 300], seconds=60)
    log.add(points(200))
    until(lambda: seen() == [100, 200, 300], seconds=20)
    log.add(points(400))
    until(lambda: seen() == [100, 200, 300, 400], seconds=20)
