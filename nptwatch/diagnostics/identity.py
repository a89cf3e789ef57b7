"""What makes two measurements comparable: one hash of everything that changes the numbers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from nptwatch.diagnostics.grading import GUIDE, Bounds
from nptwatch.settings import FULL

if TYPE_CHECKING:
    from nptwatch.settings import Settings

DIAGNOSTICS_VERSION = 3
"""Raise when a measure, probe or formula changes: everything is then measured again."""


def bounds_of(settings: Settings) -> Bounds:
    """Give where the settings let grades begin."""
    return Bounds(**settings.grades.model_dump())


def settings_hash(settings: Settings, profile: str) -> str:
    """Identify how `profile` is measured under these settings.

    The base model's name is part of it, so that a corrected base measures everything again; its
    content is the result's `base_revision`. The device is not: it changes no verdict. A folder is
    named as the database does, so that hosts which call it otherwise measure the same. Bounds of
    grades count, as a grade is stored with its result: all of one history are by the same.
    """
    diagnostic = settings.diagnostic
    base = settings.base.model
    facts: dict[str, object] = {
        "version": DIAGNOSTICS_VERSION,
        "profile": profile,
        "residual": diagnostic.residual,
        "base": None if base is None else settings.paths.stored(base),
        "dtype": settings.base.dtype,
    }
    if bounds_of(settings) != GUIDE:
        facts["grades"] = asdict(bounds_of(settings))
    if diagnostic.probe_texts:
        facts["texts"] = diagnostic.probe_texts
    if profile == FULL:
        facts["seed"] = diagnostic.seed
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
