"""The worker process: `python -m nptwatch.service.worker_main`, started by the supervisor.

Standard input is the life line: first one line with the settings, then a byte for each nudge;
its end means that the daemon died. Standard output says `ready` once and nothing else.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import structlog

from nptwatch.alerts.channels import channel_names
from nptwatch.alerts.rules import make_rules
from nptwatch.diagnostics.identity import settings_hash
from nptwatch.errors import ConfigError, NptwatchError
from nptwatch.logs import configure_logs
from nptwatch.service.build import open_stores, request_of
from nptwatch.service.handover import parse_settings, read_line
from nptwatch.settings import FULL
from nptwatch.store.engine import utc_now
from nptwatch.store.listening import JobListener
from nptwatch.worker.loop import WorkerLoop
from nptwatch.worker.policy import FullPolicy
from nptwatch.worker.wake import Wake

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from nptwatch.settings import Settings
    from nptwatch.worker.loop import Diagnoser

    MakeDiagnoser = Callable[[Settings, Callable[[], datetime]], Diagnoser]

READY = b"ready\n"
NICENESS = 5
"""Training goes first."""

DEFAULT_DIAGNOSER = "nptwatch.worker.gpu:GpuDiagnoser"

LIFELINE_FD = 0

log = structlog.get_logger()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one worker; return its exit code."""
    arguments = _parse(argv)
    ready_fd = _keep_stdout()
    try:
        settings = parse_settings(read_line(LIFELINE_FD))
        configure_logs(
            level=settings.log.level,
            form=settings.log.form,
            bind={"worker": arguments.worker_id},
        )
        os.nice(NICENESS)
        return _work(arguments, settings, lambda: _say_ready(ready_fd))
    except NptwatchError as error:
        log.error("worker_failed", error=str(error), kind=type(error).__name__)  # noqa: TRY400
        return error.exit_code
    except Exception:
        log.exception("worker_failed")
        return 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m nptwatch.service.worker_main")
    parser.add_argument("--worker-id", required=True)
    parser.add_argument(
        "--diagnoser",
        default=DEFAULT_DIAGNOSER,
        metavar="MODULE:FACTORY",
        help="for tests: called with settings and clock, gives the thing that measures",
    )
    return parser.parse_args(argv)


def _work(arguments: argparse.Namespace, settings: Settings, say_ready: Callable[[], None]) -> int:
    wake = Wake(LIFELINE_FD)
    _stop_on_signals(wake)
    stores = open_stores(settings, application=f"nptwatch worker {arguments.worker_id}")
    loop = WorkerLoop(
        queue=stores.queue,
        workers=stores.workers,
        diagnoser=_make_diagnoser(arguments.diagnoser, settings),
        rules=make_rules(settings.alerts, channel_names(settings.channels)),
        settings=settings.worker,
        settings_hash=partial(settings_hash, settings),
        unloadable_after_seconds=settings.watch.unloadable_after_seconds,
        worker_id=arguments.worker_id,
        wake=wake,
        abandon=_end_now,
        follow=FullPolicy(settings.full, request_of(settings, FULL)).follow,
    )
    with JobListener(stores.database, wake.nudge):
        return loop.run(say_ready)


def _make_diagnoser(name: str, settings: Settings) -> Diagnoser:
    """Call the factory that `name` names; imported here, so that a torch that fails is logged."""
    module, _, factory = name.partition(":")
    try:
        make: MakeDiagnoser = getattr(import_module(module), factory)
    except (ImportError, AttributeError) as exc:
        message = f"diagnoser {name} cannot be imported: {exc}"
        raise ConfigError(message) from exc
    return make(settings, utc_now)


def _stop_on_signals(wake: Wake) -> None:
    """Let SIGTERM arrive through the wake's pipe, whatever the main thread is busy with."""
    signal.set_wakeup_fd(wake.signal_fd, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)


def _keep_stdout() -> int:
    """Take standard output for `ready` and send what libraries print to standard error."""
    ready_fd = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return ready_fd


def _say_ready(ready_fd: int) -> None:
    os.write(ready_fd, READY)


def _end_now() -> None:
    """End without waiting for the measuring thread, which may be deep in a library."""
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
