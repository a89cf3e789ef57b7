"""`nptwatch db vacuum`, and pages by key from the command line; called in this process."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from stocking import QUICK, alert_good, claimed, measured, path_of, whole

from nptwatch.cli.main import main
from nptwatch.store.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import FakeClock

    from nptwatch.store.catalog import Catalog
    from nptwatch.store.engine import Database
    from nptwatch.store.queue import Queue


@pytest.fixture
def clock(clock: FakeClock) -> FakeClock:
    """Give a clock that is 100 days behind."""
    clock.now = datetime.now(UTC) - timedelta(days=100)
    return clock


@pytest.fixture
def state(tmp_path: Path, catalog: Catalog, queue: Queue) -> Path:
    """Give a state folder: four checkpoints of long ago, all gone."""
    for step in (1, 2, 3, 4):
        catalog.admit(whole(step=step), QUICK)
        assert queue.finish(claimed(queue), "w", measured("FAIR", 0.5 - step / 10), alert_good)
    catalog.gone([path_of("a", f"checkpoint-{step}") for step in (1, 2, 3, 4)])
    return tmp_path


@pytest.fixture
def call(state: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Give a function that calls the command and gives what it printed."""

    def run(*arguments: str, code: int = 0) -> tuple[str, str]:
        assert main([*arguments, "--state-dir", str(state)]) == code
        captured = capsys.readouterr()
        return captured.out, captured.err

    return run


def steps(call: Callable[..., tuple[str, str]], *options: str) -> list[int]:
    """Give the steps of a history."""
    return [row["step"] for row in json.loads(call("history", "a", "--json", *options)[0])]


def test_vacuum_forgets_what_it_foretold(call: Callable[..., tuple[str, str]]) -> None:
    """A dry run changes nothing; then the same is gone."""
    out, _ = call("db", "vacuum", "--keep-days", "90", "--dry-run")
    assert out == ("would forget, older than 90 days: 2 checkpoints, 2 jobs, 2 results, 2 files\n")
    assert steps(call) == [1, 2, 3, 4]
    out, _ = call("db", "vacuum", "--keep-days", "90")
    forgot, vacuumed = out.splitlines()
    assert forgot == "forgot, older than 90 days: 2 checkpoints, 2 jobs, 2 results, 2 files"
    assert vacuumed.startswith("vacuumed: ")
    assert steps(call) == [1, 4]


def test_vacuum_as_json(call: Callable[..., tuple[str, str]]) -> None:
    """Everything that a script may want to know."""
    told: dict[str, Any] = json.loads(call("db", "vacuum", "--keep-days", "90", "--json")[0])
    assert told["forgotten"] == {"checkpoints": 2, "jobs": 2, "results": 2, "files": 2}
    assert (told["keep_days"], told["dry_run"], told["recounted_runs"]) == (90, False, 0)
    assert told["vacuumed"]["after_bytes"] > 0
    assert told["not_vacuumed_because"] is None


def test_by_default_nothing_is_forgotten(
    call: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until database.keep_days says so, in the environment as well."""
    assert "database.keep_days is 0" in call("db", "vacuum")[0]
    assert steps(call) == [1, 2, 3, 4]
    monkeypatch.setenv("NPTWATCH_DATABASE__KEEP_DAYS", "99")
    assert "2 checkpoints" in call("db", "vacuum")[0]


def test_a_file_is_not_written_anew_under_a_worker(
    call: Callable[..., tuple[str, str]], database: Database
) -> None:
    """It would be refused its writes for as long; old rows are forgotten all the same."""
    Workers(database).register("w", "host", 1, "cpu")
    out, err = call("db", "vacuum", "--keep-days", "90")
    assert "forgot" in out
    assert "vacuumed" not in out
    assert err == "the file was not made smaller: 1 worker at work; stop the daemon first\n"


def test_history_pages_by_key(call: Callable[..., tuple[str, str]]) -> None:
    """Each row of the JSON says where it is; a page begins behind or ends before it."""
    last = json.loads(call("history", "a", "--limit", "2", "--json")[0])
    assert [row["step"] for row in last] == [3, 4]
    assert steps(call, "--limit", "1", "--before", last[0]["key"]) == [2]
    assert steps(call, "--limit", "1", "--after", last[0]["key"]) == [4]
    assert steps(call, "--after", last[1]["key"]) == []
    assert "no checkpoints of a there" in call("history", "a", "--after", last[1]["key"])[1]
    assert "is no key" in call("history", "a", "--after", "x", code=2)[1]


@pytest.mark.parametrize("verb", [["jobs"], ["jobs", "list"]])
def test_jobs_page_by_key(call: Callable[..., tuple[str, str]], verb: list[str]) -> None:
    """The key of the last job of a page is where the next begins."""
    page = json.loads(call(*verb, "--limit", "3", "--json")[0])
    rest = json.loads(call(*verb, "--before", page[-1]["key"], "--json")[0])
    assert [job["step"] for job in page + rest] == [4, 3, 2, 1]
