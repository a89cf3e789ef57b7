"""How many jobs a second 4 worker processes claim from one SQLite file; fails below 500.

Run: python tests/benchmarks/bench_queue.py
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stocking import QUICK, whole

from nptwatch.store.catalog import Catalog
from nptwatch.store.engine import Database
from nptwatch.store.migrate import upgrade
from nptwatch.store.queue import Queue

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

PROCESSES = 4
JOBS = 4000
BUDGET_PER_SECOND = 500


def claim_all(
    url: str, worker_id: str, start: Barrier, claims: multiprocessing.Queue[list[int]]
) -> None:
    """Claim until the queue is empty."""
    database = Database(url)
    queue = Queue(database)
    start.wait()
    jobs = []
    while (claim := queue.claim(worker_id, lease_seconds=60)) is not None:
        jobs.append(claim.job_id)
    claims.put(jobs)
    database.close()


def main() -> int:
    """Fill a queue, empty it with real processes, print the rate."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/bench.db"
        database = Database(url)
        upgrade(database)
        catalog = Catalog(database)
        began = time.perf_counter()
        for number in range(JOBS):
            catalog.admit(whole(f"run-{number % 40}", number), QUICK)
        admitted = JOBS / (time.perf_counter() - began)
        context = multiprocessing.get_context("spawn")
        start, claims = context.Barrier(PROCESSES + 1), context.Queue()
        workers = [
            context.Process(target=claim_all, args=(url, f"w{number}", start, claims))
            for number in range(PROCESSES)
        ]
        for worker in workers:
            worker.start()
        start.wait()
        began = time.perf_counter()
        shares = [claims.get(timeout=120) for _ in workers]
        seconds = time.perf_counter() - began
        for worker in workers:
            worker.join(timeout=30)
        database.close()
    handed_out = Counter(job for share in shares for job in share)
    assert len(handed_out) == JOBS, f"{JOBS - len(handed_out)} jobs lost"
    assert set(handed_out.values()) == {1}, "a job was handed out twice"
    rate = JOBS / seconds
    print(f"admitted {admitted:.0f} jobs/s (1 process)")
    print(
        f"claimed  {rate:.0f} jobs/s ({PROCESSES} processes, shares {sorted(map(len, shares))},"
        f" budget {BUDGET_PER_SECOND})"
    )
    return 0 if rate > BUDGET_PER_SECOND else 1


if __name__ == "__main__":
    sys.exit(main())
