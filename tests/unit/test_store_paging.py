"""Lists in pages by key: nothing twice, nothing left out, whatever happens between two pages."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from stocking import QUICK, alert_good, claimed, measured, path_of, seen, whole

from nptwatch.errors import ConfigError
from nptwatch.store.records import FileState, JobState

if TYPE_CHECKING:
    from conftest import FakeClock

    from nptwatch.store.catalog import Catalog
    from nptwatch.store.history import History
    from nptwatch.store.queue import Queue
    from nptwatch.store.records import HistoryRow

pytestmark = pytest.mark.both_engines


@pytest.fixture
def run(catalog: Catalog, clock: FakeClock) -> str:
    """Give a run with equal steps, equal times, unknown steps, and files that are not whole."""
    for step in (300, 100, 200, 100, 400):
        catalog.admit(whole(step=step, folder=f"checkpoint-{step}", content=f"v{clock()}"), QUICK)
        clock.advance(step % 3)  # some in the same moment
    for name in ("x", "Y", "z", "é", "y"):  # sorted by code, not as a dictionary does
        catalog.admit(whole(step=None, folder=name, content=name), QUICK)
        catalog.admit(whole(step=500, folder=f"e/{name}", content=f"e{name}"), QUICK)
    catalog.note(seen(folder="checkpoint-250"), FileState.SETTLING, "half")
    catalog.note(seen(folder="checkpoint-100000"), FileState.UNLOADABLE, "cut")
    catalog.note(seen(folder="w"), FileState.SETTLING, "half")
    return "a"


def paths(rows: list[HistoryRow]) -> list[tuple[int | None, str]]:
    """Name rows."""
    return [(row.step, row.path) for row in rows]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
def test_pages_together_are_the_history(run: str, history: History, limit: int) -> None:
    """Forward from the first and backward from the last."""
    every = history.history(run)
    assert len(every) >= 17
    forward: list[HistoryRow] = history.history(run)[:1]
    while page := history.history(run, limit=limit, after=str(forward[-1].key)):
        assert len(page) <= limit
        forward += page
    assert paths(forward) == paths(every)
    backward = history.history(run, limit=limit)
    while page := history.history(run, limit=limit, before=str(backward[0].key)):
        assert len(page) <= limit
        backward = page + backward
    assert paths(backward) == paths(every)


def test_a_page_between_two_keys(run: str, history: History) -> None:
    """Both ends are left out; a step to begin at holds for pages too."""
    every = history.history(run)
    first, last = str(every[3].key), str(every[-2].key)
    assert paths(history.history(run, after=first, before=last)) == paths(every[4:-2])
    assert paths(history.history(run, after=first, before=last, limit=2)) == paths(every[-4:-2])
    since = [row for row in every if row.step is not None and row.step >= 250]
    assert paths(history.history(run, since_step=250, limit=3)) == paths(since[-3:])
    first = str(every[0].key)
    assert paths(history.history(run, since_step=250, after=first, limit=3)) == paths(since[:3])


def test_what_is_added_or_gone_shifts_no_page(run: str, catalog: Catalog, history: History) -> None:
    """The next page begins behind the last row that was seen, though it is no more."""
    every = history.history(run)
    page = history.history(run, limit=4, before=str(every[8].key))
    assert paths(page) == paths(every[4:8])
    catalog.admit(whole(step=150), QUICK)
    catalog.note(seen(folder="checkpoint-600"), FileState.SETTLING, "new")
    catalog.gone([path_of("a", "checkpoint-250")])
    before = history.history(run, limit=2, before=str(page[0].key))
    assert before[-1].step in {150, every[3].step}
    assert not set(paths(before)) & set(paths(page))


def test_jobs_in_pages(
    run: str, catalog: Catalog, queue: Queue, history: History, clock: FakeClock
) -> None:
    """Last changed first, many of them in one moment; by state and run too."""
    del run
    for number in range(4):
        clock.advance(number % 2)
        queue.fail(claimed(queue), "w", cause="x", error="", max_attempts=1, retry_delay_seconds=0)
    catalog.admit(whole("b", 1), QUICK)
    for only in ({}, {"states": [JobState.FAILED]}, {"run": "a"}, {"states": list(JobState)[:4]}):
        every = [job.job_id for job in queue.jobs(limit=99, **only)]
        assert len(every) >= 4
        page = queue.jobs(limit=3, **only)
        found = [job.job_id for job in page]
        while page := queue.jobs(limit=3, before=str(page[-1].key), **only):
            found += [job.job_id for job in page]
        assert found == every
    changed = [(job.updated_at, job.job_id) for job in queue.jobs(limit=99)]
    assert changed == sorted(changed, reverse=True)
    assert history.run("b").open_jobs == 1


def test_changes_in_pages(
    catalog: Catalog, queue: Queue, history: History, clock: FakeClock
) -> None:
    """By number, the last one first; and since a time."""
    for step in range(1, 8):
        catalog.admit(whole("a", step), QUICK)
        clock.advance(10)
        grade = "GOOD" if step % 2 else "FAIR"
        assert queue.finish(claimed(queue), "w", measured(grade), alert_good)
    every = history.changes()
    assert [row.step for row in every] == [7, 6, 5, 4, 3, 2, 1]
    assert history.changes("a", 3, before=every[2].change_id) == every[3:6]
    assert history.changes(since=clock() - timedelta(seconds=20)) == every[:3]


@pytest.mark.parametrize(
    "key", ["", "400", "x@1@/p", "1@x@/p", "1@2", f"{10**30}@1@/p", f"1@{10**30}@/p"]
)
def test_what_is_no_key_is_refused(run: str, history: History, queue: Queue, key: str) -> None:
    """The message says where keys come from."""
    with pytest.raises(ConfigError, match="nptwatch history"):
        history.history(run, after=key)
    if not key.startswith("1@2"):
        with pytest.raises(ConfigError, match="nptwatch jobs"):
            queue.jobs(before=key)
