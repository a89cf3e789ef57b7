"""What a diagnostic found, as plain numbers (no torch)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.diagnostics.grading import Finding, Grade
    from nptwatch.npt.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """NPT against base on one prompt, or the mean over prompts. Formulas: docs/diagnostics.md.

    Attributes:
        mse: of the logits, over positions and vocabulary.
        cosine: of the two logit tensors, flattened.
        kl: base relative to NPT, nats per token.
        kl_last: the same at the last position.
        top1_agreement: share of positions with the same most likely token.
        relative_mse: mse over the variance of the base's logits.
        perplexity_ratio: perplexity of the prompt under NPT over that under base; NaN for 1 token.
        hidden_mse: of the final hidden states, after the last norm.
    """

    mse: float
    cosine: float
    kl: float
    kl_last: float
    top1_agreement: float
    relative_mse: float
    perplexity_ratio: float
    hidden_mse: float


def mean_score(scores: Sequence[Score]) -> Score:
    """Average per-prompt scores, every prompt with the same weight."""
    return Score(
        **{
            field.name: sum(getattr(score, field.name) for score in scores) / len(scores)
            for field in fields(Score)
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickResult:
    """Outcome of the quick diagnostic.

    Attributes:
        grade: None where accuracy was not measured.
        scores: per prompt; empty where nothing was measured.
        mean: over the prompts, or None.
        residual: the rule that the scores belong to: keep or drop; None if nothing was measured.
        residual_mse: mean MSE under each rule tried.
        why: what makes the checkpoint INVALID, or "".
        load_seconds: reading and checking the checkpoint.
        sweep_seconds: the forward passes and the comparison.
    """

    layout: Layout
    grade: Grade | None
    scores: tuple[Score, ...]
    mean: Score | None
    residual: str | None
    residual_mse: dict[str, float]
    findings: tuple[Finding, ...]
    why: str
    load_seconds: float
    sweep_seconds: float
