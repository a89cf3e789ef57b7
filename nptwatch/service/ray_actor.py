"""The worker as a Ray actor: what runs on the node where Ray put it."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray

from nptwatch.service.working import work
from nptwatch.worker.wake import Wake

if TYPE_CHECKING:
    from nptwatch.service.working import Assignment


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where Ray put a worker.

    Attributes:
        node_id: Ray's name of the node.
        gpus: indices of the GPUs that it has a share of.
        life: differs for each process, also where process ids repeat.
    """

    host: str
    node_id: str
    pid: int
    gpus: tuple[int, ...]
    life: str


class RayWorker:
    """One worker, in the actor's own process, which Ray starts anew when it is lost.

    It is made without the settings: Ray keeps the arguments of constructors, and settings have
    the database's password. They come with the call that starts the work.
    """

    def __init__(self) -> None:
        self._wake = Wake()
        self._life = secrets.token_hex(8)

    def place(self) -> Place:
        """Say where this is."""
        context = ray.get_runtime_context()
        return Place(
            host=socket.gethostname(),
            node_id=context.get_node_id(),
            pid=os.getpid(),
            gpus=tuple(int(index) for index in context.get_accelerator_ids().get("GPU", ())),
            life=self._life,
        )

    def run(self, line: bytes, assignment: Assignment) -> int:
        """Work; see working.work."""
        return work(line, assignment, wake=self._wake, ready=lambda: None, abandon=_end_now)

    def stop(self) -> None:
        """Have the work end: finish or hand back the running job."""
        self._wake.stop()


def _end_now() -> None:
    sys.stderr.flush()
    os._exit(0)
