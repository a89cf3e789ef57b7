"""What the jobs of a checkpoint need of a worker, by the rules of the settings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nptwatch.globs import PathGlobs
from nptwatch.store.labels import base_pattern

if TYPE_CHECKING:
    from nptwatch.machine_settings import LabelRule, LabelSettings

MIB_PER_GIB = 1024


class Needs:
    """Gives the GPU memory that jobs need.

    Args:
        settings: the rules.
        base_model: the base of all jobs, whatever checkpoints name; None: as they do.
    """

    def __init__(self, settings: LabelSettings, base_model: str | None = None) -> None:
        self._settings = settings
        self._base_model = base_model
        self._runs = [PathGlobs([rule.run or "**"]) for rule in settings.rules]

    def min_gpu_mib(self, run_name: str, base_model: str | None) -> int | None:
        """Say how much a worker must have for a run's checkpoint; None: it does not matter."""
        base = self._base_model or base_model or ""
        matching = (
            rule.min_gpu_gib
            for rule, runs in zip(self._settings.rules, self._runs, strict=True)
            if runs.match(run_name) and _is_of(base, rule)
        )
        return round(next(matching, self._settings.min_gpu_gib) * MIB_PER_GIB) or None


def _is_of(base: str, rule: LabelRule) -> bool:
    return rule.base is None or re.search(base_pattern([rule.base]), base) is not None
