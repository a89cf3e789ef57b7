"""Which GPU a name means and how much of it may be used, with torch.cuda's answers given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from nptwatch.errors import DeviceError
from nptwatch.npt.devices import CONTEXT_MIB, MIB, cap_memory, held_mib, resolve_device
from nptwatch.npt.memory import free_bytes

FIRST = "8f3c2a11-0000-4000-8000-0123456789ab"
SECOND = "8f3cffff-0000-4000-8000-0123456789ab"
TOTAL_MIB = 24_000
GPU = torch.device("cuda", 1)


class Driver:
    """What torch.cuda says of two GPUs."""

    def __init__(self) -> None:
        self.free_mib, self.reserved_mib, self.allocated_mib = TOTAL_MIB, 0, 0
        self.fraction = 1.0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Two GPUs."""
    driver = Driver()

    def cap(fraction: float, device: torch.device) -> None:
        assert device == GPU
        assert isinstance(fraction, float), "torch takes no other type"
        driver.fraction = fraction

    def properties(device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(
            uuid=(FIRST, SECOND)[device.index], name="Fake", total_memory=TOTAL_MIB * MIB
        )

    answers = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 2,
        "get_device_properties": properties,
        "mem_get_info": lambda _: (driver.free_mib * MIB, TOTAL_MIB * MIB),
        "memory_reserved": lambda _: driver.reserved_mib * MIB,
        "memory_allocated": lambda _: driver.allocated_mib * MIB,
        "get_per_process_memory_fraction": lambda _: driver.fraction,
        "set_per_process_memory_fraction": cap,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    return driver


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("auto", 0),
        ("cuda", 0),
        ("cuda:1", 1),
        (f"GPU-{FIRST}", 0),
        ("GPU-8F3CFF", 1),
        ("MIG-8f3c2", 0),
    ],
)
@pytest.mark.usefixtures("driver")
def test_a_name_means_one_gpu(name: str, index: int) -> None:
    """By index, by UUID as nvidia-smi prints it, or by the beginning of one."""
    assert resolve_device(name) == torch.device("cuda", index)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cuda:2", "2 CUDA devices"),
        ("GPU-0000", f"this process sees no such GPU; there are: GPU-{FIRST}, GPU-{SECOND}"),
        ("GPU-8f3c", "more than one GPU matches"),
        ("GPU-", "more than one GPU matches"),
    ],
)
@pytest.mark.usefixtures("driver")
def test_a_name_that_means_none_or_several_is_refused(name: str, said: str) -> None:
    """With those that there are."""
    with pytest.raises(DeviceError, match=said):
        resolve_device(name)


def test_a_cap_bounds_what_is_free(driver: Driver) -> None:
    """The context is taken off before; what is allocated counts against it, kept memory does not."""
    assert free_bytes(GPU) == TOTAL_MIB * MIB
    cap_memory(GPU, 8000)
    assert driver.fraction == pytest.approx((8000 - CONTEXT_MIB) / TOTAL_MIB)
    driver.reserved_mib, driver.allocated_mib = 3000, 1000
    free = free_bytes(GPU)
    assert free is not None
    assert free // MIB == pytest.approx(8000 - CONTEXT_MIB - 1000, abs=1)
    driver.free_mib = 100
    assert free_bytes(GPU) == 2100 * MIB
    cap_memory(GPU, 100_000)
    assert driver.fraction == 1.0


def test_what_this_process_holds_includes_its_context(driver: Driver) -> None:
    """Else a GPU would seem less free by that much as soon as it is used."""
    assert held_mib(GPU) == 0
    driver.reserved_mib = 3000
    assert held_mib(GPU) == 3000 + CONTEXT_MIB
