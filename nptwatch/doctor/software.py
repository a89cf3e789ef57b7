"""What is installed: versions, torch and how it reads files, GPU and driver."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Final

from nptwatch.doctor.finding import Finding, fail, ok, warn
from nptwatch.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nptwatch.settings import Settings

_NAMED: Final = ("torch", "transformers", "watchdog", "sqlalchemy")
"""Whose version is worth a word when all is well."""


def has_right_versions() -> Iterator[Finding]:
    """Compare what is installed with what this version of nptwatch asks for."""
    from packaging.requirements import Requirement  # comes with transformers

    name = "versions"
    try:
        required = [Requirement(line) for line in metadata.requires("nptwatch") or ()]
    except metadata.PackageNotFoundError:
        yield ok(name, "not compared: nptwatch runs from a checkout that is not installed")
        return
    wrong = []
    for one in required:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            wrong.append((one, "not installed"))
        else:
            if not one.specifier.contains(version, prereleases=True):
                wrong.append((one, version))
    for one, version in wrong:
        text = f"{one.name} is {version}, nptwatch needs {one.specifier}"
        yield fail(name, text, f"pip install '{one.name}{one.specifier}'")
    if not wrong:
        found = ", ".join(f"{package} {metadata.version(package)}" for package in _NAMED)
        yield ok(name, f"nptwatch {metadata.version('nptwatch')}, {found}")


def has_torch() -> Iterator[Finding]:
    """Load torch and give it a file with code in it."""
    from nptwatch.worker.facts import refuses_code, torch_version

    name = "torch"
    if refuses_code():
        yield ok(name, f"{torch_version()}, weights_only refuses code")
    else:
        text = f"{torch_version()} runs code out of a file in spite of weights_only"
        yield fail(name, text, "install a sound torch: pip install --force-reinstall torch")


def has_its_device(settings: Settings) -> Iterator[Finding]:
    """Look for the device that workers are to use, and at the driver."""
    from nptwatch.worker import facts

    name, device = "device", settings.worker.device
    driver = facts.driver_version()
    try:
        found = list(facts.gpus((device,)))
    except DeviceError as error:
        yield fail(name, str(error), _why_no_gpu(driver, built=facts.is_built_for_gpus()))
        return
    for gpu in found:
        text = f"{device}: {gpu.name}, {gpu.free_mib:,} of {gpu.total_mib:,} MiB free"
        text += f", used by {gpu.users}" if gpu.users else ""
        text += f", driver {driver}" if driver else ""
        least = settings.gpu.min_free_gpu_mib
        if gpu.free_mib < least:
            fix = f"gpu.when_busy says what is done: {', '.join(settings.gpu.when_busy)}"
            yield warn(name, f"{text}; busy, as gpu.min_free_gpu_mib is {least:,}", fix)
        else:
            yield ok(name, text)
    if found and not facts.has_nvml():
        text = "NVML does not answer: who else uses the GPU is not known"
        yield warn("NVML", text, "pip install 'nptwatch[gpu]'")
    if found:
        return
    if driver is not None and device == "auto":
        text = f"auto: the CPU, though there is an NVIDIA driver ({driver})"
        yield warn(name, text, _why_no_gpu(driver, built=facts.is_built_for_gpus()))
    else:
        yield ok(name, f"{device}: the CPU{'' if driver else ', no NVIDIA driver'}")


def _why_no_gpu(driver: str | None, *, built: bool) -> str:
    if driver is None:
        return (
            "there is no NVIDIA driver: install it (nvidia-smi must work), or set"
            ' worker.device = "cpu"'
        )
    if not built:
        return "this torch is for CPUs only: install a CUDA build of it, see pytorch.org"
    return (
        "the driver is there: see nvidia-smi, CUDA_VISIBLE_DEVICES, and who may open /dev/nvidia*"
    )
