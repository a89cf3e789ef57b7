"""What people are told of runs, checkpoints, changes and alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stocking import QUICK, alert_good, measured, no_alerts, path_of, seen, whole

from nptwatch.errors import ConfigError
from nptwatch.store.alarms import Alarms
from nptwatch.store.records import FileState, Request

if TYPE_CHECKING:
    from conftest import FakeClock

    from nptwatch.store.catalog import Catalog
    from nptwatch.store.engine import Database
    from nptwatch.store.history import History
    from nptwatch.store.queue import Queue


pytestmark = pytest.mark.both_engines


def measure_all(queue: Queue, grade: str = "GOOD", mse: float = 0.07) -> None:
    """Finish whatever is queued."""
    while (claimed := queue.claim("w1", lease_seconds=60)) is not None:
        queue.finish(claimed, "w1", measured(grade, mse), alert_good)


def test_history_is_by_step_unknown_last(catalog: Catalog, history: History) -> None:
    """Whatever order checkpoints were found in, they are told in order of training."""
    for step in (300, 100, 200):
        catalog.admit(whole(step=step), QUICK)
    catalog.admit(whole(step=None, folder="x", content="x"), QUICK)
    catalog.note(seen(folder="checkpoint-150"), FileState.SETTLING, "not whole yet")
    assert [row.step for row in history.history("a")] == [100, 150, 200, 300, None]
    assert [row.step for row in history.history("a", limit=2)] == [300, None]
    assert history.history("a", limit=0) == []


def test_path_is_one_that_is_still_there(catalog: Catalog, history: History) -> None:
    """The numbered name while it is whole, then any whole one, then the numbered one again."""

    def names() -> tuple[str, tuple[str, ...]]:
        (row,) = history.history("a")
        return row.path, row.also

    numbered, best, final = (path_of("a", name) for name in ("checkpoint-100", "best", "final"))
    catalog.admit(whole(folder="final", step=100, content="c"), QUICK)
    catalog.admit(whole(step=100, content="c"), QUICK)
    catalog.admit(whole(folder="best", step=100, content="c"), QUICK)
    assert names() == (numbered, (best, final))
    catalog.gone([numbered])
    assert names() == (best, (final,))
    catalog.gone([best, final])
    assert names() == (numbered, ())


def test_overwritten_content_keeps_its_last_name(
    catalog: Catalog, queue: Queue, history: History
) -> None:
    """A measured version of best/ stays in the history when best/ has moved on."""
    catalog.admit(whole(folder="best", step=100, content="old"), QUICK)
    measure_all(queue)
    catalog.admit(whole(folder="best", step=200, content="new"), QUICK)
    old, new = history.history("a")
    assert old.path == new.path == path_of("a", "best")
    assert (old.grade, new.grade) == ("GOOD", None)


def test_last_request_of_a_profile_is_told(
    catalog: Catalog, queue: Queue, history: History
) -> None:
    """New settings replace the row of the old ones; another profile stands in the same row."""
    catalog.admit(whole(), QUICK)
    measure_all(queue, "POOR", 1.0)
    catalog.admit(whole(), Request(profile="quick", settings_hash="s2"))
    measure_all(queue, "GOOD", 0.07)
    catalog.admit(whole(), Request(profile="full", settings_hash="s1"))
    rows = history.history("a")
    assert [(row.profile, row.grade, row.state, row.full_state) for row in rows] == [
        ("quick", "GOOD", "done", "queued"),
    ]


def test_runs_count_and_rank(catalog: Catalog, queue: Queue, history: History) -> None:
    """Each run has its counts, newest and best checkpoint; runs without results say so."""
    catalog.admit(whole("a", 100), QUICK)
    measure_all(queue, "GOOD", 0.06)
    catalog.admit(whole("a", 200), QUICK)
    measure_all(queue, "GOOD", 0.08)
    catalog.admit(whole("a", 300), QUICK)
    poison = queue.claim("w1", lease_seconds=60)
    assert poison is not None
    queue.fail(poison, "w1", cause="crash", error="", max_attempts=1, retry_delay_seconds=0)
    catalog.admit(whole("b", 1), QUICK)
    first, second = history.runs()
    assert (first.run, first.status, first.step, first.mse) == ("a", "GOOD", 200, 0.08)
    assert (first.checkpoints, first.done, first.failed, first.open_jobs) == (3, 2, 1, 0)
    assert (first.best_mse, first.best_step) == (0.06, 100)
    assert first.checkpoint_path == path_of("a", "checkpoint-200")
    assert (second.run, second.status, second.step, second.open_jobs) == ("b", None, None, 1)


def test_run_is_found_by_name_path_or_end(catalog: Catalog, history: History) -> None:
    """What people type first: the name, the path, the last part of it."""
    catalog.admit(whole("x/lr-3", 1), QUICK)
    catalog.admit(whole("y/lr-4", 1), QUICK)
    for wanted in ("x/lr-3", "/exp/x/lr-3", "/exp/x/lr-3/", "lr-3"):
        assert history.run(wanted).run == "x/lr-3"


def test_unknown_and_ambiguous_runs_are_told(catalog: Catalog, history: History) -> None:
    """The message helps: names that come close, or the paths to choose from."""
    with pytest.raises(ConfigError, match="no run is known yet"):
        history.run("a")
    catalog.admit(whole("x/base", 1), QUICK)
    catalog.admit(whole("y/base", 1), QUICK)
    with pytest.raises(ConfigError, match=r"several runs: /exp/x/base, /exp/y/base"):
        history.history("base")
    with pytest.raises(ConfigError, match="did you mean x/base"):
        history.run("x/bsae")
    with pytest.raises(ConfigError, match="no run 'ase'"):
        history.changes("ase")


def test_show_finds_by_path_folder_and_job(
    catalog: Catalog, queue: Queue, history: History
) -> None:
    """A checkpoint is named by its file, its folder or the job's number."""
    catalog.admit(whole(step=100), QUICK)
    measure_all(queue)
    catalog.admit(whole(step=200), QUICK)
    file = path_of("a", "checkpoint-100")
    for name in (file, file.removesuffix("/npt_weights.pt"), "1"):
        row, details = history.show(name)
        assert (row.step, details) == (100, {"grade": "GOOD"})
    assert history.show("2")[1] is None
    for name in ("/exp/a", "99", "/exp/a/checkpoints/checkpoint-1", ""):
        with pytest.raises(ConfigError, match="nothing is known"):
            history.show(name)


def test_show_finds_what_is_gone_or_never_was(
    catalog: Catalog, queue: Queue, history: History
) -> None:
    """A deleted checkpoint still has its report, an unloadable file its reason."""
    catalog.admit(whole(step=100), QUICK)
    measure_all(queue)
    catalog.gone([path_of("a", "checkpoint-100")])
    assert history.show(path_of("a", "checkpoint-100"))[1] == {"grade": "GOOD"}
    catalog.note(seen(folder="checkpoint-200"), FileState.UNLOADABLE, "truncated")
    row, details = history.show(path_of("a", "checkpoint-200"))
    assert (row.state, row.reason, details) == ("unloadable", "truncated", None)


def test_changes_and_alerts_come_last_first(
    database: Database, catalog: Catalog, queue: Queue, history: History, clock: FakeClock
) -> None:
    """The story of the runs, newest chapter on top; one run's on request."""
    for run, step, grade in (("a", 1, "FAIR"), ("a", 2, "GOOD"), ("b", 1, "GOOD")):
        catalog.admit(whole(run, step), QUICK)
        clock.advance(1)
        measure_all(queue, grade)
    assert [(row.run, row.old, row.new) for row in history.changes()] == [
        ("b", None, "GOOD"),
        ("a", "FAIR", "GOOD"),
        ("a", None, "FAIR"),
    ]
    assert [row.new for row in history.changes("a", limit=1)] == ["GOOD"]
    alarms = Alarms(database)
    assert [event.run for event in alarms.events()] == ["b", "a"]
    assert [event.payload["step"] for event in alarms.events(run="a")] == [2]


def test_result_without_alerts_is_history_too(
    database: Database, catalog: Catalog, queue: Queue, history: History
) -> None:
    """No rule fired: the change is there all the same."""
    catalog.admit(whole(), QUICK)
    claimed = queue.claim("w1", lease_seconds=60)
    assert claimed is not None
    queue.finish(claimed, "w1", measured(), no_alerts)
    assert (len(history.changes()), Alarms(database).events()) == (1, [])
