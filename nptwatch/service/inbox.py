"""Signals, as a long-running process takes them: one after the other, when it has time."""

from __future__ import annotations

import queue
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

HURRY_AT_INTERRUPTS = 2


class Inbox:
    """Collects signals."""

    def __init__(self) -> None:
        # A SimpleQueue is the one thing that a signal handler may fill at any moment.
        self._inbox: queue.SimpleQueue[signal.Signals] = queue.SimpleQueue()
        self._interrupts = 0

    def listen(self, numbers: Iterable[signal.Signals]) -> None:
        """Have signals put in here; without effect in a thread that is not the main one."""
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                signal.signal(number, lambda number, _frame: self._note(signal.Signals(number)))

    def put(self, number: signal.Signals) -> None:
        """Act as if a signal had come; may be called from any thread."""
        self._inbox.put(number)

    def next(self, timeout: float) -> signal.Signals | None:
        """Give the next signal; None: there was none in `timeout` seconds."""
        try:
            return self._inbox.get(timeout=timeout)
        except queue.Empty:
            return None

    def in_hurry(self) -> bool:
        """Whether somebody lost patience: a second Ctrl-C."""
        return self._interrupts >= HURRY_AT_INTERRUPTS

    def _note(self, number: signal.Signals) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
        self._inbox.put(number)
