"""The trainer's own loss at a step, and what it measures. Never an error: a log may be missing.

The trainers' losses are not the diagnostic's MSE (docs/npt.md): they are shown side by side, so
that nobody takes the difference for a stale checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nptwatch.diagnostics.grading import Finding

if TYPE_CHECKING:
    from pathlib import Path

MAX_LOG_BYTES = 64 * 1024 * 1024
MAX_LEVELS_UP = 2
MEANINGS = {
    "val_fidelity_loss": "MSE of the final hidden states on the trainer's validation text",
    "fidelity_loss": "MSE of the final hidden states on the trainer's own text",
    "direct_mlp_loss": "per-layer MSE of the MLP outputs on the trainer's own text",
    "val_loss": "the trainer's validation loss, regularisation included",
    "total_loss": "the trainer's training loss, regularisation included",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerLoss:
    """A loss that the trainer logged.

    Attributes:
        name: its key in the log.
        measures: what it measures, in words.
    """

    step: int
    name: str
    value: float
    measures: str


def trainer_loss(weights: Path, step: int | None) -> TrainerLoss | None:
    """Find the loss logged at `step` in the training_log.jsonl of the checkpoint's run."""
    if step is None:
        return None
    for folder in list(weights.parents)[: MAX_LEVELS_UP + 1]:
        text = _read(folder / "training_log.jsonl")
        if text is not None:
            return _pick(step, text.splitlines())
    return None


def _read(path: Path) -> str | None:
    """Read a regular file of sensible size; anything else, a pipe above all, is none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_LOG_BYTES:
                return None
            return file.read(MAX_LOG_BYTES).decode(errors="replace")
    except OSError:
        return None


def _pick(step: int, lines: list[str]) -> TrainerLoss | None:
    """The most telling loss among the lines of that step; a resumed run's last one counts."""
    seen: dict[str, float] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and entry.get("step") == step:
            numbers = {name: _number(entry.get(name)) for name in MEANINGS}
            seen |= {name: number for name, number in numbers.items() if number is not None}
    for name, measures in MEANINGS.items():
        if name in seen:
            return TrainerLoss(step=step, name=name, value=seen[name], measures=measures)
    return None


def _number(value: object) -> float | None:
    """Give a finite number; JSON in a log may hold NaN, true, or an integer of 400 digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def loss_finding(loss: TrainerLoss, mse: float) -> Finding | None:
    """Explain a trainer's loss that is not the diagnostic's MSE; None where they agree to 20 %."""
    if abs(loss.value - mse) <= 0.2 * max(mse, loss.value):
        return None
    return Finding(
        code="TRAINING_LOSS_DIFFERS",
        text=f"The trainer logged {loss.name} {loss.value:.6f} at step {loss.step}, "
        f"{loss.measures}. The MSE here is of the logits on the probes: the two need not agree, "
        "and the checkpoint is not stale.",
    )
