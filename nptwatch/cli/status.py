"""`nptwatch status`: everything at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.history import print_runs, run_json
from nptwatch.cli.screen import Column, Screen, age, number, plain, print_json
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    StateDirOption,
    reading,
    require_database,
    settings_of,
)
from nptwatch.store.glance import Glance, glance_at
from nptwatch.store.labels import Untaken, untaken

if TYPE_CHECKING:
    from datetime import datetime

    from nptwatch.settings import Settings
    from nptwatch.store.chore_records import ChoreRecord
    from nptwatch.store.records import ChangeRow, WorkerRow

CHANGES_SHOWN = 5


def status(
    *,
    chores: Annotated[
        bool, typer.Option("--chores", help="Also list the daemons' chores: last run and failure.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Show queue, workers, the newest result of each run, and what changed.

    Example: nptwatch status --json
    """
    settings = settings_of(config, state_dir, database_url)
    screen = Screen.of_stdout()
    glance = _glance(settings, screen.now)
    if as_json:
        print_json(_as_json(glance, settings.safe_database_url))
    else:
        _print(glance, settings.safe_database_url, screen)
        if chores:
            screen.say("\nChores")
            _print_chores(glance.chores, screen)


def _glance(settings: Settings, now: datetime) -> Glance:
    """Read what is shown: the short way where that works, else through the stores."""
    silent_seconds = settings.worker.lease_seconds
    require_database(settings)
    if settings.sqlite_file is not None:
        glance = glance_at(
            settings.sqlite_file,
            now=now,
            silent_seconds=silent_seconds,
            changes=CHANGES_SHOWN,
            busy_seconds=settings.database.busy_timeout_seconds,
            paths=settings.paths,
        )
        if glance is not None:
            return glance
    with reading(settings) as stores:
        return Glance(
            queue=stores.queue.depth(),
            oldest_queued_at=stores.queue.oldest_queued_at(),
            waiting=stores.queue.waiting(),
            workers=stores.workers.alive(silent_seconds),
            runs=stores.history.runs(),
            changes=stores.history.changes(limit=CHANGES_SHOWN),
            pending_alerts=stores.outbox.pending(),
            chores=stores.chores.lately(),
        )


def _as_json(glance: Glance, database: str) -> object:
    return {
        "database": database,
        "queue": plain(glance.queue),
        "oldest_queued_at": plain(glance.oldest_queued_at),
        "stuck": plain(_stuck(glance)),
        "workers": plain(glance.workers),
        "runs": [plain(run_json(row)) for row in glance.runs],
        "changes": plain(glance.changes),
        "alerts": {"pending": glance.pending_alerts},
        "chores": plain(glance.chores),
    }


def _print(glance: Glance, database: str, screen: Screen) -> None:
    screen.say(f"Database: {database}")
    screen.say(f"Queue:    {_queue_line(glance, screen)}")
    for stuck in _stuck(glance):
        screen.say(f"Stuck:    {_stuck_line(stuck, screen)}")
    if glance.pending_alerts:
        screen.say(f"Alerts:   {glance.pending_alerts} not delivered yet")
    for worker in glance.workers:
        screen.say(f"Worker:   {_worker_line(worker, screen)}")
    if not glance.workers:
        screen.say("Worker:   none at work (start `nptwatch run`)")
    for chore in glance.chores:
        if chore.failures:
            screen.say(f"Failing:  {_failing_line(chore, screen)}")
    screen.say()
    if not glance.runs:
        screen.say("No runs yet: nothing was found below the watched directories.")
        return
    print_runs(glance.runs, screen)
    if glance.changes:
        screen.say("\nLatest changes")
        _print_changes(glance.changes, screen)


def _queue_line(glance: Glance, screen: Screen) -> str:
    always = ("queued", "leased", "done", "failed")
    shown = (
        f"{count} {state}" for state, count in glance.queue.items() if count or state in always
    )
    waited = glance.oldest_queued_at
    seconds = (screen.now - waited).total_seconds() if waited else 0.0
    return ", ".join(shown) + (f" (oldest waits {age(seconds)})" if waited else "")


def _stuck(glance: Glance) -> list[Untaken]:
    """Give the jobs that no worker at work takes."""
    return untaken(glance.waiting, (worker.offer for worker in glance.workers))


def _stuck_line(stuck: Untaken, screen: Screen) -> str:
    jobs = "1 job fits" if stuck.jobs == 1 else f"{stuck.jobs} jobs fit"
    waits = age((screen.now - stuck.oldest_at).total_seconds())
    return f"{jobs} no worker at work (oldest waits {waits}): {stuck.why}"


def _worker_line(worker: WorkerRow, screen: Screen) -> str:
    does = f"{screen.painted(worker.state)}" + (
        f" with job {worker.job_id}" if worker.job_id else ""
    )
    base = f", base {worker.base_model}" if worker.base_model else ""
    where = f"{worker.worker_id} on {worker.device} (pid {worker.pid})"
    return f"{where} {does}, {worker.jobs_done} done{base}"


def _failing_line(chore: ChoreRecord, screen: Screen) -> str:
    first = screen.when(chore.failing_since)
    times = "once" if chore.failures == 1 else f"{chore.failures} times in a row, first"
    return f"chore {chore.name} of {chore.daemon}, {times} {first}: {chore.error}"


def _print_chores(chores: list[ChoreRecord], screen: Screen) -> None:
    screen.table(
        (
            Column(title="CHORE"),
            Column(title="LAST RUN"),
            Column(title="TOOK", right=True),
            Column(title="FAILED"),
            Column(title="LAST FAILURE", shrinks=True),
            Column(title="DAEMON", shrinks=True),
        ),
        [
            (
                chore.name,
                f"{age((screen.now - chore.started_at).total_seconds())} ago",
                f"{chore.duration_seconds:.2f} s",
                screen.when(chore.failed_at) if chore.failed_at else None,
                chore.error,
                chore.daemon,
            )
            for chore in chores
        ],
    )


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
