"""What torch and the driver say of themselves; loading torch may take long, or never end."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nptwatch.npt.devices import resolve_device
from nptwatch.worker.gpu_card import card_of, users_in_words
from nptwatch.worker.nvml import open_nvml

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Code:
    """A pickle of this asks its reader to call a function."""

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return os.getcwd, ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """A GPU.

    Attributes:
        users: other processes that use it, in words.
    """

    name: str
    free_mib: int
    total_mib: int
    users: str


def torch_version() -> str:
    """Give torch's version and what it was built for."""
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    return f"{torch.__version__} ({built})"


def is_built_for_gpus() -> bool:
    """Say whether this torch could use a GPU at all."""
    return bool(torch.version.cuda)


def refuses_code() -> bool:
    """Say whether weights_only refuses a file that holds code."""
    file = io.BytesIO()
    torch.save(_Code(), file)
    file.seek(0)
    try:
        torch.load(file, weights_only=True)
    except Exception:  # noqa: BLE001 - whatever it is called, it is a refusal
        return True
    return False


def driver_version(proc: Path = Path("/proc")) -> str | None:
    """Give the NVIDIA driver's version; None: there is none."""
    with suppress(OSError, IndexError):
        text = (proc / "driver/nvidia/version").read_text()
        return next(word for word in text.splitlines()[0].split() if word[0].isdigit())
    return None


def has_nvml() -> bool:
    """Say whether NVML can be asked."""
    return open_nvml() is not None


def gpus(names: tuple[str, ...]) -> Iterator[GpuFacts]:
    """Look at the GPUs that these names of devices mean.

    Raises:
        DeviceError: there is no such device.
    """
    for name in names:
        card = card_of(resolve_device(name))
        if card is not None:
            look = card.look()
            yield GpuFacts(
                name=card.name,
                free_mib=look.free_mib,
                total_mib=look.total_mib,
                users=users_in_words(look),
            )
