"""What the workers of this host offer, by the settings and the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nptwatch.store.labels import Offer

if TYPE_CHECKING:
    from nptwatch.settings import WorkerSettings

MIB_PER_GIB = 1024
BYTES_PER_MIB = 1024**2


def offer_by(settings: WorkerSettings, device: str) -> Offer:
    """Give what a worker takes jobs by.

    Args:
        device: where it measures: cpu or cuda:<n>. A CPU is bound by no GPU memory unless the
            settings say so.
    """
    return Offer(gpu_mib=_gpu_mib(settings, device), bases=settings.bases)


def _gpu_mib(settings: WorkerSettings, device: str) -> int | None:
    if settings.gpu_memory_gib is not None:
        return round(settings.gpu_memory_gib * MIB_PER_GIB)
    if not device.startswith("cuda"):
        return None
    from nptwatch.npt.memory import total_bytes

    return total_bytes(device) // BYTES_PER_MIB
