"""One place for a worker on Ray: has it placed, starts it, and settles what it leaves behind."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
import structlog
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from nptwatch.errors import DatabaseError
from nptwatch.service.supervisor import (
    FIRST_DELAY_SECONDS,
    HEALTHY_SECONDS,
    LONGEST_DELAY_SECONDS,
)
from nptwatch.service.working import Assignment
from nptwatch.worker.loop import QUEUE_EMPTY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nptwatch.service.build import Stores
    from nptwatch.service.ray_actor import Place
    from nptwatch.settings import WorkerSettings

ASK_AGAIN_SECONDS = 0.5
"""Pause before an actor that Ray is starting anew is asked again where it is."""

PAY_AGAIN_SECONDS = 5.0
"""Pause before a lost database is told again what a worker left behind."""

PATIENCE_SECONDS = 10.0
"""After so long it is said that Ray finds no room for a worker."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A worker at work.

    Attributes:
        since: monotonic seconds.
    """

    worker_id: str
    place: Place
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What is the same for all workers of a team.

    Attributes:
        make_actor: asks Ray for a new actor.
        dead_nodes: gives the ids of the nodes that Ray knows to be lost.
        needs: what an actor needs of a node, for people.
        line: the settings, as `dump_settings` writes them.
    """

    make_actor: Callable[[], Any]  # Any: Ray's handles have no type
    dead_nodes: Callable[[], frozenset[str]]
    needs: Mapping[str, float]
    line: bytes
    diagnoser: str
    until_empty: bool
    settings: WorkerSettings


class RaySlot:
    """Follows one actor after the other; nothing here waits.

    A worker that is lost may have crashed, which counts against the job that it had, or its node
    is lost, which does not. Ray's error does not tell; but by the time when the actor answers from
    a new process, Ray knows whether the old one's node is dead.

    Attributes:
        ref: the answer that is waited for, if any.
        is_done: its worker ended because nothing is queued.
    """

    def __init__(self, number: int, orders: Orders, stores: Stores) -> None:
        self._number = number
        self._orders = orders
        self._stores = stores
        self.ref: Any = None  # Any: Ray's references have no type
        self.is_done = False
        self._actor: Any = None  # Any: as above
        self._place: Place | None = None
        self._work: Work | None = None
        self._lost: Work | None = None
        self._owed: list[Callable[[], object]] = []
        self._pay_at = 0.0
        self._ask_at = 0.0
        self._run_at = 0.0
        self._asked_since: float | None = None
        self._delay_seconds = FIRST_DELAY_SECONDS

    @property
    def is_at_work(self) -> bool:
        """Whether a worker was started whose end has not come."""
        return self._work is not None

    def step(self, *, answered: bool) -> None:
        """Do what is next.

        Args:
            answered: `ref` is there.
        """
        self._pay()
        if self._lost is not None and self._lost.place.node_id in self._orders.dead_nodes():
            self._settle(is_crash=False, why="its Ray node was lost")
        if self.is_done:
            return
        if answered:
            ref, self.ref = self.ref, None
            if self._work is None:
                self._take_place(ref)
            else:
                self._take_end(ref, self._work)
        now = time.monotonic()
        if self._place is not None and self._work is None and now >= self._run_at:
            self._start(self._place)
        elif self._place is None and self.ref is None and now >= self._ask_at and not self.is_done:
            self._ask(now)
        elif self._asked_since is not None and now > self._asked_since + PATIENCE_SECONDS:
            self._asked_since = float("inf")
            free = ray.available_resources()
            needs = self._orders.needs
            log.warning(
                "worker_not_placed",
                slot=self._number,
                needs=needs,
                free={name: free.get(name, 0.0) for name in needs},
            )

    def ask_stop(self) -> None:
        """Have the worker end."""
        self.is_done = True
        if self._work is not None:
            self._actor.stop.options(concurrency_group="control").remote()

    def end(self) -> None:
        """Take note of the end of a worker that was told to; by force where it is not there yet."""
        if self._work is not None:
            worker_id = self._work.worker_id
            ended = _reason(self.ref)
            self._discard()
            log.info("worker_stopped", worker_id=worker_id, ended=ended)
            if ended is not None:
                reason = "its worker was stopped and had to be killed"
                self._owed.append(lambda: self._hand_back(worker_id, reason))
                self._owed.append(lambda: self._stores.workers.stopped(worker_id))
        self._discard()
        if self._lost is not None:
            self._settle(is_crash=False, why="lost when all workers were stopped")
        self._pay()

    def _ask(self, now: float) -> None:
        if self._actor is None:
            self._actor = self._orders.make_actor()
        if self._asked_since is None:
            self._asked_since = now
        self.ref = self._actor.place.options(concurrency_group="control").remote()

    def _take_place(self, ref: object) -> None:
        try:
            place: Place = ray.get(ref)
        except ActorUnavailableError:  # Ray is starting it anew
            self._ask_at = time.monotonic() + ASK_AGAIN_SECONDS
            return
        except RayError as error:
            log.error("worker_start_failed", slot=self._number, error=_text(error))  # noqa: TRY400
            self._discard()
            self._pause()
            return
        self._asked_since = None
        lost = self._lost
        if lost is not None and lost.place.life == place.life:
            # It lives and was out of sight; nobody knows whether it still works.
            self._settle(is_crash=False, why="its worker was out of reach")
            self._discard()
            return
        if lost is not None:
            is_crash = lost.place.node_id not in self._orders.dead_nodes()
            why = "the worker's process ended" if is_crash else "its Ray node was lost"
            self._settle(is_crash=is_crash, why=why)
        self._place = place

    def _start(self, place: Place) -> None:
        worker_id = f"{place.host}-{self._number}-{secrets.token_hex(3)}"
        self._work = Work(worker_id=worker_id, place=place)
        self._place = None
        log.info(
            "worker_placed",
            worker_id=worker_id,
            host=place.host,
            node=place.node_id,
            pid=place.pid,
            gpus=list(place.gpus),
        )
        assignment = Assignment(
            worker_id=worker_id,
            until_empty=self._orders.until_empty,
            diagnoser=self._orders.diagnoser,
        )
        self.ref = self._actor.run.remote(self._orders.line, assignment)

    def _take_end(self, ref: object, work: Work) -> None:
        self._work = None
        if time.monotonic() - work.since > HEALTHY_SECONDS:
            self._delay_seconds = FIRST_DELAY_SECONDS
        try:
            code = ray.get(ref)
        except RayTaskError as error:  # the process lives, so that this is no loss of a node
            self._crashed(work, _text(error))
        except RayError as error:
            log.warning("worker_lost", worker_id=work.worker_id, error=_text(error))
            self._lost = work
            self._ask_at = time.monotonic() + ASK_AGAIN_SECONDS
        else:
            self._discard()
            if code == QUEUE_EMPTY:
                log.info("worker_found_nothing_queued", worker_id=work.worker_id)
                self.is_done = True
            elif code == 0:
                log.info("worker_recycled", worker_id=work.worker_id)
            else:
                self._crashed(work, f"exit code {code}")

    def _crashed(self, work: Work, how: str) -> None:
        self._lost = work
        self._settle(is_crash=True, why=f"the worker ended by {how}")
        self._discard()

    def _settle(self, *, is_crash: bool, why: str) -> None:
        """Give back what a lost worker had in hand."""
        lost, self._lost = self._lost, None
        assert lost is not None  # noqa: S101 - the callers look
        worker_id, place = lost.worker_id, lost.place
        tell = log.error if is_crash else log.warning
        event = "worker_crashed" if is_crash else "worker_written_off"
        tell(event, worker_id=worker_id, host=place.host, node=place.node_id, reason=why)
        if is_crash:
            self._pause()
        else:
            self._owed.append(lambda: self._hand_back(worker_id, why))
        self._owed.append(lambda: self._write_off(worker_id, why))

    def _hand_back(self, worker_id: str, reason: str) -> None:
        jobs = self._stores.queue.release_held(worker_id, reason=reason)
        if jobs:
            log.warning("jobs_handed_back", worker_id=worker_id, jobs=jobs)

    def _write_off(self, worker_id: str, error: str) -> None:
        """Mark a worker as lost, and count a crash for the jobs that it still has."""
        jobs = self._stores.queue.release_worker(
            worker_id,
            cause="crash",
            error=error,
            max_attempts=self._orders.settings.max_attempts,
            retry_delay_seconds=self._orders.settings.retry_delay_seconds,
        )
        if jobs:
            log.warning("jobs_given_back", worker_id=worker_id, jobs=jobs)

    def _pay(self) -> None:
        """Write what is owed to the database; what it does not take now is tried again."""
        while self._owed and time.monotonic() >= self._pay_at:
            try:
                self._owed[0]()
            except DatabaseError as error:
                log.warning("jobs_not_given_back", slot=self._number, error=str(error))
                self._pay_at = time.monotonic() + PAY_AGAIN_SECONDS
                return
            del self._owed[0]

    def _pause(self) -> None:
        self._ask_at = self._run_at = time.monotonic() + self._delay_seconds
        self._delay_seconds = min(self._delay_seconds * 2, LONGEST_DELAY_SECONDS)

    def _discard(self) -> None:
        """Have Ray end the actor for good; the next is another."""
        if self._actor is not None:
            ray.kill(self._actor, no_restart=True)
        self.ref = self._actor = self._place = self._work = None
        self._asked_since = None


def _reason(ref: object) -> str | None:
    """Give how a worker ended that was told to; None: in good order."""
    if not ray.wait([ref], timeout=0)[0]:
        return "killed"
    try:
        code = ray.get(ref)
    except RayError as error:
        return _text(error)
    return None if code in {0, QUEUE_EMPTY} else f"exit code {code}"


def _text(error: RayError) -> str:
    """Give an error's first line: the others are advice and traces."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return (lines[-1] if isinstance(error, RayTaskError) else lines[0])[:300]
