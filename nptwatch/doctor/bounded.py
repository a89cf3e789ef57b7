"""Checks that may hang or crash: each in a process of its own, all at once, none for ever.

A dead NFS server hangs whoever calls statfs, a broken driver whoever loads torch, and a thread that
hangs so cannot be ended. A process can be left alone.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from nptwatch.doctor.finding import Finding, Mark, fail
from nptwatch.errors import NptwatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_REAP_SECONDS: Final = 0.5
"""How long a killed process may take to go; one that waits for a dead server is left behind."""
_READ_BYTES: Final = 65536
_GRACE_SECONDS: Final = 0.2
"""For who had to wait until another one's lines were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something to look at.

    Attributes:
        run: gives findings as they are made; is called in another process.
        seconds: how long it may take to its first finding.
        more_seconds: how long all others may take after that time.
        when_late: what to do if it takes longer.
    """

    name: str
    run: Callable[[], Iterable[Finding]]
    seconds: float
    when_late: str
    more_seconds: float = 0.0


def findings_of(checks: Sequence[Check]) -> Iterator[Finding]:
    """Run all checks at once; give what they find in their order, as soon as it can be told.

    The calling process must have no other thread: it is forked.
    """
    runs = [_Run(check) for check in checks]
    try:
        for run in runs:
            yield from run.findings()
    finally:
        for run in runs:
            run.end()


class _Run:
    """A check at work."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._deadline = time.monotonic() + check.seconds
        self._pipe, writing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _be_the_check(check, writing)
        os.close(writing)
        self._is_over = False

    def findings(self) -> Iterator[Finding]:
        """Give what it says, and if it says no more, why."""
        told = False
        for line in self._lines():
            if not told:
                self._deadline += self._check.more_seconds
            told = True
            said = json.loads(line)
            yield Finding(**said | {"mark": Mark(said["mark"])})
        if self._is_over:
            status = self._reaped()
            if status:
                yield self._crashed(status)
            return
        mark = Mark.WARN if told else Mark.FAIL
        seconds = self._check.seconds + (self._check.more_seconds if told else 0)
        text = f"no {'end' if told else 'answer'} within {seconds:g} s"
        yield Finding(check=self._check.name, mark=mark, text=text, fix=self._check.when_late)

    def end(self) -> None:
        """Kill it, if it still runs; never waits long."""
        if self._pid == 0:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        end = time.monotonic() + _REAP_SECONDS
        while os.waitpid(self._pid, os.WNOHANG) == (0, 0) and time.monotonic() < end:
            time.sleep(0.01)
        self._pid = 0
        os.close(self._pipe)

    def _lines(self) -> Iterator[bytes]:
        rest = b""
        while True:
            left = max(self._deadline - time.monotonic(), _GRACE_SECONDS)
            if not select.select([self._pipe], [], [], left)[0]:
                return
            data = os.read(self._pipe, _READ_BYTES)
            if not data:
                self._is_over = True
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from lines

    def _reaped(self) -> int:
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        os.close(self._pipe)
        return os.waitstatus_to_exitcode(status)

    def _crashed(self, status: int) -> Finding:
        how = f"killed by signal {-status}" if status < 0 else f"ended with {status}"
        text = f"the process that looked was {how}"
        return fail(self._check.name, text, "look into the system's log (dmesg)")


def _be_the_check(check: Check, writing: int) -> NoReturn:
    """Run it, in the new process; nothing of it reaches the terminal but its findings."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)
        for finding in _guarded(check):
            os.write(writing, json.dumps(asdict(finding)).encode() + b"\n")
        code = 0
    finally:
        os._exit(code)


def _guarded(check: Check) -> Iterator[Finding]:
    try:
        yield from check.run()
    except NptwatchError as error:
        yield fail(check.name, str(error), "as it says")
    except Exception as error:  # noqa: BLE001 - outermost of its process
        text = f"unexpected {type(error).__name__}: {error}"
        yield fail(check.name, text, "if the text does not help, it is a bug: please report it")
