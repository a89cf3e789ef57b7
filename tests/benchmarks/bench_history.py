"""What people ask of a million results, at the database; fails above 100 ms or on a full scan.

Run: python tests/benchmarks/bench_history.py [--runs 2000] [--plans] [--engine sqlite]
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from large_history import BEGAN, SECONDS_APART, Size, fill
from plans import Statement, listening, plan, scans
from postgres import postgres_server
from sqlalchemy import column, select, table

from nptwatch.store import glance
from nptwatch.store.engine import Database
from nptwatch.store.gauges import GaugeReader
from nptwatch.store.glance import glance_at
from nptwatch.store.history import History
from nptwatch.store.migrate import upgrade
from nptwatch.store.outbox import Outbox
from nptwatch.store.queue import Queue
from nptwatch.store.records import JobState
from nptwatch.store.tables import UtcDateTime
from nptwatch.store.upkeep import Upkeep
from nptwatch.store.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

PER_RUN = 454
BUDGET_MS = 100
GLANCE = (
    (glance._DEPTH, ()),
    (glance._DONE, ()),
    (glance._OLDEST, ()),
    (glance._WAITING, ()),
    (glance._PENDING, ()),
    (glance._RUNS, ()),
    (glance._CHANGES, (5,)),
)
TIMES = 7
"""The shortest counts: the others say how much else the machine had to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Something people ask."""

    name: str
    ask: Callable[[], object]
    budget_ms: float = BUDGET_MS


def questions(database: Database, size: Size) -> list[Question]:
    """Give what is asked; a run in the middle, a page far from both ends."""
    history, queue = History(database), Queue(database)
    run = f"run-{size.runs // 2}"
    rows = history.history(run)
    key = str(rows[len(rows) // 2].key)
    last = datetime.fromtimestamp(BEGAN + size.checkpoints * SECONDS_APART, UTC)
    return [
        Question(name=f"history ({len(rows)} rows)", ask=lambda: history.history(run)),
        Question(name="history, last 50", ask=lambda: history.history(run, limit=50)),
        Question(
            name="history, 50 before a key",
            ask=lambda: history.history(run, limit=50, before=key),
        ),
        Question(
            name="history, 50 after a key", ask=lambda: history.history(run, limit=50, after=key)
        ),
        Question(name="best, by mse", ask=lambda: history.best(run)),
        Question(name="best, by cosine", ask=lambda: history.best(run, "cosine")),
        Question(name=f"runs ({size.runs} rows)", ask=history.runs),
        Question(name="status", ask=lambda: status(database, history, queue)),
        Question(name="changes, last 50", ask=history.changes),
        Question(
            name="changes since a day",
            ask=lambda: history.changes(since=last - timedelta(days=1)),
        ),
        Question(name="changes of a run", ask=lambda: history.changes(run)),
        Question(name="jobs, last 50", ask=queue.jobs),
        Question(name="jobs, failed ones", ask=lambda: queue.jobs(states=[JobState.FAILED])),
        Question(name="jobs of a run", ask=lambda: queue.jobs(run=run)),
        Question(name="show, by path", ask=lambda: history.show(rows[9].path)),
        Question(
            name="v_history, an hour of all runs",
            ask=lambda: an_hour(database, last - timedelta(hours=9)),
        ),
        Question(name="v_best, all runs", ask=lambda: view(database, "v_best")),
        Question(name="/metrics", ask=GaugeReader(database, silent_seconds=60).read, budget_ms=500),
    ]


def status(database: Database, history: History, queue: Queue) -> None:
    """Ask what `nptwatch status` asks, the way it takes on this engine."""
    if database.path is not None:
        found = glance_at(
            database.path,
            now=datetime.now(UTC),
            silent_seconds=60,
            changes=5,
            busy_seconds=5,
            paths=database.paths,
        )
        assert found is not None
        return
    queue.depth()
    queue.oldest_queued_at()
    queue.waiting()
    Workers(database).alive(60)
    history.runs()
    history.changes(limit=5)
    Outbox(database).pending()


def view(database: Database, name: str) -> None:
    """Read a whole view."""
    with database.read() as connection:
        connection.exec_driver_sql(f"SELECT * FROM {name}").all()


def an_hour(database: Database, begin: datetime) -> None:
    """Ask what a Grafana panel over all runs asks."""
    measured_at = column("measured_at", UtcDateTime())
    within = measured_at.between(begin, begin + timedelta(hours=1))
    view = table("v_history", column("run"), column("mse"), measured_at)
    with database.read() as connection:
        assert connection.execute(select(view).where(within)).all()


def at_the_database(database: Database, heard: list[Statement]) -> float:
    """Give the milliseconds that the bare driver needs for the statements and all their rows."""
    with database.read() as connection:
        cursor = connection.connection.cursor()
        began = time.perf_counter()
        for statement in heard:
            cursor.execute(statement.sql, statement.parameters)
            cursor.fetchall()
        return (time.perf_counter() - began) * 1000


def measure(database: Database, question: Question, *, plans: bool) -> bool:
    """Print one line; say whether it is within the budget and scans nothing."""
    with listening(database) as heard:
        question.ask()
    if not heard:  # `status` of a file goes by the bare driver itself
        heard = [Statement(sql=sql, parameters=given) for sql, given in GLANCE]
    whole = min(_timed(question.ask) for _ in range(TIMES))
    bare = min(at_the_database(database, heard) for _ in range(TIMES))
    found = [scan for statement in heard for scan in scans(database, statement, small=False)]
    print(f"  {question.name:<32} {bare:7.1f} ms   in all {whole:7.1f} ms   {'; '.join(found)}")
    if plans:
        for statement in heard:
            print("\n".join(f"      {line}" for line in plan(database, statement)), end="\n\n")
    return bare <= question.budget_ms and not found


def _timed(ask: Callable[[], object]) -> float:
    began = time.perf_counter()
    ask()
    return (time.perf_counter() - began) * 1000


def bench(database: Database, size: Size, *, plans: bool) -> bool:
    """Fill an empty database and ask; say whether all is held."""
    began = time.perf_counter()
    upgrade(database)
    fill(database, size)
    Upkeep(database).analyze()
    with database.read() as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM results").scalar_one()
    print(f"{database.engine.dialect.name}: {count:,} results in {size.runs:,} runs", end=", ")
    print(f"made in {time.perf_counter() - began:.0f} s", flush=True)
    held = [measure(database, each, plans=plans) for each in questions(database, size)]
    return all(held)


def main() -> int:
    """Ask both engines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--engine", choices=["sqlite", "postgres"])
    parser.add_argument("--plans", action="store_true")
    given = parser.parse_args()
    size = Size(
        runs=given.runs, checkpoints_per_run=PER_RUN, details_bytes=1000, queued=given.runs // 2
    )
    held = True
    if given.engine != "postgres":
        print(f"SQLite {sqlite3.sqlite_version}")
        with tempfile.TemporaryDirectory() as folder:
            database = Database(f"sqlite:///{folder}/bench.db")
            held &= bench(database, size, plans=given.plans)
            database.close()
    if given.engine != "sqlite":
        with postgres_server() as server:
            database = Database(server.new())
            held &= bench(database, size, plans=given.plans)
            database.close()
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
