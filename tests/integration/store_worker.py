"""A worker process for the store's tests: claims and ends jobs until the queue is empty.

Usage: python store_worker.py URL WORKER_ID [--die-at STEP:JOB ...]

It prints one line for each job it ended: "JOB OUTCOME". STEP is where it kills itself with SIGKILL
when it holds that job: claimed, in-finish (after result, status and change are written, before the
commit), finished.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stocking import event, measured

from nptwatch.store.engine import Database
from nptwatch.store.news import Standing, Verdict
from nptwatch.store.queue import Queue

if TYPE_CHECKING:
    from nptwatch.store.records import Claim


def die() -> None:
    """End as the OOM killer ends processes."""
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Work until there is nothing left to claim."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("worker_id")
    parser.add_argument("--die-at", action="append", default=[])
    asked = parser.parse_args()
    queue = Queue(Database(asked.url))
    while (claim := queue.claim(asked.worker_id, lease_seconds=600)) is not None:
        work(queue, claim, asked.worker_id, set(asked.die_at))


def work(queue: Queue, claim: Claim, worker_id: str, deaths: set[str]) -> None:
    """End one job, or die where it was asked to."""

    def rules(standing: Standing) -> Verdict:
        if standing.late or standing.status == standing.old:
            return Verdict()
        if f"in-finish:{claim.job_id}" in deaths:
            die()
        return Verdict(events=(event("changed", standing.point.fingerprint, "log"),))

    if f"claimed:{claim.job_id}" in deaths:
        die()
    grade = ("POOR", "FAIR", "GOOD")[(claim.step or 0) % 3]
    finished = queue.finish(claim, worker_id, measured(grade), rules)
    print(claim.job_id, "lost" if finished is None else "done", flush=True)
    if f"finished:{claim.job_id}" in deaths:
        die()


if __name__ == "__main__":
    main()
