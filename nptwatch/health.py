"""Whether the daemon is well: its helpers live, and get on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATIENCE_SECONDS = {"watcher": 300.0, "scheduler": 60.0}
"""A helper that gave no sign for so long hangs. The watcher gives one with each folder it lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """How one helper is.

    Attributes:
        is_alive: its thread, or all its threads, are there.
        silent_seconds: since its last sign of life; None: it gives none.
        patience_seconds: it hangs when it was silent for longer.
    """

    name: str
    is_alive: bool
    silent_seconds: float | None
    patience_seconds: float

    @property
    def is_well(self) -> bool:
        """Whether it lives and gets on."""
        return self.is_alive and (self.silent_seconds or 0.0) <= self.patience_seconds


class Health:
    """Asked by whoever must know: the main loop, the watchdog, the web.

    Args:
        alive: says of each helper whether its threads are there.
        clock: monotonic seconds.
        patience: how long each may be silent; who is not named, for ever.
    """

    def __init__(
        self,
        alive: Mapping[str, Callable[[], bool]],
        clock: Callable[[], float] = time.monotonic,
        *,
        patience: Mapping[str, float] = PATIENCE_SECONDS,
    ) -> None:
        self._alive = dict(alive)
        self._patience = patience
        self._clock = clock
        self._seen: dict[str, float] = {}

    def beat(self, name: str) -> None:
        """Take a helper's sign of life; called from any thread, for each folder of a large tree."""
        self._seen[name] = self._clock()

    def parts(self) -> list[Part]:
        """Give how each helper is."""
        seen, now = dict(self._seen), self._clock()
        return [
            Part(
                name=name,
                is_alive=is_alive(),
                silent_seconds=now - seen[name] if name in seen else None,
                patience_seconds=self._patience.get(name, float("inf")),
            )
            for name, is_alive in self._alive.items()
        ]

    def dead(self) -> list[str]:
        """Name the helpers whose threads are gone."""
        return [part.name for part in self.parts() if not part.is_alive]

    def ill(self) -> list[str]:
        """Name the helpers that are dead or hang."""
        return [part.name for part in self.parts() if not part.is_well]
