"""A base model opened for measuring, with the diagnostics that share it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import torch

from nptwatch.diagnostics.full import FullDiagnostic
from nptwatch.diagnostics.generation import Continuations
from nptwatch.diagnostics.identity import bounds_of
from nptwatch.diagnostics.probes import (
    BASIC_PROMPT,
    PER_LAYER_PROMPT,
    PROGRESSIVE_PROMPT,
    tokenize,
)
from nptwatch.diagnostics.quick import QuickDiagnostic
from nptwatch.diagnostics.reference import References
from nptwatch.errors import ConfigError
from nptwatch.npt.devices import MIB, cap_memory, resolve_device
from nptwatch.npt.memory import device_errors
from nptwatch.npt.opening import open_base
from nptwatch.settings import FULL, QUICK
from nptwatch.worker.cores import threads_for, usable_cores

if TYPE_CHECKING:
    from pathlib import Path

    from nptwatch.npt.base import BaseModel
    from nptwatch.npt.opening import Opened
    from nptwatch.settings import Settings

SMALL_SHARE = 8
"""Logits that are made at a time where memory is short: this part of what the settings allow."""

SMALL_BATCH_TOKENS = 64
"""Tokens that go through a layer at a time there."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostics:
    """The diagnostics of one base; they share what is computed of it."""

    quick: QuickDiagnostic
    full: FullDiagnostic

    @property
    def base(self) -> BaseModel:
        """The base."""
        return self.quick.references.base

    def of(self, profile: str) -> QuickDiagnostic | FullDiagnostic:
        """Give the diagnostic of a profile.

        Raises:
            ConfigError: there is no such profile.
        """
        if profile not in {QUICK, FULL}:
            msg = f"profile {profile!r} is not known to this version"
            raise ConfigError(msg)
        return self.quick if profile == QUICK else self.full


def load_base_for(
    settings: Settings, name: str, device: torch.device, layers: str | None = None
) -> Opened:
    """Load a base.

    Args:
        layers: resident, streamed or auto; None: as the settings say.

    Raises:
        BaseModelError: it cannot be loaded.
        ConfigError: the probe texts are too long for it.
        OutOfMemoryError: it does not fit.
    """
    started = time.perf_counter()
    torch.set_num_threads(threads_for(settings.worker, usable_cores()))
    with device_errors(device):
        opened = open_base(
            name,
            layers=layers or settings.base.layers,
            dtype=settings.base.dtype,
            device=device,
            local_files_only=settings.base.local_files_only,
        )
    _require_texts(opened.base, settings.diagnostic.probe_texts)
    log.info(
        "base_loaded",
        base_model=name,
        revision=opened.base.revision,
        device=str(device),
        layers=opened.layers,
        because=opened.why,
        seconds=round(time.perf_counter() - started, 2),
    )
    return opened


def load_references(settings: Settings, name: str) -> References:
    """Load a base onto the settings' device, and what is known of it.

    Raises:
        BaseModelError: it cannot be loaded.
        ConfigError: the probe texts are too long for it.
        DeviceError: there is no such device; OutOfMemoryError: it does not fit.
    """
    device = resolve_device(settings.worker.device)
    if device.type == "cuda" and settings.gpu.max_gpu_mib is not None:
        cap_memory(device, settings.gpu.max_gpu_mib)
    return references_of(settings, load_base_for(settings, name, device).base)


def references_of(settings: Settings, base: BaseModel, *, small: bool = False) -> References:
    """Give what is known of a base, from the state folder's cache.

    Args:
        small: take less memory and more time; the numbers are the same.
    """
    logits_bytes = settings.diagnostic.logits_mib * MIB
    batch_tokens = settings.gpu.batch_tokens if base.device.type == "cuda" else 0
    return References(
        base=base,
        folder=_cache(settings),
        logits_bytes=logits_bytes // SMALL_SHARE if small else logits_bytes,
        batch_tokens=SMALL_BATCH_TOKENS if small else batch_tokens,
    )


def diagnostics_of(settings: Settings, base: BaseModel, *, small: bool = False) -> Diagnostics:
    """Build both diagnostics of these settings."""
    references = references_of(settings, base, small=small)
    return Diagnostics(
        quick=quick_diagnostic(settings, references), full=full_diagnostic(settings, references)
    )


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
            base=references.base,
            folder=_cache(settings),
            seed=settings.diagnostic.seed,
            logits_bytes=references.logits_bytes,
            batch_tokens=references.batch_tokens,
        ),
        residual=settings.diagnostic.residual,
        texts=settings.diagnostic.probe_texts,
        bounds=bounds_of(settings),
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
