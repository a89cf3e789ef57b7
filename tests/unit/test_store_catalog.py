"""What the watcher's reports do to files, checkpoints and jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from stocking import QUICK, ROOT, measured, no_alerts, path_of, seen, whole

from nptwatch.store.records import (
    Admission,
    FileState,
    HistoryRow,
    JobState,
    Request,
    WholeFile,
)

if TYPE_CHECKING:
    from nptwatch.store.catalog import Catalog
    from nptwatch.store.history import History
    from nptwatch.store.queue import Queue


pytestmark = pytest.mark.both_engines


OTHER = Request(profile="quick", settings_hash="s2")


def only_row(history: History, run: str = "a") -> HistoryRow:
    """Give the one row that a run must have."""
    (row,) = history.history(run)
    return row


def test_new_content_is_queued_once(catalog: Catalog, queue: Queue) -> None:
    """A second report of the same file makes no second job."""
    assert catalog.admit(whole(), QUICK) is Admission.QUEUED
    assert catalog.admit(whole(), QUICK) is Admission.KNOWN
    assert queue.depth()[JobState.QUEUED] == 1


def test_touched_file_is_not_measured_again(catalog: Catalog, queue: Queue) -> None:
    """Another signature with the same content is remembered and asks for nothing."""
    catalog.admit(whole(), QUICK)
    assert catalog.admit(whole(signature="2:2:2", mtime_ns=9_999), QUICK) is Admission.KNOWN
    assert catalog.known_files(ROOT)[path_of("a", "checkpoint-100")].signature == "2:2:2"
    assert queue.depth()[JobState.QUEUED] == 1


def test_copy_in_the_run_is_a_twin(catalog: Catalog, history: History) -> None:
    """best/ with the content of a numbered step is the same checkpoint, listed under the step."""
    catalog.admit(whole(folder="best", step=None, content="c"), QUICK)
    assert catalog.admit(whole(step=100, content="c"), QUICK) is Admission.TWIN
    row = only_row(history)
    assert (row.step, row.path) == (100, path_of("a", "checkpoint-100"))
    assert row.also == (path_of("a", "best"),)


def test_copy_in_another_run_has_its_own_job(catalog: Catalog, queue: Queue) -> None:
    """A run's history is its own, though the content is known elsewhere."""
    catalog.admit(whole("a", content="c"), QUICK)
    assert catalog.admit(whole("b", content="c"), QUICK) is Admission.QUEUED
    assert queue.depth()[JobState.QUEUED] == 2


def test_numbered_step_wins_and_stays(catalog: Catalog, history: History) -> None:
    """A twin's step never replaces that of the numbered folder, nor does "unknown" a known one."""
    catalog.admit(whole(step=90, folder="best", content="c"), QUICK)
    catalog.admit(whole(step=100, content="c"), QUICK)
    catalog.admit(whole(step=110, folder="final", content="c"), QUICK)
    catalog.admit(whole(step=None, folder="last", content="c"), QUICK)
    assert only_row(history).step == 100


def test_first_of_two_numbered_steps_stays(catalog: Catalog, history: History) -> None:
    """Training that changed nothing: the content belongs to the step that made it."""
    catalog.admit(whole(step=100, content="c"), QUICK)
    assert catalog.admit(whole(step=200, content="c"), QUICK) is Admission.TWIN
    row = only_row(history)
    assert (row.step, row.also) == (100, (path_of("a", "checkpoint-200"),))


def test_other_request_makes_another_job(catalog: Catalog, queue: Queue, history: History) -> None:
    """New settings ask for a new measurement of known content; what was done stays done."""
    catalog.admit(whole(), QUICK)
    claim = queue.claim("w1", lease_seconds=60)
    assert claim is not None
    queue.finish(claim, "w1", measured(), no_alerts)
    assert catalog.admit(whole(), OTHER) is Admission.QUEUED
    assert queue.depth() == dict.fromkeys(JobState, 0) | {JobState.QUEUED: 1, JobState.DONE: 1}
    assert only_row(history).state == "queued"


def test_other_request_supersedes_the_one_that_waits(
    catalog: Catalog, queue: Queue, history: History
) -> None:
    """Nobody measures by settings that are no more; there and back again leaves one job queued."""
    catalog.admit(whole(), QUICK)
    catalog.admit(whole(), Request(profile="full", settings_hash="s1"))
    assert catalog.admit(whole(), OTHER) is Admission.QUEUED
    (closed,) = queue.jobs(states=[JobState.SUPERSEDED])
    assert (closed.profile, closed.reason) == (
        "quick",
        "was asked for with other settings than those in force",
    )
    assert catalog.admit(whole(), QUICK) is Admission.QUEUED
    assert queue.depth()[JobState.QUEUED] == 2  # quick by the first settings, and full
    assert {(row.profile, row.state) for row in queue.jobs(states=[JobState.QUEUED])} == {
        ("quick", "queued"),
        ("full", "queued"),
    }
    assert only_row(history).full_state == "queued"


def test_history_tells_the_last_job_that_counts(
    catalog: Catalog, queue: Queue, history: History
) -> None:
    """A job superseded by a return to settings that were measured hides no result."""
    catalog.admit(whole(), QUICK)
    claim = queue.claim("w1", lease_seconds=60)
    assert claim is not None
    queue.finish(claim, "w1", measured("GOOD"), no_alerts)
    catalog.admit(whole(), OTHER)
    assert catalog.admit(whole(), QUICK) is Admission.KNOWN
    assert only_row(history).grade == "GOOD"
    assert queue.claim("w1", lease_seconds=60) is None


def test_corrected_base_model_wins_and_is_tried_at_once(catalog: Catalog, queue: Queue) -> None:
    """A wrong name that a job was handed back for is replaced; "unknown" replaces nothing."""
    catalog.admit(replace(whole(), base_model="lama"), QUICK)
    claim = queue.claim("w1", lease_seconds=60)
    assert claim is not None
    queue.release(claim, "w1", reason="no such base", delay_seconds=900)
    catalog.admit(replace(whole(), base_model="lama"), QUICK)
    assert queue.claim("w1", lease_seconds=60) is None
    catalog.admit(replace(whole(), base_model="llama"), QUICK)
    catalog.admit(replace(whole(), base_model=None), QUICK)
    again = queue.claim("w1", lease_seconds=60)
    assert again is not None
    assert again.base_model == "llama"


def test_overwritten_queued_content_is_superseded(catalog: Catalog, queue: Queue) -> None:
    """Content that no file holds any more is not measured, and the reason is stored."""
    catalog.admit(whole(folder="best", content="old"), QUICK)
    assert catalog.admit(whole(folder="best", content="new"), QUICK) is Admission.QUEUED
    (closed,) = queue.jobs(states=[JobState.SUPERSEDED])
    assert closed.reason is not None
    assert "overwritten" in closed.reason
    assert queue.depth()[JobState.QUEUED] == 1


def test_overwritten_content_with_a_twin_stays_queued(catalog: Catalog, queue: Queue) -> None:
    """best/ moving on takes nothing from the numbered folder with the old content."""
    catalog.admit(whole(step=100, content="old"), QUICK)
    catalog.admit(whole(folder="best", step=100, content="old"), QUICK)
    catalog.admit(whole(folder="best", step=200, content="new"), QUICK)
    assert queue.depth()[JobState.QUEUED] == 2
    assert queue.depth()[JobState.SUPERSEDED] == 0


def test_leased_job_survives_an_overwrite(catalog: Catalog, queue: Queue) -> None:
    """What a worker has in hand is its own to end."""
    catalog.admit(whole(folder="best", content="old"), QUICK)
    queue.claim("w1", lease_seconds=60)
    catalog.admit(whole(folder="best", content="new"), QUICK)
    assert queue.depth()[JobState.LEASED] == 1


def test_rewrite_in_progress_withdraws_the_old_job_and_revives_it(
    catalog: Catalog, queue: Queue
) -> None:
    """A file that settles again has no content to measure; the same content brings its job back."""
    catalog.admit(whole(), QUICK)
    catalog.note(seen(signature="2:2:2"), FileState.SETTLING, "changed")
    assert queue.claim("w1", lease_seconds=60) is None
    assert queue.depth()[JobState.SUPERSEDED] == 1
    assert catalog.admit(whole(signature="2:2:2"), QUICK) is Admission.QUEUED
    assert queue.claim("w1", lease_seconds=60) is not None


def test_a_note_of_an_older_look_takes_nothing_back(catalog: Catalog, queue: Queue) -> None:
    """A slow watcher saw the file half-written; another one has admitted it meanwhile."""
    catalog.admit(whole(mtime_ns=2_000, size_bytes=8), QUICK)
    for older in ({"mtime_ns": 1_999, "size_bytes": 9}, {"mtime_ns": 2_000, "size_bytes": 0}):
        catalog.note(seen(**older), FileState.SETTLING, "half-written")
    assert catalog.known_files(ROOT)[path_of("a", "checkpoint-100")].state is FileState.WHOLE
    assert queue.claim("w1", lease_seconds=60) is not None


def test_deleted_files_close_their_jobs(catalog: Catalog, queue: Queue) -> None:
    """Rotation before the diagnosis ends the job as deleted, with a reason; a twin keeps it."""
    catalog.admit(whole(step=100), QUICK)
    catalog.admit(whole(step=200, content="c"), QUICK)
    catalog.admit(whole(step=200, folder="best", content="c"), QUICK)
    paths = [path_of("a", "checkpoint-100"), path_of("a", "checkpoint-200")]
    assert catalog.gone(paths) == 1
    assert catalog.gone(paths) == 0
    (closed,) = queue.jobs(states=[JobState.DELETED])
    assert (closed.step, bool(closed.reason)) == (100, True)
    assert set(catalog.known_files(ROOT)) == {path_of("a", "best")}


def test_file_that_comes_back_is_queued_again(catalog: Catalog, queue: Queue) -> None:
    """A deleted, never measured content is measured when it returns."""
    catalog.admit(whole(), QUICK)
    catalog.gone([path_of("a", "checkpoint-100")])
    assert catalog.admit(whole(), QUICK) is Admission.QUEUED
    assert queue.claim("w1", lease_seconds=60) is not None


def close_as_damaged(queue: Queue) -> int:
    """Let a worker find that no file of the queued job can be read; give the job."""
    claim = queue.claim("w1", lease_seconds=60)
    assert claim is not None
    closed = queue.close(
        claim.job_id, "w1", JobState.UNLOADABLE, "CRC of data/0 is wrong", looked_at=claim.paths
    )
    assert closed is JobState.UNLOADABLE
    return claim.job_id


def test_damaged_content_is_told_and_not_asked_for_again(
    catalog: Catalog, queue: Queue, history: History
) -> None:
    """A restart that finds the same bytes repeats nothing; history says state and reason."""
    catalog.admit(whole(), QUICK)
    close_as_damaged(queue)
    assert catalog.admit(whole(), QUICK) is Admission.KNOWN
    row = only_row(history)
    assert (row.state, row.reason, row.grade) == ("unloadable", "CRC of data/0 is wrong", None)


@pytest.mark.parametrize(
    "sound",
    [whole(signature="1:2:1"), whole(folder="final", content="content-a-100")],
    ids=["rewritten", "a sound twin"],
)
def test_damaged_content_is_queued_again_when_it_may_be_sound(
    catalog: Catalog, queue: Queue, sound: WholeFile
) -> None:
    """Damage is of one file's bytes: rewritten with the same directory, or copied, it may be well."""
    catalog.admit(whole(), QUICK)
    job_id = close_as_damaged(queue)
    assert catalog.admit(sound, QUICK) is Admission.QUEUED
    again = queue.claim("w1", lease_seconds=60)
    assert again is not None
    assert again.job_id == job_id


def test_damaged_content_that_settled_anew_is_queued_again(catalog: Catalog, queue: Queue) -> None:
    """A rewrite that was seen on its way leaves no trace of the old signature, and still counts."""
    catalog.admit(whole(), QUICK)
    close_as_damaged(queue)
    catalog.note(seen(signature="1:2:1"), FileState.SETTLING, "half-written")
    assert catalog.admit(whole(signature="1:2:1"), QUICK) is Admission.QUEUED


@pytest.mark.parametrize("ending", [JobState.DONE, JobState.FAILED, JobState.CANCELLED])
def test_ended_jobs_are_not_revived(catalog: Catalog, queue: Queue, ending: JobState) -> None:
    """Done is done, quarantine and a person's word hold, whatever the disk does."""
    catalog.admit(whole(), QUICK)
    if ending is JobState.CANCELLED:
        queue.cancel()
    else:
        claim = queue.claim("w1", lease_seconds=60)
        assert claim is not None
        if ending is JobState.DONE:
            queue.finish(claim, "w1", measured(), no_alerts)
        else:
            queue.fail(claim, "w1", cause="crash", error="", max_attempts=1, retry_delay_seconds=0)
    catalog.gone([path_of("a", "checkpoint-100")])
    assert catalog.admit(whole(), QUICK) is Admission.KNOWN
    assert queue.depth()[ending] == 1


def test_deleting_thousands_of_files_is_one_call(catalog: Catalog) -> None:
    """A removed experiment may hold more files than SQLite takes values in a statement."""
    catalog.admit(whole(), QUICK)
    names = [path_of("a", f"checkpoint-{number}") for number in range(40_000)]
    assert catalog.gone(names) == 1


def test_files_without_content_are_remembered(catalog: Catalog, history: History) -> None:
    """A file that never became whole is listed with its reason, and not as a checkpoint."""
    catalog.note(seen(), FileState.SETTLING, "no ZIP directory yet")
    catalog.note(seen(), FileState.UNLOADABLE, "truncated")
    known = catalog.known_files(ROOT)[path_of("a", "checkpoint-100")]
    assert (known.state, known.reason, known.fingerprint) == ("unloadable", "truncated", None)
    row = only_row(history)
    assert (row.state, row.step, row.fingerprint, row.job_id) == ("unloadable", 100, None, None)


@pytest.mark.parametrize("state", [FileState.WHOLE, FileState.DELETED])
def test_note_refuses_states_with_content(catalog: Catalog, state: FileState) -> None:
    """Whole files come through admit, deleted ones through gone."""
    with pytest.raises(ValueError, match="note takes one of"):
        catalog.note(seen(), state, "")


def test_known_files_are_those_of_the_root(catalog: Catalog) -> None:
    """Each watched root asks for its own files."""
    catalog.admit(whole(), QUICK)
    assert catalog.known_files("/elsewhere") == {}
    assert list(catalog.known_files(ROOT)) == [path_of("a", "checkpoint-100")]


def test_files_are_known_by_their_paths(catalog: Catalog) -> None:
    """More are asked for than one statement takes; unknown and deleted ones are left out."""
    paths = [path_of("a", f"checkpoint-{n}") for n in range(1_200)]
    for n in (1, 2, 1_199):
        catalog.admit(whole(step=n, content=str(n)), QUICK)
    catalog.gone([paths[2]])
    known = catalog.known_among(paths)
    assert known.keys() == {paths[1], paths[1_199]}
    assert known[paths[1]] == catalog.known_files(ROOT)[paths[1]]
    assert catalog.known_among([]) == {}


def test_paths_that_nobody_has_seen(catalog: Catalog) -> None:
    """They are those below the root that were not deleted already."""
    paths = [path_of("a", f"checkpoint-{n}") for n in (1, 2, 3)]
    for n in (1, 2, 3):
        catalog.admit(whole(step=n, content=str(n)), QUICK)
    catalog.gone([paths[1]])
    assert catalog.unseen(ROOT, lambda path: path == paths[0]) == [paths[2]]
    assert catalog.unseen("/elsewhere", lambda _path: False) == []
