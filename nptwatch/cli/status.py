"""`nptwatch status`: everything at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nptwatch.cli.history import print_runs, run_json
from nptwatch.cli.screen import Column, Screen, age, number, plain, print_json
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    StateDirOption,
    reading,
    settings_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from nptwatch.service.build import Stores
    from nptwatch.store.records import ChangeRow, RunRow, WorkerRow

CHANGES_SHOWN = 5


def status(
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Show queue, workers, the newest result of each run, and what changed.

    Example: nptwatch status --json
    """
    settings = settings_of(config, state_dir, database_url)
    with reading(settings) as stores:
        glance = _look(stores, settings.safe_database_url, settings.worker.lease_seconds)
    if as_json:
        print_json(_as_json(glance))
    else:
        _print(glance, Screen.of_stdout())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Glance:
    """What `status` shows; `workers` are those that live."""

    database: str
    queue: Mapping[str, int]
    oldest_queued_at: datetime | None
    workers: list[WorkerRow]
    runs: list[RunRow]
    changes: list[ChangeRow]
    pending_alerts: int


def _look(stores: Stores, database: str, silent_seconds: float) -> _Glance:
    return _Glance(
        database=database,
        queue={str(state): count for state, count in stores.queue.depth().items()},
        oldest_queued_at=stores.queue.oldest_queued_at(),
        workers=stores.workers.alive(silent_seconds),
        runs=stores.history.runs(),
        changes=stores.history.changes(limit=CHANGES_SHOWN),
        pending_alerts=stores.outbox.pending(),
    )


def _as_json(glance: _Glance) -> object:
    return {
        "database": glance.database,
        "queue": glance.queue,
        "oldest_queued_at": plain(glance.oldest_queued_at),
        "workers": plain(glance.workers),
        "runs": [plain(run_json(row)) for row in glance.runs],
        "changes": plain(glance.changes),
        "alerts": {"pending": glance.pending_alerts},
    }


def _print(glance: _Glance, screen: Screen) -> None:
    screen.say(f"Database: {glance.database}")
    screen.say(f"Queue:    {_queue_line(glance, screen)}")
    if glance.pending_alerts:
        screen.say(f"Alerts:   {glance.pending_alerts} not delivered yet")
    for worker in glance.workers:
        screen.say(f"Worker:   {_worker_line(worker, screen)}")
    if not glance.workers:
        screen.say("Worker:   none at work (start `nptwatch run`)")
    screen.say()
    if not glance.runs:
        screen.say("No runs yet: nothing was found below the watched directories.")
        return
    print_runs(glance.runs, screen)
    if glance.changes:
        screen.say("\nLatest changes")
        _print_changes(glance.changes, screen)


def _queue_line(glance: _Glance, screen: Screen) -> str:
    always = ("queued", "leased", "done", "failed")
    shown = (
        f"{count} {state}" for state, count in glance.queue.items() if count or state in always
    )
    waited = glance.oldest_queued_at
    seconds = (screen.now - waited).total_seconds() if waited else 0.0
    return ", ".join(shown) + (f" (oldest waits {age(seconds)})" if waited else "")


def _worker_line(worker: WorkerRow, screen: Screen) -> str:
    does = f"{screen.painted(worker.state)}" + (
        f" with job {worker.job_id}" if worker.job_id else ""
    )
    base = f", base {worker.base_model}" if worker.base_model else ""
    where = f"{worker.worker_id} on {worker.device} (pid {worker.pid})"
    return f"{where} {does}, {worker.jobs_done} done{base}"


def _print_changes(changes: list[ChangeRow], screen: Screen) -> None:
    screen.table(
        (
            Column(title="WHEN"),
            Column(title="RUN", shrinks=True),
            Column(title="STEP", right=True),
            Column(title="OLD"),
            Column(title="NEW"),
            Column(title="MSE", right=True),
            Column(title="COSINE", right=True),
        ),
        [
            (
                screen.when(change.at),
                change.run,
                change.step,
                change.old,
                change.new,
                number(change.mse, 4),
                number(change.cosine, 4),
            )
            for change in changes
        ],
    )
