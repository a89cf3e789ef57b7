"""The worker process: `python -m nptwatch.service.worker_main`, started by the supervisor.

Standard input is the life line: first one line with the settings, then a byte for each nudge;
its end means that the daemon died. Standard output says `ready` once and nothing else.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING

from nptwatch.service.handover import read_line
from nptwatch.service.working import DEFAULT_DIAGNOSER, Assignment, work
from nptwatch.worker.wake import Wake

if TYPE_CHECKING:
    from collections.abc import Sequence

READY = b"ready\n"
NICENESS = 5
"""Training goes first."""

LIFELINE_FD = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one worker; return its exit code."""
    assignment = _parse(argv)
    ready_fd = _keep_stdout()
    line = read_line(LIFELINE_FD)
    wake = Wake(LIFELINE_FD)
    _stop_on_signals(wake)
    os.nice(NICENESS)
    return work(line, assignment, wake=wake, ready=lambda: _say_ready(ready_fd), abandon=_end_now)


def _parse(argv: Sequence[str] | None) -> Assignment:
    parser = argparse.ArgumentParser(prog="python -m nptwatch.service.worker_main")
    parser.add_argument("--worker-id", required=True)
    parser.add_argument("--until-empty", action="store_true", help="end when nothing is queued")
    parser.add_argument(
        "--diagnoser",
        default=DEFAULT_DIAGNOSER,
        metavar="MODULE:FACTORY",
        help="for tests: called with settings and clock, gives the thing that measures",
    )
    return Assignment(**vars(parser.parse_args(argv)))


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
