"""What is written beside a kept checkpoint, and of all of a run's: card.json and GOOD.json."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nptwatch.diagnostics.grading import Grade, at_least
from nptwatch.store.records import KeptState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.store.records import KeptRow
    from nptwatch.worker.pins import Pinned

CARD = "card.json"
CONFIG = "config.json"
POINTER = "GOOD.json"

_MOST_OF_A_NAME = 80
_NUMBERS = (
    "grade",
    "mse",
    "cosine",
    "kl",
    "top1_agreement",
    "relative_mse",
    "perplexity_ratio",
    "residual",
    "overall_status",
    "avg_score",
)


def run_folder(run: str, run_path: str) -> str:
    """Name a run's folder below `kept/`: to be read by people, and no two runs alike."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", run).strip(".-")[-_MOST_OF_A_NAME:]
    return f"{plain or 'run'}-{hashlib.sha256(run_path.encode()).hexdigest()[:8]}"


def pin_folder(row: KeptRow) -> Path:
    """Name a checkpoint's folder below `kept/`, the same whoever makes it."""
    step = "unknown" if row.step is None else row.step
    content = hashlib.sha256(row.fingerprint.encode()).hexdigest()[:12]
    return Path(run_folder(row.run, row.run_path), f"{step}-{content}")


def checkpoint_folder(row: KeptRow) -> str:
    """Name the weights' folder below that, as trainers do, so that its step can be read off."""
    return "checkpoint" if row.step is None else f"checkpoint-{row.step}"


def numbers_of(row: KeptRow) -> dict[str, Any]:  # Any: free JSON
    """Say what was measured of a checkpoint, and against what."""
    return {
        **{name: getattr(row, name) for name in _NUMBERS},
        "measured_at": None if row.measured_at is None else row.measured_at.isoformat(),
        "base_model": row.base_model,
        "base_revision": row.base_revision,
    }


def card_of(row: KeptRow, pinned: Pinned, source: str, host: str) -> dict[str, Any]:  # Any: JSON
    """Say all that is known of a kept checkpoint.

    Args:
        source: the trainer's file that it was made of.
    """
    return {
        "run": row.run,
        "run_path": row.run_path,
        "step": row.step,
        "because": row.because,
        **numbers_of(row),
        "fingerprint": row.fingerprint,
        "sha256": pinned.sha256,
        "size_bytes": pinned.size_bytes,
        "how": str(pinned.how),
        "source": source,
        "host": host,
    }


def best_good(rows: Sequence[KeptRow]) -> KeptRow | None:
    """Give the kept checkpoint of lowest MSE that is GOOD or better."""
    good = [row for row in rows if is_good(row) and row.state is KeptState.KEPT]
    return min(good, key=lambda row: (mse_of(row), row.kept_id), default=None)


def is_good(row: KeptRow) -> bool:
    """Whether it is GOOD or better."""
    return at_least(row.grade, Grade.GOOD)


def mse_of(row: KeptRow) -> float:
    """Give its MSE to sort by; what has none, or was found INVALID since, comes last."""
    return math.inf if row.mse is None or row.grade == Grade.INVALID else row.mse


def pointer_of(row: KeptRow) -> dict[str, Any]:  # Any: free JSON
    """Say where a run's best GOOD checkpoint is, for scripts."""
    return {
        "run": row.run,
        "run_path": row.run_path,
        "step": row.step,
        "path": None if row.file is None else row.file.path,
        **numbers_of(row),
        "fingerprint": row.fingerprint,
        "card": None if row.file is None else str(Path(row.file.path).parents[1] / CARD),
    }


def write_json(path: Path, content: dict[str, Any]) -> None:  # Any: free JSON
    """Put a JSON file in its place at once: whoever reads finds the old or the new, whole."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (OSError, UnicodeDecodeError):
        pass
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
