"""The SQL views say what the history says, whatever happened to the checkpoints."""

from __future__ import annotations

import random
import re
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import inspect, text
from stocking import FULL, QUICK, alert_good, claimed, measured, path_of, seen, whole

from nptwatch.store.checking import findings
from nptwatch.store.history import History
from nptwatch.store.records import FileState, HistoryRow, JobState, Request, RunRow
from nptwatch.store.runs import MEASURES
from nptwatch.store.tables import VIEWS

if TYPE_CHECKING:
    from conftest import FakeClock

    from nptwatch.store.catalog import Catalog
    from nptwatch.store.engine import Database
    from nptwatch.store.queue import Queue

pytestmark = pytest.mark.both_engines

RUNS = ("a", "b")
OTHER_QUICK = Request(profile="quick", settings_hash="s2")
OTHER_FULL = Request(profile="full", settings_hash="f2")
REQUESTS = (QUICK, OTHER_QUICK, FULL, OTHER_FULL)
RESULTS = (
    ("EXCELLENT", 0.01),
    ("GOOD", 0.07),
    ("GOOD", 0.07),
    ("FAIR", 0.3),
    ("POOR", 0.9),
    ("INVALID", None),
    ("INVALID", 0.001),
    ("UNLOADABLE", None),
)
PAGE = Path(__file__).parents[2] / "docs" / "views.md"


def live(  # noqa: C901 - one branch for each thing that can happen
    catalog: Catalog, queue: Queue, clock: FakeClock, *, seed: int, events: int
) -> None:
    """Let checkpoints be found, measured, asked again, damaged, overwritten and forgotten."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(events):
        clock.advance(chance.choice([0, 1, 60]))
        run, step = chance.choice(RUNS), chance.choice([100, 200, 300, None])
        folder = f"checkpoint-{step}" if step else "best"
        event = chance.random()
        if event < 0.35:
            content = f"{run}-{step}-{chance.choice('xy')}"
            file = whole(run, step, content, folder=folder)
            catalog.admit(file, chance.choice(REQUESTS[:2]))
        elif event < 0.45:
            known = [job.job_id for job in queue.jobs(states=[JobState.DONE], limit=99)]
            if known and (path := queue.jobs(limit=99)[0].path) in alive(catalog):
                queue.ask(path, chance.choice(REQUESTS[2:]), because="me")
        elif event < 0.55:
            catalog.gone([path_of(run, folder)])
        elif event < 0.6:
            catalog.note(seen(run, folder), FileState.SETTLING, "changed")
        elif (claim := queue.claim("w", lease_seconds=60)) is None:
            continue
        elif event < 0.65:
            queue.close(claim.job_id, "w", JobState.SUPERSEDED, "overwritten")
        elif event < 0.7:
            queue.fail(claim, "w", cause="x", error="", max_attempts=1, retry_delay_seconds=0)
        else:
            grade, mse = chance.choice(RESULTS)
            numbers: dict[str, Any] = {"cosine": chance.choice([None, 0.5, 0.9])}
            numbers["kl"] = chance.choice([None, 0.1, 0.2])
            numbers["measured_at"] = clock()
            if claim.profile == "full":
                numbers |= {"overall_status": "READY", "avg_score": 0.9}
            queue.finish(claim, "w", measured(grade, mse, **numbers), alert_good)


def alive(catalog: Catalog) -> set[str]:
    """Give the paths of whole files."""
    known = catalog.known_files("/exp").values()
    return {file.path for file in known if file.state is FileState.WHOLE}


def rows_of(database: Database, sql: str) -> list[dict[str, Any]]:
    """Ask as people do."""
    with database.read() as connection:
        return [dict(row) for row in connection.execute(text(sql)).mappings()]


def same(row: dict[str, Any], record: HistoryRow | RunRow, *, but: set[str]) -> None:
    """Hold that all that both have is equal; SQLite's times are text."""
    names = {field.name for field in fields(record)} - but - {"kept_path"}
    assert names <= row.keys()
    for name in names - {"first_seen_at", "measured_at", "status_since"}:
        assert row[name] == getattr(record, name), name
    for name in names & {"first_seen_at", "measured_at", "status_since"}:
        value = getattr(record, name)
        assert (row[name] is None) == (value is None)
        if value is not None:
            assert str(row[name])[:19] == str(value)[:19]


@pytest.mark.parametrize("seed", range(6))
def test_views_agree_with_the_history(
    database: Database, catalog: Catalog, queue: Queue, clock: FakeClock, seed: int
) -> None:
    """Row by row and column by column: every checkpoint, each run's best and newest."""
    live(catalog, queue, clock, seed=seed, events=120)
    history = History(database, clock=clock)
    for run in RUNS:
        told = [row for row in history.history(run) if row.fingerprint is not None]
        assert len(told) > 3
        found = rows_of(database, f"SELECT * FROM v_history WHERE run = '{run}'")
        by_content = {row["fingerprint"]: row for row in found}
        assert len(found) == len(by_content) == len(told)
        for record in told:
            same(
                by_content[record.fingerprint],
                record,
                but={"also", "kept_path", "full_state", "full_because"},
            )
        check_best(database, history, run, told)
    latest = rows_of(database, "SELECT * FROM v_latest ORDER BY run")
    for row, runrow in zip(latest, history.runs(), strict=True):
        row |= {"checkpoint_path": row["path"], "path": row["run_path"]}
        same(row, runrow, but=set())
        check_counts(history, queue, runrow)
    assert [finding.faults for finding in findings(database) if not finding.ok] == []


def test_a_superseded_wish_hides_no_result(
    database: Database, catalog: Catalog, queue: Queue, history: History
) -> None:
    """Asked again by other settings, which were taken back: the first result counts again."""
    for step, mse in ((100, 0.05), (200, 0.06)):
        catalog.admit(whole(step=step), QUICK)
        assert queue.finish(claimed(queue), "w", measured("GOOD", mse), alert_good)
    catalog.admit(whole(step=100), OTHER_QUICK)
    best = "SELECT step FROM v_best"
    assert rows_of(database, best) == [{"step": 200}]
    assert [row.mse for row in history.history("a")] == [None, 0.06]
    assert queue.close(claimed(queue).job_id, "w", JobState.SUPERSEDED, "taken back")
    assert rows_of(database, best) == [{"step": 100}]
    assert [row.mse for row in history.history("a")] == [0.05, 0.06]
    assert history.runs()[0].best_step == 100


def check_best(database: Database, history: History, run: str, told: list[HistoryRow]) -> None:
    """Hold that best and v_best are what a plain look at the history finds."""
    for by in MEASURES:
        sign = -1 if by == "cosine" else 1
        graded = [row for row in told if row.grade not in {None, "INVALID", "UNLOADABLE"}]
        numbers = [sign * getattr(row, by) for row in graded if getattr(row, by) is not None]
        best = history.best(run, by)
        assert (best is None) == (not numbers)
        if best is not None:
            assert best in told
            assert sign * getattr(best, by) == min(numbers)
            steps = [row.step for row in graded if getattr(row, by) == getattr(best, by)]
            assert best.step == min(steps, key=lambda step: (step is None, step))
    best = history.best(run)
    rows = rows_of(database, f"SELECT * FROM v_best WHERE run = '{run}'")
    assert len(rows) == (best is not None)
    if best is not None:
        lacks = {
            "also",
            "kept_path",
            "full_state",
            "full_because",
            "profile",
            "state",
            "reason",
            "attempts",
        }
        same(rows[0], best, but=lacks | {"duration_seconds"})


def check_counts(history: History, queue: Queue, told: RunRow) -> None:
    """Hold that a run's numbers are those that counting its jobs gives."""
    jobs = queue.jobs(run=told.path, limit=999)
    names = {(job.step, job.path) for job in jobs}
    assert names
    done = {history.show(str(job.job_id))[0].fingerprint for job in jobs if job.state == "done"}
    assert told.done == len(done)
    best = history.best(told.run)
    assert (told.best_mse, told.best_step) == ((best.mse, best.step) if best else (None, None))


def test_the_page_has_every_column(database: Database) -> None:
    """docs/views.md describes each view column by column, in the view's own order."""
    page = PAGE.read_text()
    with database.read() as connection:
        seen_ = inspect(connection)
        for view in VIEWS:
            section = page.partition(f"## {view}\n")[2].partition("\n## ")[0]
            named = re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)
            assert named == [column["name"] for column in seen_.get_columns(view)], view


def test_the_pages_queries_run(
    database: Database, catalog: Catalog, queue: Queue, engine: str
) -> None:
    """Each example finds something; it is for both engines, or says for which."""
    lately = datetime.now(UTC) - timedelta(minutes=1)
    for step, mse in ((100, 0.05), (200, 0.06)):
        catalog.admit(whole("equivalence", step), QUICK)
        result = measured("GOOD", mse, measured_at=lately)
        assert queue.finish(claimed(queue), "w", result, alert_good)
    queries = re.findall(r"```sql( \w+)?\n(.+?)```", PAGE.read_text(), flags=re.DOTALL)
    mine = [query for only, query in queries if only.strip() in {"", engine}]
    assert len(mine) == 6
    for query in mine:
        asked = query.replace("$__timeFilter(measured_at)", "measured_at > '2026-01-01'")
        assert rows_of(database, asked), query
