"""What makes two measurements comparable: one hash of everything that changes the numbers."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nptwatch.settings import Settings

DIAGNOSTICS_VERSION = 1
"""Raise when a measure, probe or formula changes: everything is then measured again."""


def settings_hash(settings: Settings, profile: str) -> str:
    """Identify how `profile` is measured under these settings.

    The base model's name is part of it, so that a corrected base measures everything again; its
    content is the result's `base_revision`. The device is not: it changes no verdict.
    """
    facts = {
        "version": DIAGNOSTICS_VERSION,
        "profile": profile,
        "residual": settings.diagnostic.residual,
        "base": settings.base.model,
        "dtype": settings.base.dtype,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
