"""Results, run status, status changes and outbox rows of a finished job."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from stocking import QUICK, alert_good, event, measured, no_alerts, whole

from nptwatch.store.alarms import Alarms
from nptwatch.store.catalog import Catalog
from nptwatch.store.events import event_id
from nptwatch.store.history import History
from nptwatch.store.news import Standing, Verdict
from nptwatch.store.outbox import Outbox
from nptwatch.store.queue import Queue
from nptwatch.store.records import (
    Finished,
    JobState,
    Measured,
    WholeFile,
)

if TYPE_CHECKING:
    from conftest import FakeClock

    from nptwatch.store.engine import Database


pytestmark = pytest.mark.both_engines


class Bench:
    """Admits a file and finishes its job at once."""

    def __init__(self, database: Database, clock: FakeClock) -> None:
        self.catalog = Catalog(database, clock=clock)
        self.queue = Queue(database, clock=clock)
        self.history = History(database, clock=clock)
        self.outbox = Outbox(database, clock=clock)
        self.alarms = Alarms(database, clock=clock)

    def finish(self, file: WholeFile, result: Measured) -> Finished:
        """Measure one file."""
        self.catalog.admit(file, QUICK)
        claimed = self.queue.claim("w1", lease_seconds=60)
        assert claimed is not None
        assert claimed.fingerprint == file.fingerprint
        finished = self.queue.finish(claimed, "w1", result, alert_good)
        assert finished is not None
        return finished


@pytest.fixture
def bench(database: Database, clock: FakeClock) -> Bench:
    """Give stores on an empty database."""
    return Bench(database, clock)


def test_first_result_is_a_status_change(bench: Bench, clock: FakeClock) -> None:
    """A run goes from no status to its first grade, and the rules see it all."""
    change = bench.finish(whole(step=100), measured("GOOD", 0.07)).change
    assert change is not None
    assert (change.old, change.new, change.step, change.at) == (None, "GOOD", 100, clock())
    assert (change.mse, change.previous_mse) == (0.07, None)
    run = bench.history.run("a")
    assert (run.status, run.status_since, run.step) == ("GOOD", clock(), 100)
    assert (run.done, run.open_jobs, run.best_mse, run.best_step) == (1, 0, 0.07, 100)


def test_equal_grade_moves_the_pointer_without_a_change(bench: Bench, clock: FakeClock) -> None:
    """The status' step follows, its beginning stays, and nobody is told twice."""
    since = clock()
    bench.finish(whole(step=100), measured("GOOD", 0.08))
    clock.advance(60)
    finished = bench.finish(whole(step=200), measured("GOOD", 0.06))
    assert (finished.change, finished.messages, finished.late) == (None, 0, False)
    run = bench.history.run("a")
    assert (run.step, run.mse, run.status_since) == (200, 0.06, since)
    assert len(bench.history.changes()) == 1


def test_change_tells_what_was_before(bench: Bench) -> None:
    """The rules compare with the result that the old status stood on."""
    bench.finish(whole(step=100), measured("FAIR", 0.3))
    change = bench.finish(whole(step=200), measured("GOOD", 0.07)).change
    assert change is not None
    assert (change.old, change.previous_mse, change.previous_cosine) == ("FAIR", 0.3, 0.97)


def test_changes_keep_their_order_where_clocks_differ(bench: Bench, clock: FakeClock) -> None:
    """A host whose clock is behind makes no later change look earlier; the status is the last."""
    bench.finish(whole(step=100), measured("FAIR"))
    clock.advance(-30)
    bench.finish(whole(step=200), measured("GOOD"))
    assert [change.new for change in bench.history.changes("a")] == ["GOOD", "FAIR"]
    assert bench.history.run("a").status == "GOOD"


def test_late_older_step_leaves_the_status_alone(bench: Bench) -> None:
    """Backlog fills the history, never turns a run's status back."""
    bench.finish(whole(step=200), measured("GOOD"))
    finished = bench.finish(whole(step=100), measured("POOR", 1.0))
    assert (finished.late, finished.change) == (True, None)
    assert bench.history.run("a").status == "GOOD"


def test_step_decides_what_is_late_not_the_clock(bench: Bench) -> None:
    """A resumed run writes an old step anew, later than the newest: still an older step."""
    bench.finish(whole(step=200, mtime_ns=1_000), measured("GOOD"))
    assert bench.finish(whole(step=100, mtime_ns=9_000), measured("POOR", 1.0)).late
    assert bench.finish(whole(step=300, mtime_ns=500), measured("FAIR", 0.3)).change is not None


def test_unknown_step_is_placed_by_time(bench: Bench) -> None:
    """Where a step is missing the time of writing says what is newer."""
    bench.finish(whole(step=200, mtime_ns=5_000), measured("GOOD"))
    early = whole(step=None, folder="x", content="x", mtime_ns=4_000)
    assert bench.finish(early, measured("POOR", 1.0)).late
    later = whole(step=None, folder="y", content="y", mtime_ns=6_000)
    assert bench.finish(later, measured("FAIR", 0.3)).change is not None


def test_unloadable_says_nothing_of_the_run(bench: Bench) -> None:
    """A file that cannot be read is done and listed, but the run keeps its status."""
    bench.finish(whole(step=100), measured("GOOD"))
    broken = measured("UNLOADABLE", None, cosine=None, error="truncated", base_revision="")
    finished = bench.finish(whole(step=200), broken)
    assert (finished.change, finished.late) == (None, False)
    assert bench.history.run("a").status == "GOOD"
    row = bench.history.history("a")[1]
    assert (row.grade, row.reason) == ("UNLOADABLE", "truncated")


def test_invalid_is_a_status(bench: Bench) -> None:
    """NaN weights are news; numbers that JSON does not have are stored as null."""
    bench.finish(whole(step=100), measured("GOOD"))
    nan = measured("INVALID", math.nan, cosine=math.inf, details={"mse": [math.nan, 1.0]})
    change = bench.finish(whole(step=200), nan).change
    assert change is not None
    assert (change.new, change.mse, change.cosine) == ("INVALID", None, None)
    row, details = bench.history.show("2")
    assert (row.grade, row.mse, details) == ("INVALID", None, {"mse": [None, 1.0]})


def test_alert_is_written_once_per_content(bench: Bench, clock: FakeClock) -> None:
    """GOOD, POOR, and the very content that was GOOD again: one message, not two."""
    first = bench.finish(whole(step=100), measured("GOOD"))
    assert first.messages == 1
    bench.finish(whole(step=200), measured("POOR", 1.0))
    other = QUICK.__class__(profile="quick", settings_hash="s2")
    bench.catalog.admit(whole(step=300, content="content-a-100"), other)
    (alert,) = bench.alarms.events(run="a")
    (sent,) = alert.messages
    assert (alert.kind, alert.payload["step"], sent.state) == ("reached_good", 100, "pending")
    assert alert.event_id == event_id("/exp/a", "reached_good", "content-a-100")
    assert bench.outbox.pending() == 1


def test_same_message_twice_in_one_change_is_one_row(bench: Bench) -> None:
    """The outbox' key, not the rules, keeps messages apart."""
    twice = Verdict(events=(event("k", "s", "log", "log"),) * 2)
    bench.catalog.admit(whole(), QUICK)
    claimed = bench.queue.claim("w1", lease_seconds=60)
    assert claimed is not None
    done = bench.queue.finish(claimed, "w1", measured(), lambda _: twice)
    assert done is not None
    assert (done.messages, bench.outbox.pending()) == (1, 1)


def test_known_result_is_linked_not_measured(bench: Bench) -> None:
    """A copy in another run takes the result over and gives that run its own status."""
    first = bench.finish(whole("a", content="c"), measured("GOOD"))
    bench.catalog.admit(whole("b", content="c"), QUICK)
    claimed = bench.queue.claim("w1", lease_seconds=60)
    assert claimed is not None
    assert bench.queue.known_result(claimed, base_revision="other") is None
    result_id = bench.queue.known_result(claimed, base_revision="base-1")
    assert result_id == first.result_id
    finished = bench.queue.finish_known(claimed, "w1", result_id, alert_good)
    assert finished is not None
    assert (finished.result_id, finished.messages) == (first.result_id, 1)
    assert bench.history.run("b").status == "GOOD"


def test_result_measured_twice_at_the_same_time_is_one(bench: Bench) -> None:
    """Two workers that measured one content side by side: the first result stands."""
    for run in ("a", "b"):
        bench.catalog.admit(whole(run, content="c"), QUICK)
    claims = [bench.queue.claim(name, lease_seconds=60) for name in ("w1", "w2")]
    results = set()
    for name, claimed, mse in zip(("w1", "w2"), claims, (0.07, 0.08), strict=True):
        assert claimed is not None
        finished = bench.queue.finish(claimed, name, measured(mse=mse), no_alerts)
        assert finished is not None
        results.add(finished.result_id)
    assert len(results) == 1
    assert [bench.history.run(run).mse for run in ("a", "b")] == [0.07, 0.07]


def test_failing_rules_undo_everything(bench: Bench) -> None:
    """Result, status, change and messages are written together or not at all."""

    def broken(_standing: Standing) -> Verdict:
        raise RuntimeError("rules")

    bench.catalog.admit(whole(), QUICK)
    claimed = bench.queue.claim("w1", lease_seconds=60)
    assert claimed is not None
    with pytest.raises(RuntimeError, match="rules"):
        bench.queue.finish(claimed, "w1", measured(), broken)
    assert bench.queue.depth()[JobState.LEASED] == 1
    assert bench.queue.known_result(claimed, base_revision="base-1") is None
    assert (bench.history.changes(), bench.history.run("a").status) == ([], None)


def test_details_must_be_json(bench: Bench) -> None:
    """A report that cannot be stored is a bug, told at once; nothing is written."""
    bench.catalog.admit(whole(), QUICK)
    claimed = bench.queue.claim("w1", lease_seconds=60)
    assert claimed is not None
    with pytest.raises(TypeError, match="a report holds"):
        bench.queue.finish(claimed, "w1", measured(details={"x": object()}), no_alerts)
    assert bench.queue.depth()[JobState.LEASED] == 1
