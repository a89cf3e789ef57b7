"""Claims a second on SQLite and Postgres beside procrastinate's on the same server, and a backlog.

`claim`: each process takes jobs one at a time, each in a transaction of its own. `work`: it ends
them too; ours writes a result, the run's status and what follows in that transaction, procrastinate
sets a status. Every process is real; they start together, and the clock runs from then until the
last has found the queue empty. procrastinate is measured where it is installed (`pip install 'nptwatch[bench]'`). Both
servers know the sizes of their tables, as one in use does.

Fails where ours claims fewer than procrastinate, or where a backlog of 10,000 takes 10 s.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

# ruff: noqa: E402 - the tests' folder comes first
import psycopg
from postgres import OwnServer, Postgres
from sqlalchemy.engine import make_url
from stocking import QUICK, whole

from nptwatch.store.catalog import Catalog
from nptwatch.store.engine import Database
from nptwatch.store.migrate import upgrade
from nptwatch.store.records import Admission

JOBS = 2000
RUNS = 200
BACKLOG = 10_000
BACKLOG_SECONDS = 10.0
PROCESSES = (1, 4, 8)


def fill_ours(url: str, jobs: int) -> float:
    """Queue new checkpoints; give the seconds it took."""
    database = Database(url)
    upgrade(database)
    files = [whole(f"run-{number % RUNS}", number) for number in reversed(range(jobs))]
    began = time.perf_counter()
    admissions = Catalog(database).admit_all(files, QUICK)
    seconds = time.perf_counter() - began
    assert set(admissions) == {Admission.QUEUED}
    database.close()
    return seconds


def fill_procrastinate(url: str, jobs: int) -> None:
    """Make its tables and defer jobs, all in one statement."""
    import logging

    from procrastinate import App, SyncPsycopgConnector

    logging.disable(logging.WARNING)  # an app is meant to live in a module of its own
    app = App(connector=SyncPsycopgConnector(conninfo=url))
    with app.open():
        app.schema_manager.apply_schema()
        task = app.task(name="nothing")(lambda number: None)  # noqa: ARG005 - never run
        task.batch_defer(*[{"number": number} for number in range(jobs)])


def rate(side: str, url: str, processes: int, what: str) -> float:
    """Empty a queue with processes that begin together; give the jobs a second."""
    script = [sys.executable, str(HERE / "queue_sides.py"), side, url]
    workers = [
        subprocess.Popen(
            [*script, f"w{number}", what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    began = time.monotonic()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    taken, ended = 0, began
    for worker in workers:
        output, _ = worker.communicate(timeout=600)
        its_taken, its_end = output.split()
        taken, ended = taken + int(its_taken), max(ended, float(its_end))
    assert taken == JOBS, f"{taken} of {JOBS} jobs were handed out"
    return taken / (ended - began)


def learn_sizes(url: str) -> None:
    """Have a server take its statistics, as it does by itself within a minute."""
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute("ANALYZE")


def plain(url: str) -> str:
    """Give a URL as libpq takes it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def main() -> int:
    """Print both tables; the exit code says if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--claims-only", action="store_true", help="not the ends of jobs")
    asked = parser.parse_args()
    has_other = importlib.util.find_spec("procrastinate") is not None
    missed = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        OwnServer() as server,
        Postgres(server.url) as postgres,
    ):
        for name, url in (
            ("sqlite", f"sqlite:///{folder}/backlog.db"),
            ("postgres", postgres.new()),
        ):
            seconds = fill_ours(url, BACKLOG)
            missed += seconds > BACKLOG_SECONDS
            print(f"backlog of {BACKLOG:,} on {name}: {seconds:.1f} s (wanted 10)", flush=True)
        print(f"\n{'jobs a second':16}{'processes':>10}{'sqlite':>10}{'postgres':>10}", end="")
        print(f"{'procrastinate':>15}{'ours:theirs':>13}")
        for what in ("claim",) if asked.claims_only else ("claim", "work"):
            for processes in PROCESSES:
                sqlite = f"sqlite:///{folder}/{what}-{processes}.db"
                fill_ours(sqlite, JOBS)
                ours = postgres.new()
                fill_ours(ours, JOBS)
                learn_sizes(ours)
                rates = [rate("ours", url, processes, what) for url in (sqlite, ours)]
                line = f"{what:16}{processes:10}{rates[0]:10.0f}{rates[1]:10.0f}"
                if has_other:
                    theirs = plain(postgres.new())
                    fill_procrastinate(theirs, JOBS)
                    learn_sizes(theirs)
                    other = rate("procrastinate", theirs, processes, what)
                    line += f"{other:15.0f}{rates[1] / other:13.2f}"
                    missed += what == "claim" and rates[1] < other
                print(line, flush=True)
    if not has_other:
        print("procrastinate is not installed: nothing to compare with")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
