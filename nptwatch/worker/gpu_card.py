"""The GPU of a worker: what it is, what is free on it, and who uses it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nptwatch.npt.devices import MIB, held_mib, name_of, uuid_of
from nptwatch.worker.nvml import Look, open_nvml

if TYPE_CHECKING:
    from collections.abc import Callable

    from nptwatch.worker.nvml import Nvml, User

NAMED_USERS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A GPU.

    Attributes:
        uuid: without its kind in front.
        look: measures it.
        held_mib: gives what this process has allocated on it.
    """

    device: torch.device
    uuid: str
    name: str
    look: Callable[[], Look]
    held_mib: Callable[[], int]

    def free_mib(self, look: Look) -> int:
        """Give what would be free without this process."""
        return look.free_mib + self.held_mib()


def card_of(device: torch.device) -> Card | None:
    """Describe the GPU that a device is; None: it is none."""
    if device.type != "cuda":
        return None
    uuid = uuid_of(device)
    return Card(
        device=device,
        uuid=uuid,
        name=name_of(device),
        look=partial(_look, open_nvml(), uuid, device),
        held_mib=partial(held_mib, device),
    )


def _look(nvml: Nvml | None, uuid: str, device: torch.device) -> Look:
    """Ask the driver; where it does not say, torch, which makes a context for that."""
    found = nvml.look(uuid) if nvml else None
    if found is not None:
        return found
    free, total = torch.cuda.mem_get_info(device)
    return Look(free_mib=free // MIB, total_mib=total // MIB)


def users_in_words(look: Look) -> str:
    """Name the other processes that have most of a GPU; empty where nobody knows of any."""
    others = [user for user in look.users if user.pid != os.getpid()]
    others.sort(key=lambda user: user.mib or 0, reverse=True)
    return ", ".join(_in_words(user) for user in others[:NAMED_USERS])


def _in_words(user: User) -> str:
    try:
        command = f" ({Path(f'/proc/{user.pid}/comm').read_text().strip()})"
    except OSError:  # another user's /proc, or another PID namespace
        command = ""
    mib = "" if user.mib is None else f" has {user.mib} MiB"
    return f"process {user.pid}{command}{mib}"
