"""The diagnostics on this worker's device, with a base model that stays loaded between jobs."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
import torch

from nptwatch.diagnostics.full import FullDiagnostic
from nptwatch.diagnostics.full_report import full_report, overall_status
from nptwatch.diagnostics.generation import Continuations
from nptwatch.diagnostics.grading import Grade
from nptwatch.diagnostics.identity import DIAGNOSTICS_VERSION, bounds_of
from nptwatch.diagnostics.probes import (
    BASIC_PROMPT,
    PER_LAYER_PROMPT,
    PROGRESSIVE_PROMPT,
    tokenize,
)
from nptwatch.diagnostics.quick import QuickDiagnostic
from nptwatch.diagnostics.reference import References
from nptwatch.diagnostics.report import number, quick_report
from nptwatch.diagnostics.results import FullResult
from nptwatch.diagnostics.training_log import loss_finding, trainer_loss
from nptwatch.errors import (
    BaseModelError,
    ConfigError,
    LayoutError,
)
from nptwatch.npt.base import BaseModel, files_stamp, resolve_device
from nptwatch.npt.memory import device_errors
from nptwatch.npt.opening import open_base
from nptwatch.npt.reader import read_checkpoint
from nptwatch.settings import FULL, QUICK
from nptwatch.store.records import Measured

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from nptwatch.diagnostics.report import Report
    from nptwatch.diagnostics.results import QuickResult
    from nptwatch.settings import Settings
    from nptwatch.store.records import Claim

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class _Loaded:
    """The base in memory and what was computed of it.

    Attributes:
        stamp: of the base's files when it was loaded; another one means another base.
    """

    name: str
    stamp: str
    quick: QuickDiagnostic
    full: FullDiagnostic

    def diagnostic(self, profile: str) -> QuickDiagnostic | FullDiagnostic:
        """Give the diagnostic of a profile.

        Raises:
            ConfigError: there is no such profile.
        """
        if profile not in {QUICK, FULL}:
            msg = f"profile {profile!r} is not known to this version"
            raise ConfigError(msg)
        return self.quick if profile == QUICK else self.full


class GpuDiagnoser:
    """Implements worker.loop.Diagnoser on a real model.

    Args:
        settings: base, diagnostic and worker sections are used.
        clock: gives the time that results are stamped with.
    """

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._clock = clock
        self._device = resolve_device(settings.worker.device)
        self._loaded: _Loaded | None = None

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
            OutOfMemoryError: it does not fit.
        """
        return self._base_for(claim).quick.references.base.revision

    def measure(self, claim: Claim, path: Path) -> Measured:
        """Measure a checkpoint as its job asks.

        Raises:
            CheckpointError: it cannot be read; layout faults come back as grade UNLOADABLE.
            OutOfMemoryError: the device or the machine is out of memory.
        """
        started = time.perf_counter()
        loaded = self._base_for(claim)
        max_bytes = self._settings.diagnostic.max_checkpoint_bytes
        with device_errors(self._device):
            try:
                checkpoint = read_checkpoint(path, max_bytes=max_bytes)
                result = loaded.diagnostic(claim.profile).measure(checkpoint)
            except LayoutError as exc:
                return self._unloadable(loaded.quick.references.base, str(exc), started)
        return self._measured(claim, path, loaded.quick.references.base, result, started)

    def _base_for(self, claim: Claim) -> _Loaded:
        name = self._settings.base.model or claim.base_model
        if name is None:
            msg = (
                f"{claim.paths[0] if claim.paths else claim.run_path}: nobody names its base "
                "model; set base.model in the settings"
            )
            raise BaseModelError(msg)
        stamp = files_stamp(name)
        if self._loaded is None or (self._loaded.name, self._loaded.stamp) != (name, stamp):
            self._loaded = None  # never two bases in memory
            references = load_references(self._settings, name)
            self._loaded = _Loaded(
                name=name,
                stamp=stamp,
                quick=quick_diagnostic(self._settings, references),
                full=full_diagnostic(self._settings, references),
            )
        return self._loaded

    def _unloadable(self, base: BaseModel, error: str, started: float) -> Measured:
        return Measured(
            grade=Grade.UNLOADABLE,
            base_revision=base.revision,
            diagnostics_version=DIAGNOSTICS_VERSION,
            error=error,
            duration_seconds=time.perf_counter() - started,
            measured_at=self._clock(),
        )

    def _measured(
        self,
        claim: Claim,
        path: Path,
        base: BaseModel,
        result: QuickResult | FullResult,
        started: float,
    ) -> Measured:
        at, seconds = self._clock(), time.perf_counter() - started
        quick = result.quick if isinstance(result, FullResult) else result
        score = result.avg_score if isinstance(result, FullResult) else None
        mean = quick.mean
        return Measured(
            grade=str(quick.grade),
            base_revision=base.revision,
            diagnostics_version=DIAGNOSTICS_VERSION,
            mse=number(mean.mse) if mean else None,
            cosine=number(mean.cosine) if mean else None,
            kl=number(mean.kl) if mean else None,
            top1_agreement=number(mean.top1_agreement) if mean else None,
            relative_mse=number(mean.relative_mse) if mean else None,
            perplexity_ratio=number(mean.perplexity_ratio) if mean else None,
            hidden_mse=number(mean.hidden_mse) if mean else None,
            residual=quick.residual,
            overall_status=None if score is None else overall_status(score),
            avg_score=score,
            error=quick.why or None,
            duration_seconds=seconds,
            measured_at=at,
            details=report_of(result, base, path, claim.step, seconds, at),
        )


def load_references(settings: Settings, name: str) -> References:
    """Load a base and what is known of it from the state folder's cache.

    Raises:
        BaseModelError: it cannot be loaded.
        ConfigError: the probe texts are too long for it.
        DeviceError: there is no such device; OutOfMemoryError: it does not fit.
    """
    started = time.perf_counter()
    device = resolve_device(settings.worker.device)
    torch.set_num_threads(settings.worker.threads or max(1, (os.cpu_count() or 2) // 2))
    with device_errors(device):
        opened = open_base(
            name,
            layers=settings.base.layers,
            dtype=settings.base.dtype,
            device=device,
            local_files_only=settings.base.local_files_only,
        )
    _require_texts(opened.base, settings.diagnostic.probe_texts)
    log.info(
        "base_loaded",
        base_model=name,
        revision=opened.base.revision,
        layers=opened.layers,
        because=opened.why,
        seconds=round(time.perf_counter() - started, 2),
    )
    return References(
        base=opened.base,
        folder=_cache(settings),
        logits_bytes=settings.diagnostic.logits_mib * 1024**2,
    )


def _require_texts(base: BaseModel, texts: tuple[str, ...]) -> None:
    """Refuse texts that any profile could not measure, before a checkpoint is blamed for them.

    Raises:
        ConfigError: they are too long for this base, or together.
    """
    if texts:
        tokenize(base, (BASIC_PROMPT, *texts, PER_LAYER_PROMPT, PROGRESSIVE_PROMPT))


def _cache(settings: Settings) -> Path:
    return settings.state_dir / "cache" / "references"


def quick_diagnostic(settings: Settings, references: References) -> QuickDiagnostic:
    """Build the quick diagnostic of these settings."""
    return QuickDiagnostic(
        references=references,
        residual=settings.diagnostic.residual,
        texts=settings.diagnostic.probe_texts,
        bounds=bounds_of(settings),
    )


def full_diagnostic(settings: Settings, references: References) -> FullDiagnostic:
    """Build the full diagnostic of these settings."""
    return FullDiagnostic(
        references=references,
        continuations=Continuations(
            base=references.base, folder=_cache(settings), seed=settings.diagnostic.seed
        ),
        residual=settings.diagnostic.residual,
        texts=settings.diagnostic.probe_texts,
        bounds=bounds_of(settings),
    )


def report_of(
    result: QuickResult | FullResult,
    base: BaseModel,
    path: Path,
    step: int | None,
    seconds: float,
    at: datetime,
) -> Report:
    """Build the JSON report of a result, the trainer's own loss beside it."""
    quick = result.quick if isinstance(result, FullResult) else result
    loss = trainer_loss(path, step)
    more = loss_finding(loss, quick.mean.mse) if loss and quick.mean else None
    about: dict[str, Any] = {  # Any: keyword arguments
        "checkpoint": str(path),
        "model_name": base.name,
        "step": step,
        "device": str(base.device),
        "dtype": str(base.dtype).removeprefix("torch."),
        "total_seconds": seconds,
        "at": at,
        "base_revision": base.revision,
        "trainer": loss,
        "more_findings": [more] if more else [],
    }
    if isinstance(result, FullResult):
        return full_report(result, **about)
    return quick_report(result, **about)
