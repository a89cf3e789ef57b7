"""What wakes a worker and what ends it."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from nptwatch.worker.outcomes import Backoff
from nptwatch.worker.wake import NUDGE, Wake

if TYPE_CHECKING:
    from collections.abc import Iterator

FOREVER = 60.0


class Line:
    """A wake at the end of a life line."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.wake = Wake(self.reader)

    def cut(self) -> None:
        """The daemon dies."""
        os.close(self.writer)
        self.writer = -1

    def close(self) -> None:
        """End it all."""
        self.wake.close()
        os.close(self.reader)
        if self.writer != -1:
            os.close(self.writer)


@pytest.fixture
def line() -> Iterator[Line]:
    """A life line."""
    line = Line()
    yield line
    line.close()


def test_a_byte_on_the_life_line_wakes_whoever_waits(line: Line) -> None:
    """A nudge ends the wait at once and does not stop the worker."""
    started = time.monotonic()
    threading.Timer(0.05, os.write, (line.writer, NUDGE)).start()
    line.wake.wait(FOREVER)

    assert time.monotonic() - started < FOREVER / 2
    assert not line.wake.stopping


def test_a_nudge_that_came_before_the_wait_is_not_lost(line: Line) -> None:
    """A worker that was busy when the job came looks at the queue at once."""
    line.wake.nudge()
    started = time.monotonic()
    line.wake.wait(FOREVER)

    assert time.monotonic() - started < FOREVER / 2


def test_a_wait_without_news_ends_after_its_time(line: Line) -> None:
    """The queue is asked now and then though nobody nudges."""
    line.wake.wait(0.01)

    assert not line.wake.stopping


def test_the_end_of_the_life_line_stops_the_worker(line: Line) -> None:
    """A daemon that died, however, takes its workers along."""
    line.cut()
    line.wake.wait(FOREVER)

    assert line.wake.stopping


def test_a_stopped_worker_never_waits_and_knows_since_when(line: Line) -> None:
    """Stopping is for good; its age is what the hand-back is timed by."""
    assert line.wake.stopped_for == 0.0
    line.wake.stop()
    line.wake.wait(FOREVER)
    line.wake.wait(FOREVER)

    assert line.wake.stopping
    assert 0.0 < line.wake.stopped_for < FOREVER


def test_a_signal_stops_the_worker_through_the_wakeup_pipe() -> None:
    """SIGTERM arrives by the pipe, so that a busy main thread does not hold it up."""
    wake = Wake()
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    pipe_before = signal.set_wakeup_fd(wake.signal_fd, warn_on_full_buffer=False)
    try:
        signal.raise_signal(signal.SIGTERM)
        wake.wait(FOREVER)
        assert wake.stopping
    finally:
        signal.set_wakeup_fd(pipe_before)
        signal.signal(signal.SIGTERM, before)
        wake.close()


def test_closing_ends_the_thread(line: Line) -> None:
    """No listening thread is left behind."""
    wake = Wake()
    wake.close()

    alive = [one for one in threading.enumerate() if one.name == "nptwatch-wake"]
    assert len(alive) == 1  # the fixture's own


def test_backoff_doubles_per_round_and_starts_anew_when_it_works() -> None:
    """All jobs hit in one round share its pause; only a later failure doubles it."""
    now = [0.0]
    backoff = Backoff(10.0, 35.0, lambda: now[0])

    assert backoff.delay() == 10.0
    now[0] = 4.0
    assert backoff.delay() == 6.0
    now[0] = 10.0
    assert backoff.delay() == 20.0
    now[0] = 30.0
    assert backoff.delay() == 35.0
    backoff.reset()
    assert backoff.delay() == 10.0
