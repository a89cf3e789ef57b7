"""A chore that hangs is told of, while the others go on."""

from __future__ import annotations

import threading
import time

import structlog

from nptwatch.service.schedule import Chore, Schedule
from nptwatch.service.vouching import LongTurns


def test_a_chore_that_hangs_is_told_once_and_when_it_ends() -> None:
    """By its name; another one takes its turns meanwhile; what ends in time is no news."""
    begun, may_end, turned, ended = (threading.Event() for _ in range(4))

    def hang() -> None:
        begun.set()
        may_end.wait(30)

    schedule = Schedule(
        [
            Chore(name="keep", do=hang, every_seconds=3600.0),
            Chore(name="other", do=turned.set, every_seconds=0.05),
        ],
        lambda turn: ended.set() if turn.name == "keep" else None,
    )
    turns = LongTurns(schedule.running, patience_seconds=0.2)
    schedule.start()
    try:
        assert begun.wait(10)
        with structlog.testing.capture_logs() as logs:
            end = time.monotonic() + 10
            while not turns.names and time.monotonic() < end:
                turns.look()
            assert turns.names == ("keep",)
            turned.clear()
            turns.look()
            assert turned.wait(10)
            may_end.set()
            assert ended.wait(10)
            turns.look()
        assert turns.names == ()
        assert [(log["event"], log["chore"]) for log in logs] == [
            ("chore_hangs", "keep"),
            ("chore_ended_at_last", "keep"),
        ]
    finally:
        may_end.set()
        schedule.stop()
