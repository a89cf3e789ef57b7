"""One process of bench_queue.py: takes jobs until there are none, and prints how many and when.

Usage: python queue_sides.py ours|procrastinate URL NAME claim|work

It says "ready", waits for a line on standard input, and begins. The time that it prints is when it
found the queue empty, on the clock that all processes share: a process that ends claims nothing.
`claim` only takes jobs; `work` ends each one as well, as a worker does that measures nothing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def say_ready() -> None:
    """Wait for the start."""
    print("ready", flush=True)
    sys.stdin.readline()


def ours(url: str, name: str, *, work: bool) -> tuple[int, float]:
    """Take jobs as nptwatch's worker does."""
    from stocking import measured, no_alerts

    from nptwatch.store.engine import Database
    from nptwatch.store.queue import Queue

    queue = Queue(Database(url))
    queue.depth()
    say_ready()
    taken = 0
    while (claim := queue.claim(name, lease_seconds=600)) is not None:
        taken += 1
        if work:
            queue.finish(claim, name, measured(), no_alerts)
    return taken, time.monotonic()


async def procrastinate(url: str, *, work: bool) -> tuple[int, float]:
    """Take jobs as procrastinate's worker does."""
    import logging

    from procrastinate import App, PsycopgConnector
    from procrastinate.jobs import Status

    logging.disable(logging.WARNING)  # an app is meant to live in a module of its own

    app = App(connector=PsycopgConnector(conninfo=url, min_size=1, max_size=1))
    async with app.open_async():
        manager = app.job_manager
        worker = await manager.register_worker()
        say_ready()
        taken = 0
        while (job := await manager.fetch_job(queues=None, worker_id=worker)) is not None:
            taken += 1
            if work:
                await manager.finish_job(job, Status.SUCCEEDED, delete_job=False)
    return taken, time.monotonic()


def main() -> None:
    """Run a side."""
    side, url, name, what = sys.argv[1:]
    if side == "ours":
        taken, ended = ours(url, name, work=what == "work")
    else:
        taken, ended = asyncio.run(procrastinate(url, work=what == "work"))
    print(taken, ended, flush=True)


if __name__ == "__main__":
    main()
