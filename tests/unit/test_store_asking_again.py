"""What was asked is not lost when settings change, files come and go, or a process dies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from stocking import (
    FULL,
    QUICK,
    ask_full,
    claimed,
    measured,
    no_alerts,
    path_of,
    seen,
    whole,
)

from nptwatch.store.records import Demand, Facts, FileState, JobState

if TYPE_CHECKING:
    from nptwatch.store.catalog import Catalog
    from nptwatch.store.history import History
    from nptwatch.store.queue import Queue

pytestmark = pytest.mark.both_engines


OTHER_FULL = replace(FULL, settings_hash="f2")
OTHER_QUICK = replace(QUICK, settings_hash="s2")


def states(queue: Queue) -> list[JobState]:
    """States of the full diagnostic's jobs, one for each settings it was asked for with."""
    return sorted(job.state for job in queue.jobs() if job.profile == "full")


def with_full(catalog: Catalog, queue: Queue) -> None:
    """One checkpoint, measured quickly; its full diagnostic is asked for."""
    catalog.admit(whole(), QUICK)
    queue.finish(claimed(queue), "w", measured(), no_alerts, ask_full)


def test_result_and_what_follows_it_are_one_transaction(catalog: Catalog, queue: Queue) -> None:
    """A process that dies while the policy decides has recorded nothing: it is measured again."""

    def die(_facts: Facts) -> Demand:
        raise KeyboardInterrupt

    catalog.admit(whole(), QUICK)
    claim = claimed(queue)
    with pytest.raises(KeyboardInterrupt):
        queue.finish(claim, "w", measured(), no_alerts, die)
    assert queue.known_result(claim, base_revision="base-1") is None
    assert [job.state for job in queue.jobs()] == [JobState.LEASED]
    assert queue.finish(claim, "w", measured(), no_alerts, ask_full) is not None
    assert sorted(job.state for job in queue.jobs()) == [JobState.DONE, JobState.QUEUED]


def test_a_wish_outlives_a_change_of_settings(catalog: Catalog, queue: Queue) -> None:
    """The worker that meets it asks by its own settings, as urgently and for the same reason."""
    with_full(catalog, queue)
    queue.ask(path_of("a", "checkpoint-100"), FULL, because="me")
    catalog.admit(whole(step=200), QUICK)
    old = claimed(queue)
    assert old.settings_hash == "f1"
    assert queue.ask_again(old.job_id, "w", OTHER_FULL)
    new = claimed(queue)
    assert (new.profile, new.settings_hash, new.step) == ("full", "f2", 100)
    (job,) = queue.jobs(states=[JobState.LEASED])
    assert job.asked_because == "me"
    (job,) = queue.jobs(states=[JobState.SUPERSEDED])
    assert "other settings" in (job.reason or "")


def test_settings_that_are_changed_back_find_their_job(catalog: Catalog, queue: Queue) -> None:
    """There is one job for each settings, whichever way they change, and one of them is open."""
    with_full(catalog, queue)
    assert queue.ask_again(claimed(queue).job_id, "w", OTHER_FULL)
    assert queue.ask_again(claimed(queue).job_id, "w", FULL)
    back = claimed(queue)
    assert back.settings_hash == "f1"
    assert states(queue) == [JobState.LEASED, JobState.SUPERSEDED]


def test_asking_again_without_the_lease_writes_nothing(catalog: Catalog, queue: Queue) -> None:
    """The job is another worker's by now."""
    with_full(catalog, queue)
    job_id = claimed(queue).job_id
    assert not queue.ask_again(job_id, "somebody else", OTHER_FULL)
    assert states(queue) == [JobState.LEASED]


def test_new_settings_supersede_the_full_one_too(catalog: Catalog, queue: Queue) -> None:
    """Its quick one is measured by the new settings; then the full one is asked by them."""
    with_full(catalog, queue)
    catalog.admit(whole(), OTHER_QUICK)
    claim = claimed(queue)
    assert claim.settings_hash == "s2"
    facts: list[Facts] = []

    def again(found: Facts) -> Demand:
        facts.append(found)
        return Demand(request=OTHER_FULL, because="asked before, with other settings")

    queue.finish(claim, "w", measured(), no_alerts, again)
    assert facts[0].asked_before == {"f1"}
    assert states(queue) == [JobState.QUEUED, JobState.SUPERSEDED]
    assert claimed(queue).settings_hash == "f2"


@pytest.mark.parametrize("way", ["rewritten", "deleted"])
def test_a_file_that_is_back_has_its_full_diagnostic(
    catalog: Catalog, queue: Queue, way: str
) -> None:
    """A file touched, or away for a while, loses nothing that was asked of its content."""
    with_full(catalog, queue)
    if way == "deleted":
        catalog.gone([path_of("a", "checkpoint-100")])
    else:
        catalog.note(seen(), FileState.SETTLING, "changed a moment ago")
    assert queue.claim("w", lease_seconds=60) is None
    catalog.admit(whole(), QUICK)
    full = claimed(queue)
    assert (full.profile, full.settings_hash) == ("full", "f1")
    assert queue.claim("w", lease_seconds=60) is None


def test_a_cancelled_full_diagnostic_stays_so(catalog: Catalog, queue: Queue) -> None:
    """What a person has ended, no file brings back."""
    with_full(catalog, queue)
    queue.cancel()
    catalog.gone([path_of("a", "checkpoint-100")])
    catalog.admit(whole(), QUICK)
    assert states(queue) == [JobState.CANCELLED]


def test_history_has_the_numbers_of_what_was_asked_last(
    catalog: Catalog, queue: Queue, history: History
) -> None:
    """The full one's, then the quick one's by new settings; READY stays until it is asked again."""
    with_full(catalog, queue)
    result = measured(mse=0.08, overall_status="READY", avg_score=0.9)
    queue.finish(claimed(queue), "w", result, no_alerts)
    (row,) = history.history("a")
    assert (row.mse, row.overall_status, row.profile) == (0.08, "READY", "quick+full")
    shown, _ = history.show(path_of("a", "checkpoint-100"))
    assert shown == row
    catalog.admit(whole(), OTHER_QUICK)
    queue.finish(claimed(queue), "w", measured(mse=0.06), no_alerts)
    (row,) = history.history("a")
    assert (row.mse, row.overall_status, row.avg_score) == (0.06, "READY", 0.9)


def test_a_full_one_without_numbers_hides_none(
    catalog: Catalog, queue: Queue, history: History
) -> None:
    """Refused the second time: what was measured the first time is still told."""
    with_full(catalog, queue)
    queue.finish(claimed(queue), "w", measured("UNLOADABLE", None), no_alerts)
    (row,) = history.history("a")
    assert (row.grade, row.mse, row.full_state) == ("GOOD", 0.07, "done")


def test_a_full_one_that_failed_is_told_beside_the_numbers(
    catalog: Catalog, queue: Queue, history: History
) -> None:
    """The row is the quick result's; the full job's state says the rest."""
    with_full(catalog, queue)
    full = claimed(queue)
    queue.fail(full, "w", cause="crash", error="", max_attempts=1, retry_delay_seconds=0)
    (row,) = history.history("a")
    assert (row.profile, row.state, row.grade, row.full_state) == (
        "quick",
        "done",
        "GOOD",
        "failed",
    )
