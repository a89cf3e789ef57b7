"""Which jobs a worker asks for: those that fit, and for a while those of its base first."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from nptwatch.store.labels import Offer
    from nptwatch.worker.sight import Sight


class Taking:
    """What a worker offers at the moment, and the base that it prefers.

    Preferring the base in memory for ever would starve the others' jobs; never preferring it
    would load a base for each job of a mixed queue. So it is preferred for a time, and then once
    what comes first is taken, whatever its base.

    Args:
        offer: what the worker takes jobs by.
        sight: knows where its host is blind.
        keep_seconds: for how long the base is preferred.
        seconds: a monotonic clock.
    """

    def __init__(
        self,
        *,
        offer: Offer,
        sight: Sight,
        keep_seconds: float,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._offer = offer
        self._sight = sight
        self._keep_seconds = keep_seconds
        self._seconds = seconds
        self._base: str | None = None
        self._since = seconds()

    @property
    def offer(self) -> Offer:
        """What the worker takes jobs by now."""
        return replace(self._offer, blind=self._sight.blind)

    def preferred(self, base_model: str | None) -> str | None:
        """Give the base to be preferred at the next claim; None: none.

        Args:
            base_model: the base in memory.
        """
        if base_model != self._base:
            self._base, self._since = base_model, self._seconds()
        is_over = self._seconds() - self._since >= self._keep_seconds
        return None if is_over else base_model

    def took_first(self) -> None:
        """Note that a job was taken without preferring any base: the time begins anew."""
        self._since = self._seconds()
