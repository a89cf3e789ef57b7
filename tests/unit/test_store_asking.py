"""Quick for all, full where it is asked: in one row, in one transaction, nothing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stocking import FULL, QUICK, ask_full, claimed, event, measured, no_alerts, path_of, whole

from nptwatch.errors import ConfigError
from nptwatch.store.news import Verdict
from nptwatch.store.records import (
    Asking,
    Facts,
    JobState,
    Request,
)

if TYPE_CHECKING:
    from nptwatch.store.catalog import Catalog
    from nptwatch.store.history import History
    from nptwatch.store.news import Standing
    from nptwatch.store.queue import Queue


pytestmark = pytest.mark.both_engines


def test_what_follows_a_quick_result_is_queued_with_it(
    catalog: Catalog, queue: Queue, history: History
) -> None:
    """One row in the history; the full job says why; a full result asks for nothing more."""
    catalog.admit(whole(), QUICK)
    done = queue.finish(claimed(queue), "w", measured(), no_alerts, ask_full)
    assert done is not None
    assert done.asked == "the test says so"
    (row,) = history.history("a")
    assert (row.profile, row.state, row.full_state) == ("quick", "done", "queued")
    full = claimed(queue)
    assert (full.profile, full.settings_hash) == ("full", "f1")
    result = measured(overall_status="READY", avg_score=0.92, hidden_mse=0.02)
    done = queue.finish(full, "w", result, no_alerts, ask_full)
    assert done is not None
    assert (done.asked, done.change) == (None, None)
    (row,) = history.history("a")
    assert (row.profile, row.full_state, row.full_because) == (
        "quick+full",
        "done",
        "the test says so",
    )
    assert (row.overall_status, row.avg_score, row.hidden_mse) == ("READY", 0.92, 0.02)
    (run,) = history.runs()
    assert (run.checkpoints, run.done) == (1, 1)
    assert queue.claim("w", lease_seconds=60) is None


def test_quick_then_full_raise_one_alert_and_one_change(catalog: Catalog, queue: Queue) -> None:
    """The same event of the same content is raised once, however often rules ask for it."""
    told: list[Standing] = []

    def rules(standing: Standing) -> Verdict:
        told.append(standing)
        fingerprint = standing.point.fingerprint
        return Verdict(events=(event("reached_good", fingerprint, "log"),))

    catalog.admit(whole(), QUICK)
    first = queue.finish(claimed(queue), "w", measured(), rules, ask_full)
    second = queue.finish(claimed(queue), "w", measured(), rules, ask_full)
    assert first is not None
    assert second is not None
    assert (first.change is None, second.change) == (False, None)
    assert (first.messages, second.messages) == (1, 0)
    assert [(each.profile, each.old, each.status) for each in told] == [
        ("quick", None, "GOOD"),
        ("full", "GOOD", "GOOD"),
    ]


def test_quick_ones_go_before_full_ones_and_a_person_before_all(
    catalog: Catalog, queue: Queue
) -> None:
    """Whatever their age: the verdict on a new checkpoint never waits for a policy."""
    catalog.admit(whole(step=100), QUICK)
    queue.finish(claimed(queue), "w", measured(), no_alerts, ask_full)
    catalog.admit(whole(step=50), QUICK)
    catalog.admit(whole(step=25), QUICK)
    queue.ask(path_of("a", "checkpoint-25"), FULL, because="me")
    order = [(claim.profile, claim.step) for claim in (claimed(queue) for _ in range(4))]
    assert order == [("full", 25), ("quick", 50), ("quick", 25), ("full", 100)]


def test_the_facts_are_those_of_the_run(catalog: Catalog, queue: Queue) -> None:
    """Place by step, lowest MSE of the others, status before and after, unknown steps last."""
    seen: list[Facts] = []

    def look(facts: Facts) -> None:
        seen.append(facts)

    for step in (300, 100, None, 200):
        catalog.admit(whole(step=step, folder=f"checkpoint-{step}" if step else "best"), QUICK)
    catalog.admit(whole("b", 10), QUICK)
    numbers = {300: ("GOOD", 0.07), 200: ("FAIR", 0.2), 100: ("POOR", 0.9), None: ("FAIR", 0.3)}
    while (claim := queue.claim("w", lease_seconds=60)) is not None:
        grade, mse = numbers.get(claim.step, ("GOOD", 0.01))
        queue.finish(claim, "w", measured(grade, mse), no_alerts, look)
    facts = {fact.step: fact for fact in seen if fact.run_name == "a"}
    assert {step: fact.nth for step, fact in facts.items()} == {100: 1, 200: 2, 300: 3, None: 4}
    assert (facts[300].old, facts[300].status, facts[300].late) == (None, "GOOD", False)
    assert (facts[100].old, facts[100].status, facts[100].late) == ("GOOD", "GOOD", True)
    assert facts[300].best_mse_before is None
    assert facts[100].best_mse_before == 0.07


def test_a_twin_s_known_result_is_followed_too(catalog: Catalog, queue: Queue) -> None:
    """The same content in another run is not measured again; its policy is asked all the same."""
    catalog.admit(whole("a", 100, "same"), QUICK)
    done = queue.finish(claimed(queue), "w", measured(), no_alerts)
    assert done is not None
    catalog.admit(whole("b", 100, "same"), QUICK)
    known = queue.finish_known(claimed(queue), "w", done.result_id, no_alerts, ask_full)
    assert known is not None
    assert known.asked == "the test says so"


def test_unreadable_ones_are_not_followed(catalog: Catalog, queue: Queue) -> None:
    """UNLOADABLE says nothing of the training; no second profile would read it."""
    catalog.admit(whole(), QUICK)
    done = queue.finish(claimed(queue), "w", measured("UNLOADABLE", None), no_alerts, ask_full)
    assert done is not None
    assert done.asked is None
    assert queue.claim("w", lease_seconds=60) is None


def test_asking_tells_what_there_is_already(catalog: Catalog, queue: Queue) -> None:
    """Queued by it, waiting, at work, known: each in turn, and never a second job."""
    catalog.admit(whole(), QUICK)
    path = path_of("a", "checkpoint-100")

    def ask() -> Asking:
        return queue.ask(path, FULL, because="me").did

    assert ask() is Asking.QUEUED
    assert ask() is Asking.WAITS
    claim = claimed(queue)
    assert claim.profile == "full"
    running = queue.ask(path, FULL, because="me")
    assert (running.did, running.worker_id) == (Asking.RUNS, "w")
    queue.finish(claim, "w", measured(), no_alerts)
    known = queue.ask(path, FULL, because="me")
    assert (known.did, known.grade) == (Asking.KNOWN, "GOOD")
    assert [row.profile for row in queue.jobs()].count("full") == 1


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_asking_brings_an_ended_job_back(catalog: Catalog, queue: Queue, end: str) -> None:
    """Quarantined or cancelled: somebody wants it, with all its attempts."""
    catalog.admit(whole(), FULL)
    if end == "fail":
        queue.fail(
            claimed(queue), "w", cause="crash", error="", max_attempts=1, retry_delay_seconds=0
        )
    else:
        queue.cancel(None)
    asked = queue.ask(path_of("a", "checkpoint-100"), FULL, because="me")
    assert asked.did is Asking.QUEUED
    (job,) = queue.jobs(states=[JobState.QUEUED])
    assert (job.attempts, job.asked_because) == (0, "me")


def test_asking_by_other_settings_supersedes(catalog: Catalog, queue: Queue) -> None:
    """Nobody measures by settings that are no more."""
    catalog.admit(whole(), FULL)
    queue.ask(
        path_of("a", "checkpoint-100"), Request(profile="full", settings_hash="f2"), because="me"
    )
    assert {(job.state, job.attempts) for job in queue.jobs()} == {
        (JobState.SUPERSEDED, 0),
        (JobState.QUEUED, 0),
    }


def test_asking_for_the_unknown_or_gone_says_what_to_do(catalog: Catalog, queue: Queue) -> None:
    """No job is made up; a folder of several checkpoints is not guessed from."""
    with pytest.raises(ConfigError, match="nptwatch scan --once"):
        queue.ask("/exp/a/nothing", FULL, because="me")
    catalog.admit(whole(), QUICK)
    catalog.gone([path_of("a", "checkpoint-100")])
    with pytest.raises(ConfigError, match="its files are gone"):
        queue.ask(path_of("a", "checkpoint-100"), FULL, because="me")


def test_best_is_by_the_measure_asked(catalog: Catalog, queue: Queue, history: History) -> None:
    """Lowest MSE or KL, highest cosine; INVALID and unmeasured ones never; reports by result."""
    numbers = {
        100: {"mse": 0.3, "cosine": 0.99, "kl": 0.2},
        200: {"mse": 0.1, "cosine": 0.97, "kl": 0.3},
        300: {"mse": 0.2, "cosine": 0.98, "kl": 0.1},
        400: {"mse": None, "cosine": None, "kl": None, "grade": "INVALID"},
    }
    for step in (*numbers, 500):
        catalog.admit(whole(step=step), QUICK)
    assert history.best("a") is None
    for _ in range(5):
        claim = claimed(queue)
        if claim.step in numbers:
            about = dict(numbers[claim.step])
            grade = str(about.pop("grade", "FAIR"))
            queue.finish(claim, "w", measured(grade, **about), no_alerts)  # type: ignore[arg-type]
    best = {by: history.best("a", by) for by in ("mse", "cosine", "kl")}  # type: ignore[arg-type]
    assert {by: row and row.step for by, row in best.items()} == {
        "mse": 200,
        "cosine": 100,
        "kl": 300,
    }
    ids = [row.result_id for row in history.history("a") if row.result_id is not None]
    assert set(history.reports(ids)) == set(ids)
    assert len(ids) == 4
