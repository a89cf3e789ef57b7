"""Which worker a job fits: what jobs need, what workers offer. claiming.py says the same in SQL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a worker takes jobs by; as it is, it takes all.

    Attributes:
        gpu_mib: GPU memory that it has for jobs which need some; None: it is not bound by it.
        bases: globs on base models' names; a job that names its base must match one; (): any.
        blind: folders, of runs or watched roots, that its host does not see; as this host calls
            them.
    """

    gpu_mib: int | None = None
    bases: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()


ANYTHING = Offer()
"""Of a worker that is bound by nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Queued jobs with the same labels.

    Attributes:
        oldest_at: when the first of them was made.
    """

    base_model: str | None
    min_gpu_mib: int | None
    run_path: str
    run_root: str
    jobs: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Untaken:
    """Queued jobs that no worker at work takes, and why not."""

    jobs: int
    oldest_at: datetime
    why: str


def base_pattern(bases: Iterable[str]) -> str:
    """Give the regular expression of globs on names: Python, SQLite and Postgres read it alike."""
    return f"^(?:{'|'.join(map(_regex, bases))})$"


def _regex(glob: str) -> str:
    pieces = re.split(r"(\*|\?)", glob)
    return "".join({"*": ".*", "?": "."}.get(piece, re.escape(piece)) for piece in pieces)


def why_not(offer: Offer, job: Waiting) -> str | None:
    """Say why a worker does not take a job; None: it does."""
    base, needed, has = job.base_model, job.min_gpu_mib, offer.gpu_mib
    if needed is not None and has is not None and has < needed:
        return f"needs {_gib(needed)} GiB of GPU memory, the worker has {_gib(has)}"
    if offer.bases and base is not None and not re.search(base_pattern(offer.bases), base):
        return f"is of base {base}, the worker takes {', '.join(offer.bases)}"
    unseen = next((f for f in (job.run_root, job.run_path) if f in offer.blind), None)
    if unseen is not None:
        return f"lies below {unseen}, which the worker's host does not see"
    return None


def untaken(waiting: Iterable[Waiting], offers: Iterable[Offer]) -> list[Untaken]:
    """Find the jobs that none of the workers takes; most jobs first. Without workers: none.

    Args:
        offers: of the workers at work.
    """
    known = list(dict.fromkeys(offers))
    found: dict[str, Untaken] = {}
    for group in waiting:
        why = reason_untaken(group, known)
        if why is None:
            continue
        before = found.get(why)
        jobs, oldest = group.jobs, group.oldest_at
        if before is not None:
            jobs, oldest = jobs + before.jobs, min(oldest, before.oldest_at)
        found[why] = Untaken(jobs=jobs, oldest_at=oldest, why=why)
    return sorted(found.values(), key=lambda each: (-each.jobs, each.why))


def reason_untaken(job: Waiting, offers: Iterable[Offer]) -> str | None:
    """Say why no worker takes a job; None: one does, or there is none."""
    reasons: list[str] = []
    for offer in offers:
        reason = why_not(offer, job)
        if reason is None:
            return None
        reasons.append(reason)
    return "; ".join(dict.fromkeys(reasons)) or None


def stored_offer(offer: Offer, name: Callable[[str], str]) -> dict[str, Any]:  # Any: free JSON
    """Give an offer as it is stored.

    Args:
        name: gives the database's name of a path.
    """
    return {
        "gpu_mib": offer.gpu_mib,
        "bases": [name(base) for base in offer.bases],
        "blind": [name(folder) for folder in offer.blind],
    }


def offer_of(stored: Mapping[str, Any], name: Callable[[str], str]) -> Offer:  # Any: free JSON
    """Read a stored offer; a worker of an older version stored none, and takes all.

    Args:
        name: gives this host's name of a path.
    """
    return Offer(
        gpu_mib=stored.get("gpu_mib"),
        bases=tuple(name(base) for base in stored.get("bases", ())),
        blind=tuple(name(folder) for folder in stored.get("blind", ())),
    )


def _gib(mib: int) -> str:
    return f"{mib / 1024:.4g}"
