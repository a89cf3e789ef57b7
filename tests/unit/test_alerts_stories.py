"""What people are told while runs train: exactly this, and never twice."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from stocking import FULL, QUICK, claimed, measured, path_of, whole
from telling import Training

from nptwatch.store.records import Request

if TYPE_CHECKING:
    from datetime import datetime

    from conftest import FakeClock

    from nptwatch.store.engine import Database
    from nptwatch.store.records import WholeFile

pytestmark = pytest.mark.both_engines


@pytest.fixture
def training(database: Database, clock: FakeClock) -> Training:
    """Give runs whose people are told what they are told by default."""
    return Training(database, clock)


def test_a_run_gets_good_and_then_excellent(training: Training) -> None:
    """Each level once, at its first checkpoint; what is equal or better is no news."""
    assert training.train("POOR", "FAIR", "GOOD", "GOOD", "EXCELLENT", "EXCELLENT", "GOOD") == [
        [],
        [],
        ["reached_good"],
        [],
        ["reached_excellent"],
        [],
        [],
    ]
    good = training.events()[0]
    assert (good.payload["old"], good.payload["new"]) == ("FAIR", "GOOD")
    assert (good.payload["step"], good.payload["previous_mse"]) == (3, 0.3)
    assert [way.channel for way in good.messages] == ["log", "mail", "pager"]


def test_a_run_that_swings_around_a_bound_is_told_once(training: Training) -> None:
    """FAIR, GOOD, FAIR, GOOD ... for twenty checkpoints: one alert."""
    told = training.train(*["FAIR", "GOOD"] * 10)
    assert [kind for kinds in told for kind in kinds] == ["reached_good"]


@pytest.mark.parametrize("needs", [(2, 2), (3, 4), (4, 5), (5, 8), (1, 1)])
def test_however_it_is_set_alternating_is_told_once(
    database: Database, clock: FakeClock, needs: tuple[int, int]
) -> None:
    """Every pair that the settings allow keeps still, but for the one that says: at once."""
    training = Training(database, clock, regressed_needs=needs[0], regressed_of=needs[1])
    told = [kind for kinds in training.train(*["FAIR", "GOOD"] * 6) for kind in kinds]
    swings = ["reached_good", "regressed"] * 5 + ["reached_good"]
    assert told == (swings if needs == (1, 1) else ["reached_good"])


def test_a_fall_that_lasts_is_told_once_and_so_is_the_rise(training: Training) -> None:
    """Three of the last four decide, both ways."""
    assert training.train("GOOD", "FAIR", "FAIR", "GOOD", "FAIR", "POOR", "POOR") == [
        ["reached_good"],
        [],
        [],
        [],
        ["regressed"],
        [],
        [],
    ]
    fall = training.last().payload
    assert (fall["old"], fall["new"], fall["step"]) == ("GOOD", "FAIR", 5)
    assert (fall["mse"], fall["previous_mse"]) == (0.3, 0.08)
    assert training.train("GOOD", "GOOD", "GOOD", "GOOD", start=8) == [
        [],
        [],
        ["reached_good"],
        [],
    ]


def test_a_fall_from_excellent_to_good_is_a_fall(training: Training) -> None:
    """And back: the higher level is news again, the lower one never was."""
    told = training.train(*["EXCELLENT"] * 2, *["GOOD"] * 4, *["EXCELLENT"] * 4)
    assert [kind for kinds in told for kind in kinds] == [
        "reached_excellent",
        "regressed",
        "reached_excellent",
    ]
    assert [each.payload["new"] for each in training.events()] == ["EXCELLENT", "GOOD", "EXCELLENT"]


def test_nan_is_told_at_once_and_its_end_when_it_lasts(training: Training) -> None:
    """One alert for all NaN of a bad time, one when three of four are sound; no fall besides."""
    assert training.train("GOOD", "INVALID", "GOOD", "INVALID", "INVALID", "GOOD", "GOOD") == [
        ["reached_good"],
        ["invalid"],
        [],
        [],
        [],
        [],
        [],
    ]
    assert training.train("GOOD", "GOOD", start=8) == [["recovered"], []]
    over = training.last().payload
    assert (over["of"], over["old"], over["new"]) == ("invalid", "INVALID", "GOOD")
    assert training.train("INVALID", start=10) == [["invalid"]]


def test_a_backlog_at_first_start_is_history(training: Training) -> None:
    """Two hundred checkpoints of last month, good, bad and NaN in any order: nobody is told."""
    month = timedelta(days=30)
    for step in range(200):
        at = training.clock() - month + timedelta(minutes=step)
        training.catalog.admit(_whole(step, at), QUICK)
    grades = ("GOOD", "FAIR", "INVALID", "EXCELLENT", "POOR")
    told = [training.measure(grades[n % 5], 0.01 + n / 1000) for n in range(200)]
    assert [kind for kinds in told for kind in kinds] == []
    assert training.lookout().look() == 0


def test_the_first_new_checkpoint_after_a_backlog_is_news(training: Training) -> None:
    """History was told to nobody: that the run is GOOD still has to be said."""
    for step in range(1, 5):
        at = training.clock() - timedelta(days=3) + timedelta(minutes=step)
        training.catalog.admit(_whole(step, at), QUICK)
    for _ in range(4):
        assert training.measure("GOOD") == []
    assert training.train("GOOD", "GOOD", start=5) == [["reached_good"], []]


def test_a_backlog_of_a_live_run_is_told_once(training: Training) -> None:
    """Its newest checkpoint is measured first and told; older ones add a higher level, once."""
    for step in range(1, 41):
        at = training.clock() - timedelta(minutes=60 - step)
        training.catalog.admit(_whole(step, at), QUICK)
    assert training.measure("GOOD") == ["reached_good"]
    told = [training.measure(("EXCELLENT", "GOOD", "INVALID", "POOR")[n % 4]) for n in range(39)]
    # twenty newer ones are no better than the one of step 39
    wanted = [["reached_excellent (late)"], *[[]] * 37, ["stalled (late)"]]
    assert told == wanted
    assert training.alarms.events()[1].payload["late"]


def test_a_late_good_is_marked_and_told_once(training: Training) -> None:
    """Measured after a newer step that is not: the status stays, the event says so."""
    for step in (1, 2, 3, 4):
        training.write(step)
    assert training.measure("FAIR") == []
    assert training.measure("GOOD") == ["reached_good (late)"]
    assert (training.last().payload["step"], training.last().payload["late"]) == (3, True)
    assert training.measure("GOOD") == []
    assert training.measure("INVALID") == []
    assert training.train("GOOD", start=5) == [["reached_good"]]


def test_a_rerun_tells_nobody(training: Training) -> None:
    """The same contents by other settings, and by the full diagnostic: no news."""
    grades = ("FAIR", "GOOD", "GOOD", "EXCELLENT")
    training.train(*grades)
    before = [each.event_id for each in training.events()]
    for step, grade in enumerate(grades, 1):
        for request in (FULL, Request(profile="quick", settings_hash="s2")):
            training.queue.ask(path_of("a", f"checkpoint-{step}"), request, because="me")
            assert training.measure(grade, base_revision="again") == []
    assert [each.event_id for each in training.events()] == before


def test_two_workers_raise_an_event_once(training: Training) -> None:
    """Two results of one content, quick and full, both say GOOD."""
    training.write(1)
    training.queue.ask(path_of("a", "checkpoint-1"), FULL, because="me")
    assert training.measure("GOOD") == ["reached_good"]
    assert training.measure("GOOD") == []


def test_a_new_best_is_told_when_it_is_much_better(database: Database, clock: FakeClock) -> None:
    """By a tenth of what was told last, from GOOD on; creeping adds up, noise does not."""
    training = Training(database, clock, kinds=("new_best", "reached_good"))
    told = []
    mses = (0.5, 0.4, 0.09, 0.085, 0.088, 0.082, 0.0800, 0.079, 0.074, 0.0719, 0.0718)
    for step, mse in enumerate(mses):
        training.write(step)
        told.append(training.measure("GOOD" if mse < 0.1 else "FAIR", mse))
    assert told == [
        [],
        [],
        ["reached_good"],
        [],
        [],
        [],
        ["new_best"],
        [],
        [],
        ["new_best"],
        [],
    ]
    best = training.last().payload
    assert (best["mse"], best["previous_mse"]) == (0.0719, 0.08)


def test_a_standstill_is_told_once_and_its_end(database: Database, clock: FakeClock) -> None:
    """So many in a row no better than the best; a better one ends it."""
    training = Training(database, clock, stalled_after=3)
    told = []
    for step, mse in enumerate((0.5, 0.3, 0.4, 0.31, 0.35, 0.4, 0.3, 0.29, 0.3, 0.3, 0.3)):
        training.write(step)
        told.append(training.measure("FAIR", mse))
    assert told == [[], [], [], [], ["stalled"], [], [], ["recovered"], [], [], ["stalled"]]
    still = training.last().payload
    assert still["detail"] == "3 checkpoints are newer than the best (step 7)"


def test_unwanted_kinds_are_listed_and_sent_to_nobody(database: Database, clock: FakeClock) -> None:
    """And where EXCELLENT is not asked for, reaching it is reaching GOOD."""
    training = Training(database, clock, kinds=("reached_good", "recovered"))
    training.train("FAIR", "EXCELLENT", "INVALID", "EXCELLENT", "EXCELLENT", "EXCELLENT")
    assert [each.kind for each in training.events()] == ["reached_good", "invalid", "recovered"]
    assert training.sent() == {channel: ["reached_good"] for channel in ("log", "mail", "pager")}


def test_confirmation_waits_for_the_full_diagnostic(database: Database, clock: FakeClock) -> None:
    """A quick GOOD asks for it; GOOD is told when it agrees, though newer steps are measured."""
    training = Training(database, clock, confirm=True)
    training.write(1)
    claim = claimed(training.queue)
    done = training.queue.finish(claim, "w", measured("GOOD"), training.rules)
    assert done is not None
    assert (done.asked, training.news()) == ("to confirm GOOD", [])
    full = claimed(training.queue)
    assert (full.profile, full.step) == ("full", 1)
    training.write(2)
    assert training.measure("GOOD") == []
    ready = measured("GOOD", overall_status="READY")
    assert training.queue.finish(full, "w", ready, training.rules) is not None
    assert training.news() == ["reached_good (late)"]
    assert training.last().payload["confirmed"]
    assert training.measure("GOOD", overall_status="READY") == []
    assert training.train("GOOD", start=3) == [[]]
    assert training.queue.claim("w", lease_seconds=60) is None, "nothing is left to confirm"


def test_a_full_diagnostic_that_disagrees_is_a_note(database: Database, clock: FakeClock) -> None:
    """Listed, sent to nobody; the next GOOD checkpoint is asked anew."""
    training = Training(database, clock, confirm=True)
    training.write(1)
    assert training.measure("GOOD") == []
    assert training.measure("GOOD", overall_status="NOT_READY") == ["unconfirmed"]
    assert training.last().messages == ()
    training.write(2)
    assert training.measure("GOOD") == []
    assert training.measure("GOOD", overall_status="PARTIALLY_READY") == ["reached_good"]
    assert training.sent()["mail"] == ["reached_good"]


def _whole(step: int, at: datetime) -> WholeFile:
    return whole("a", step, mtime_ns=int(at.timestamp() * 1e9))


def test_a_gap_holds_back_lower_kinds_only(database: Database, clock: FakeClock) -> None:
    """EXCELLENT comes through the gap after GOOD; a fall does not; the log has it all."""
    training = Training(
        database, clock, min_gap_seconds=3600, regressed_needs=1, regressed_of=1, new_best_by=0.0
    )
    training.train("GOOD", "EXCELLENT", "FAIR", "GOOD")
    clock.advance(3600)
    training.train("FAIR", start=5)
    kinds = ["reached_good", "reached_excellent", "regressed", "reached_good", "regressed"]
    assert training.sent() == {
        "log": kinds,
        "mail": ["reached_good", "reached_excellent", "regressed"],
        "pager": ["reached_good", "reached_excellent", "regressed"],
    }
    held = [way for each in training.events() for way in each.messages if way.error]
    assert [(way.channel, way.state) for way in held] == [
        (channel, "suppressed") for _ in range(2) for channel in ("mail", "pager")
    ]


def test_quiet_hours_postpone_and_drop_nothing(database: Database, clock: FakeClock) -> None:
    """At noon of a quiet day only the log is told; when it is over, everybody, in order."""
    training = Training(database, clock, quiet_hours="11:00-14:30", time_zone="UTC")
    training.train("GOOD", "EXCELLENT")
    assert deliveries(training) == [("log", "reached_good"), ("log", "reached_excellent")]
    clock.now = clock.now.replace(hour=14, minute=29)
    assert deliveries(training) == []
    clock.advance(61)
    assert deliveries(training) == [
        ("mail", "reached_good"),
        ("pager", "reached_good"),
        ("mail", "reached_excellent"),
        ("pager", "reached_excellent"),
    ]


def deliveries(training: Training) -> list[tuple[str, str]]:
    """Deliver what is due; give to whom what went."""
    sent = []
    while (delivery := training.outbox.claim(lease_seconds=30)) is not None:
        training.outbox.delivered(delivery.outbox_id)
        sent.append((delivery.channel, delivery.kind))
    return sent
