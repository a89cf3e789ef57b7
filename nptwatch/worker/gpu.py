"""The diagnostics on this worker's device, with a base model that stays loaded between jobs."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog
import torch

from nptwatch.diagnostics.grading import Grade
from nptwatch.diagnostics.identity import DIAGNOSTICS_VERSION
from nptwatch.errors import BaseModelError, GpuBusyError, LayoutError, OutOfMemoryError
from nptwatch.npt.base import files_stamp
from nptwatch.npt.devices import CONTEXT_MIB, MIB, cap_memory, compute_in_background, resolve_device
from nptwatch.npt.memory import device_errors
from nptwatch.npt.opening import STREAMED, streamed_bytes
from nptwatch.npt.reader import read_checkpoint
from nptwatch.store.records import Measured
from nptwatch.worker.bases import Diagnostics, diagnostics_of, load_base_for
from nptwatch.worker.gpu_card import card_of
from nptwatch.worker.gpu_lock import GpuLock, shared_folder
from nptwatch.worker.manners import Manners
from nptwatch.worker.reporting import measured_on, result_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path
    from typing import TypeVar

    from nptwatch.npt.base import BaseModel
    from nptwatch.npt.opening import Opened
    from nptwatch.settings import Settings
    from nptwatch.store.records import Claim
    from nptwatch.worker.gpu_card import Card
    from nptwatch.worker.manners import Way

    T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """The base in memory and what was computed of it.

    Attributes:
        stamp: of the base's files when it was loaded; another one means another base.
        way: by which it was loaded.
    """

    name: str
    stamp: str
    way: Way
    opened: Opened
    diagnostics: Diagnostics


class GpuDiagnoser:
    """Implements worker.loop.Diagnoser on a real model.

    Args:
        settings: base, diagnostic, worker and gpu sections are used.
        clock: gives the time that results are stamped with.
        card: the GPU; None: what the settings name, if it is one.
        sleep, seconds: see Manners.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], datetime],
        *,
        card: Card | None = None,
        sleep: Callable[[float], object] = time.sleep,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        device = card.device if card else resolve_device(settings.worker.device)
        self._settings = settings
        self._clock = clock
        self._device = device
        self._card = card or card_of(device)
        self._manners = Manners(
            settings.gpu,
            settings.base.layers,
            self._card,
            _lock_of(settings, self._card) if self._card else None,
            sleep=sleep,
            seconds=seconds,
        )
        self._loaded: _Loaded | None = None
        self._way: Way | None = None
        self._streamed_mib: dict[str, int | None] = {}
        self._has_used_gpu = False

    @property
    def device(self) -> str:
        """Where it measures: cpu or cuda:<n>."""
        return str(self._device)

    @property
    def base_model(self) -> str | None:
        """The base in memory."""
        return self._loaded.name if self._loaded else None

    def base_revision(self, claim: Claim) -> str:
        """Return the content identity of the job's base, loading it if it is not the one in memory.

        Raises:
            BaseModelError: nobody names it, or it cannot be loaded.
            GpuBusyError: others need the GPU, and no other way is allowed.
            OutOfMemoryError: it does not fit.
        """
        name = self._base_name(claim)
        try:
            loaded = self._loaded.way if self._loaded else None
            self._way = self._manners.way(name, loaded, lambda: self._stream_mib(name))
        except GpuBusyError as error:
            self._drop()
            self._manners.leave()
            raise GpuBusyError(str(error), is_spent=self._has_used_gpu) from None
        return self._within_memory(name, lambda loaded: loaded.diagnostics.base.revision)

    def measure(self, claim: Claim, path: Path) -> Measured:
        """Measure a checkpoint as its job asks; `base_revision` was asked before.

        Raises:
            CheckpointError: it cannot be read; layout faults come back as grade UNLOADABLE.
            OutOfMemoryError: the device or the machine is out of memory, whatever was tried.
        """
        started = time.perf_counter()
        name = self._base_name(claim)
        measured = self._within_memory(
            name, lambda loaded: self._measure(loaded, claim, path, started)
        )
        assert self._way is not None  # noqa: S101 - it was just measured by it
        self._manners.fitted(self._way, name)
        return measured

    def _measure(self, loaded: _Loaded, claim: Claim, path: Path, started: float) -> Measured:
        base = loaded.diagnostics.base
        max_bytes = self._settings.diagnostic.max_checkpoint_bytes
        try:
            checkpoint = read_checkpoint(path, max_bytes=max_bytes)
            result = loaded.diagnostics.of(claim.profile).measure(checkpoint)
        except LayoutError as exc:
            return self._unloadable(base, str(exc), started)
        card = self._card if loaded.way.on_gpu else None
        return result_of(
            result,
            base,
            path,
            step=claim.step,
            seconds=time.perf_counter() - started,
            at=self._clock(),
            on=measured_on(
                base,
                gpu=(card.name, card.uuid) if card else None,
                because=loaded.opened.why,
                steps=loaded.way.steps,
            ),
        )

    def _within_memory(self, name: str, do: Callable[[_Loaded], T]) -> T:
        """Do something with a base; where memory runs out, in ways that take less.

        Raises:
            OutOfMemoryError: all of them took too much; says which.
        """
        assert self._way is not None  # noqa: S101 - `base_revision` comes first
        way, failed = self._way, list[str]()
        while True:
            layers = None
            try:
                return self._attempt(name, way, do)
            except OutOfMemoryError as error:
                failed.append(str(error))
                layers = self._loaded.opened.layers if self._loaded else None
            except BaseModelError as error:
                if not failed:
                    raise
                failed.append(str(error))
                layers = STREAMED  # which this base cannot be
            # Not before the handler's end: until then the error's frames hold what was allocated.
            self._collect()
            smaller = self._manners.smaller(way, name, failed[-1], layers=layers)
            if smaller is None:
                self._drop()
                self._manners.leave()
                raise OutOfMemoryError("; ".join(failed))
            way = smaller

    def _attempt(self, name: str, way: Way, do: Callable[[_Loaded], T]) -> T:
        """Do something with a base, held by this way; no reference to it is left."""
        with device_errors(self._device_by(way)):
            loaded = self._base_by(name, way)
            self._way = way
            return do(loaded)

    def _base_by(self, name: str, way: Way) -> _Loaded:
        stamp, held = files_stamp(name), self._loaded
        if held is not None and (held.name, held.stamp) == (name, stamp):
            if held.way == way:
                self._loaded = replace(held, way=way)  # its steps are this job's
                return self._loaded
            if held.way == replace(way, small=held.way.small):
                self._loaded = self._around(name, stamp, way, held.opened)
                return self._loaded
        del held  # never two bases in memory
        self._drop()
        self._loaded = self._load(name, stamp, way)
        return self._loaded

    def _load(self, name: str, stamp: str, way: Way) -> _Loaded:
        if way.on_gpu:
            self._enter_gpu()
        else:
            self._manners.leave()
        device = self._device_by(way)
        opened = load_base_for(self._settings, name, device, way.layers)
        return self._around(name, stamp, way, opened)

    def _around(self, name: str, stamp: str, way: Way, opened: Opened) -> _Loaded:
        diagnostics = diagnostics_of(self._settings, opened.base, small=way.small)
        return _Loaded(name=name, stamp=stamp, way=way, opened=opened, diagnostics=diagnostics)

    def _drop(self) -> None:
        """Give back what the base and all that was computed of it took."""
        if self._loaded is not None:
            self._loaded = None
            self._collect()

    def _collect(self) -> None:
        """Give memory back that nobody holds any more; on a GPU only where CUDA was used.

        Raises:
            DeviceError: the device is broken, which shows only now.
        """
        with device_errors(self._device):
            gc.collect()
            torch.cuda.empty_cache()

    def _enter_gpu(self) -> None:
        """Use the GPU from now on, within bounds."""
        if self._has_used_gpu:
            return
        self._has_used_gpu = True
        if self._device.type == "cuda":
            if self._settings.gpu.max_gpu_mib is not None:
                cap_memory(self._device, self._settings.gpu.max_gpu_mib)
            compute_in_background(self._device)

    def _device_by(self, way: Way) -> torch.device:
        return self._device if way.on_gpu else torch.device("cpu")

    def _stream_mib(self, name: str) -> int | None:
        if name not in self._streamed_mib:
            base = self._settings.base
            needed = streamed_bytes(name, dtype=base.dtype, local_files_only=base.local_files_only)
            self._streamed_mib[name] = None if needed is None else needed // MIB + CONTEXT_MIB
        return self._streamed_mib[name]

    def _base_name(self, claim: Claim) -> str:
        name = self._settings.base.model or claim.base_model
        if name is None:
            msg = (
                f"{claim.paths[0] if claim.paths else claim.run_path}: nobody names its base "
                "model; set base.model in the settings"
            )
            raise BaseModelError(msg)
        return name

    def _unloadable(self, base: BaseModel, error: str, started: float) -> Measured:
        return Measured(
            grade=Grade.UNLOADABLE,
            base_revision=base.revision,
            diagnostics_version=DIAGNOSTICS_VERSION,
            error=error,
            duration_seconds=time.perf_counter() - started,
            measured_at=self._clock(),
        )


def _lock_of(settings: Settings, card: Card) -> GpuLock:
    """Give the lock of a GPU; the workers of one daemon share their GPU, as they were asked to."""
    folder = settings.gpu.lock_dir or shared_folder()
    return GpuLock(card.uuid, folder, share=settings.gpu.share or settings.worker.count > 1)
