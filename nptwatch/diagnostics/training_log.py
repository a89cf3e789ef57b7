"""The trainer's own loss at a step, and what it measures. Never an error: a log may be missing.

The trainers' losses are not the diagnostic's MSE (docs/npt.md): they are shown side by side, so
that nobody takes the difference for a stale checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nptwatch.diagnostics.grading import Finding

if TYPE_CHECKING:
    from pathlib import Path

MAX_LOG_BYTES = 64 * 1024 * 1024
MAX_LEVELS_UP = 3
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
        path = folder / "training_log.jsonl"
        try:
            if path.stat().st_size <= MAX_LOG_BYTES:
                return _pick(step, path.read_text(errors="replace").splitlines())
        except OSError:
            continue
    return None


def _pick(step: int, lines: list[str]) -> TrainerLoss | None:
    """The most telling loss among the lines of that step; a resumed run's last one counts."""
    seen: dict[str, float] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("step") == step:
            seen |= {k: v for k, v in entry.items() if isinstance(v, int | float)}
    for name, measures in MEANINGS.items():
        if name in seen:
            return TrainerLoss(step=step, name=name, value=float(seen[name]), measures=measures)
    return None


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
