"""How the next job is measured so that training does not notice: where, and with how much memory.

Asked before each job. Decides by what is free and by the settings; loads and computes nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from nptwatch.errors import GpuBusyError
from nptwatch.gpu_settings import CPU, STREAM, WAIT
from nptwatch.npt.opening import STREAMED
from nptwatch.worker.gpu_card import users_in_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from nptwatch.gpu_settings import GpuSettings
    from nptwatch.worker.gpu_card import Card
    from nptwatch.worker.gpu_lock import GpuLock
    from nptwatch.worker.nvml import Look

FALLBACK_SECONDS = 300.0
"""So long a way that was fallen back to is kept before the usual one is tried again."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a job is measured.

    Attributes:
        on_gpu: on the worker's GPU; else on the CPU.
        layers: of the base, as `base.layers` has it.
        small: smaller slices, which take less memory and more time.
        steps: what was tried before and why it was left, in words; makes no difference to how.
    """

    on_gpu: bool
    layers: str
    small: bool = False
    steps: tuple[str, ...] = field(default=(), compare=False)


class Manners:
    """Chooses ways; remembers for how long the GPU has been busy, and what was fallen back to.

    Args:
        layers: as `base.layers` has it.
        card: the worker's GPU; None: it is on the CPU, and nothing is to be decided.
        sleep: waits between two looks.
        seconds: a monotonic clock.
    """

    def __init__(
        self,
        settings: GpuSettings,
        layers: str,
        card: Card | None,
        lock: GpuLock | None,
        *,
        sleep: Callable[[float], object] = time.sleep,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._layers = layers
        self._card = card
        self._lock = lock
        self._sleep = sleep
        self._seconds = seconds
        self._busy_since: float | None = None
        self._busy = ""
        self._short_since: dict[str, float] = {}
        self._fallbacks: dict[str | None, tuple[Way, float]] = {}

    def way(self, base: str, loaded: Way | None, stream_mib: Callable[[], int | None]) -> Way:
        """Choose how the next job is measured.

        Args:
            base: name of the job's base.
            loaded: by which way the base in memory was loaded; None: there is none.
            stream_mib: gives what streamed layers would take; None: they cannot be streamed.

        Raises:
            GpuBusyError: in no way now.
        """
        fallback = self._fallback(base)
        if self._card is None or self._lock is None:
            return fallback or Way(on_gpu=False, layers=self._layers)
        if fallback is not None and not fallback.on_gpu:
            return fallback
        look = self._look(self._card, is_warm=loaded is not None and loaded.on_gpu)
        is_ours = self._lock.take()
        busy = self._why_busy(self._card, self._lock, look, is_ours=is_ours)
        if busy is not None:
            free_mib = self._card.free_mib(look) if is_ours else 0
            return self._while_busy(busy, free_mib, stream_mib)
        waited = self._waited()
        self._busy_since = None
        return fallback or Way(on_gpu=True, layers=self._layers, steps=waited)

    def smaller(self, way: Way, base: str, why: str, *, layers: str | None) -> Way | None:
        """Give what is tried next when memory ran out; None: nothing now, later perhaps.

        Args:
            layers: how the base's layers are held; None: it ran out while the base was loaded,
                so that slices change nothing.
        """
        if layers is not None and not way.small:
            return self._fall_back(replace(way, small=True), why, "smaller slices", base)
        if (layers or way.layers) != STREAMED:
            streamed = replace(way, layers=STREAMED, small=True)
            return self._fall_back(streamed, why, "streamed layers", base)
        return self._later(way, base, why)

    def _later(self, way: Way, base: str, why: str) -> Way | None:
        """Try again later; leave a GPU that has been too small for long."""
        self._fallbacks.pop(base, None)
        if way.on_gpu:
            since = self._short_since.setdefault(base, self._seconds())
            is_long = since < self._seconds() - self._settings.wait_minutes * 60
            if is_long and CPU in self._settings.when_busy:
                on_cpu = Way(on_gpu=False, layers=self._layers, steps=way.steps)
                return self._fall_back(on_cpu, why, "the CPU", base)
        log.warning("gpu_fallback", why=why, next="later")
        return None

    def fitted(self, way: Way, base: str) -> None:
        """Note that a job was measured this way."""
        if way.on_gpu:
            self._short_since.pop(base, None)

    def leave(self) -> None:
        """Let others have the GPU; nothing of this process is on it any more."""
        if self._lock is not None:
            self._lock.release()

    def _fallback(self, base: str) -> Way | None:
        """Give what was fallen back to lately, for this base or for all."""
        now = self._seconds()
        self._fallbacks = {of: entry for of, entry in self._fallbacks.items() if now < entry[1]}
        way, _ = self._fallbacks.get(base) or self._fallbacks.get(None) or (None, 0.0)
        return way

    def _look(self, card: Card, *, is_warm: bool) -> Look:
        """Look once while a base is there, else twice: training's need goes up and down."""
        first = card.look()
        if is_warm or card.free_mib(first) < self._settings.min_free_gpu_mib:
            return first
        self._sleep(self._settings.look_again_seconds)
        return min(first, card.look(), key=card.free_mib)

    def _why_busy(self, card: Card, lock: GpuLock, look: Look, *, is_ours: bool) -> str | None:
        """Say why the GPU is not to be used as usual; None: it is."""
        which = f"{card.device} ({card.name})"
        if not is_ours:
            pids = ", ".join(map(str, lock.holders()))
            return f"{which}: another nptwatch worker has it{pids and f', process {pids}'}"
        free_mib, least_mib = card.free_mib(look), self._settings.min_free_gpu_mib
        if free_mib >= least_mib:
            return None
        users = users_in_words(look)
        return f"{which}: {free_mib} MiB free, {least_mib} wanted{users and f'; {users}'}"

    def _while_busy(self, busy: str, free_mib: int, stream_mib: Callable[[], int | None]) -> Way:
        """Go by the policies, in order.

        Raises:
            GpuBusyError: none of them gives a way now.
        """
        self._busy = busy
        if self._busy_since is None:
            self._busy_since = self._seconds()
        left_seconds = self._busy_since + self._settings.wait_minutes * 60 - self._seconds()
        waited = self._waited()
        for policy in self._settings.when_busy:
            if policy == WAIT and left_seconds > 0:
                break
            if policy == STREAM and (need := stream_mib()) is not None and need <= free_mib:
                way = Way(on_gpu=True, layers=STREAMED, small=True, steps=waited)
                return self._fall_back(way, busy, "streamed layers")
            if policy == CPU:
                way = Way(on_gpu=False, layers=self._layers, steps=waited)
                return self._fall_back(way, busy, "the CPU")
        raise GpuBusyError(f"waits for {busy}")

    def _waited(self) -> tuple[str, ...]:
        """Say for how long the GPU has been waited for."""
        seconds = 0.0 if self._busy_since is None else self._seconds() - self._busy_since
        return (f"waited {seconds:.0f} s for {self._busy}",) if seconds >= 1 else ()

    def _fall_back(self, way: Way, why: str, then: str, base: str | None = None) -> Way:
        """Keep to a way for a while.

        Args:
            base: the only one that it is for; None: for all.
        """
        way = replace(way, steps=(*way.steps, f"{why}; then {then}"))
        before, _ = self._fallbacks.get(base) or (None, 0.0)
        self._fallbacks[base] = (way, self._seconds() + FALLBACK_SECONDS)
        if way != before:  # said once, not for each job that goes the same way
            log.warning("gpu_fallback", why=why, next=then)
        return way
