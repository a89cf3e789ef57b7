"""Settings for many machines: what a folder is called elsewhere, and which worker a job needs."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from nptwatch.sections import Section

if TYPE_CHECKING:
    from typing import Self

GiB = Annotated[float, Field(ge=0, le=2**20)]


class PathPair(Section):
    """One folder that is called otherwise on this host than in the database."""

    stored: Annotated[str, StringConstraints(pattern=r"^/")]
    """What the database calls it: what a host without an entry for it does."""
    here: Path
    """What this host calls it."""


def _each_once(pairs: tuple[PathPair, ...]) -> tuple[PathPair, ...]:
    for names in ([p.stored.rstrip("/") for p in pairs], [str(p.here) for p in pairs]):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"names {twice or '/'} twice: a folder has one name")
    return pairs


PathPairs = Annotated[tuple[PathPair, ...], AfterValidator(_each_once)]


class LabelRule(Section):
    """What the jobs of some runs, or of some base models, need."""

    run: str | None = None
    """Glob on the run's name (its path below the watched root); unset: any."""
    base: str | None = None
    """Glob on the base model's name; unset: any."""
    min_gpu_gib: GiB
    """As in [labels]."""

    @model_validator(mode="after")
    def _is_of_something(self) -> Self:
        if self.run is None and self.base is None:
            raise ValueError("needs run, base, or both; for all jobs set labels.min_gpu_gib")
        return self


class LabelSettings(Section):
    """What jobs need of the worker that takes them, beside their base model."""

    min_gpu_gib: GiB = 0.0
    """Least GPU memory; 0: any."""
    rules: tuple[LabelRule, ...] = ()
    """Exceptions for some runs or bases; the first that matches counts."""
