"""Workers as Ray actors: Ray does placement, restarts and node loss, the database is the record."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
import structlog

from nptwatch.errors import ConfigError
from nptwatch.service.handover import dump_settings
from nptwatch.service.ray_actor import RayWorker
from nptwatch.service.ray_slot import Orders, RaySlot
from nptwatch.service.supervisor import HURRY_SECONDS, STOP_MARGIN_SECONDS
from nptwatch.service.working import DEFAULT_DIAGNOSER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nptwatch.service.build import Stores
    from nptwatch.settings import Settings

TICK_SECONDS = 0.25
"""How soon an order to stop, or what Ray has to say, is noticed."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class RayPlan:
    """How many workers, and what each needs of a node beside a CPU.

    Attributes:
        gpus: share of a GPU; or whole ones, of which a worker uses the first.
        resources: custom resources by name, as `ray start --resources` declares them.
    """

    workers: int
    gpus: float
    resources: Mapping[str, float] = field(default_factory=dict)
    until_empty: bool = False
    diagnoser: str = DEFAULT_DIAGNOSER

    @property
    def needs(self) -> dict[str, float]:
        """The same as Ray counts it."""
        return {"CPU": 1.0, "GPU": self.gpus, **self.resources}


def connect(address: str) -> None:
    """Become a driver of a Ray cluster.

    Args:
        address: `host:port` of its head; `auto` on one of its nodes; `local`: a Ray of one's own.

    Raises:
        ConfigError: there is no such cluster, or its Ray or Python is another version's.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as exc:
        raise ConfigError(f"no Ray cluster to be had at {address}: {exc}") from exc


class RayTeam:
    """Actors on the cluster that `connect` was told of, and a thread that looks after them."""

    def __init__(self, settings: Settings, stores: Stores, plan: RayPlan) -> None:
        self._settings = settings
        orders = Orders(
            make_actor=lambda: _make_actor(plan),
            dead_nodes=_dead_nodes,
            needs=plan.needs,
            line=dump_settings(_placed_by_ray(settings, plan)),
            diagnoser=plan.diagnoser,
            until_empty=plan.until_empty,
            settings=settings.worker,
        )
        self._slots = [RaySlot(number, orders, stores) for number in range(plan.workers)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nptwatch-ray", daemon=True)

    def start(self) -> None:
        """Start the thread; it asks Ray for the actors."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the thread lives, or has done its work."""
        return self._thread.is_alive() or self.is_done()

    def is_done(self) -> bool:
        """Whether all workers ended because nothing is queued."""
        return all(slot.is_done for slot in self._slots)

    def stop(self, hurry: Callable[[], bool]) -> None:
        """End all workers: first politely, in the end by force; leave the cluster.

        Args:
            hurry: asked while waiting; true cuts the wait short.
        """
        self._stop.set()
        self._thread.join()
        for slot in self._slots:
            slot.ask_stop()
        deadline = time.monotonic() + self._settings.worker.shutdown_seconds + STOP_MARGIN_SECONDS
        while self._await_one() and time.monotonic() < deadline:
            if hurry():
                deadline = min(deadline, time.monotonic() + HURRY_SECONDS)
                hurry = _never
        for slot in self._slots:
            slot.end()
        ray.shutdown()

    def _run(self) -> None:
        try:
            while not (self._stop.is_set() or self.is_done()):
                answered = self._answered()
                for slot in self._slots:
                    slot.step(answered=slot.ref is not None and slot.ref in answered)
        except Exception:  # outermost: the host sees the dead thread and ends
            log.exception("ray_team_failed")

    def _answered(self) -> set[Any]:
        """Wait a moment for any answer; give those that are there."""
        refs = [slot.ref for slot in self._slots if slot.ref is not None]
        if not refs:
            self._stop.wait(TICK_SECONDS)
            return set()
        first, _ = ray.wait(refs, num_returns=1, timeout=TICK_SECONDS)
        return set(first)

    def _await_one(self) -> bool:
        """Wait a moment for a worker to end; False: all have."""
        refs = [slot.ref for slot in self._slots if slot.is_at_work]
        _, running = ray.wait(refs, num_returns=len(refs), timeout=0) if refs else ([], [])
        if running:
            ray.wait(running, num_returns=1, timeout=TICK_SECONDS)
        return bool(running)


def _make_actor(plan: RayPlan) -> Any:  # noqa: ANN401 - Ray's handles have no type
    # a group of its own, so that a worker at work can be asked and stopped
    actor = ray.remote(concurrency_groups={"control": 2})(RayWorker)
    return actor.options(
        num_cpus=1,
        num_gpus=plan.gpus,
        resources=dict(plan.resources),
        scheduling_strategy="SPREAD",  # one lost node takes few along
        max_restarts=-1,
        max_task_retries=0,  # the database decides what is done again
    ).remote()


def _dead_nodes() -> frozenset[str]:
    return frozenset(node["NodeID"] for node in ray.nodes() if not node["Alive"])


def _placed_by_ray(settings: Settings, plan: RayPlan) -> Settings:
    """Name no GPU: Ray chooses it, and shows a worker no other; who has a part of one shares it."""
    device = settings.worker.device
    worker = settings.worker.model_copy(
        update={"device": device if device in {"auto", "cpu"} else "cuda"}
    )
    gpu = settings.gpu.model_copy(update={"share": settings.gpu.share or 0 < plan.gpus < 1})
    return settings.model_copy(update={"worker": worker, "gpu": gpu})


def _never() -> bool:
    return False
