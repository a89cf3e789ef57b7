"""What a diagnostic found, as plain numbers (no torch)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from nptwatch.diagnostics.grading import GUIDE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nptwatch.diagnostics.grading import Bounds, Finding, Grade
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
class LocalError:
    """One NPT layer alone: its output against the base layer's, both fed the base's own input.

    What training supervises directly: it tells a weak layer from one that suffers from others.

    Attributes:
        mse: of the layer's output; mean over the prompts.
        relative: mse over the mean square of what the base layer adds to its input.
    """

    layer: int
    mse: float
    relative: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickResult:
    """Outcome of the quick diagnostic.

    Attributes:
        grade: None where accuracy was not measured.
        scores: per prompt; empty where nothing was measured.
        mean: over the prompts, or None.
        residual: the rule that the scores belong to: keep or drop; None if nothing was measured.
        residual_mse: mean MSE under each rule tried.
        local: each NPT layer's own error under that rule, ascending; empty where not measured.
        why: what makes the checkpoint INVALID, or "".
        texts: what was measured on instead of the guide's prompts; none: those.
        bounds: where its grades begin.
        load_seconds: reading and checking the checkpoint.
        sweep_seconds: the forward passes and the comparison.
    """

    layout: Layout
    grade: Grade | None
    scores: tuple[Score, ...]
    mean: Score | None
    residual: str | None
    residual_mse: dict[str, float]
    local: tuple[LocalError, ...]
    findings: tuple[Finding, ...]
    why: str
    load_seconds: float
    sweep_seconds: float
    texts: tuple[str, ...] = ()
    bounds: Bounds = GUIDE


class TestStatus(StrEnum):
    """Outcome of one test of the full diagnostic."""

    __test__ = False  # not pytest's

    PASS = "PASS"  # noqa: S105 - no password
    WARNING = "WARNING"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """One test of the full diagnostic.

    Attributes:
        details: the original script's keys (docs/diagnostics.md).
        recommendations: what to do about it, in words.
    """

    __test__ = False  # not pytest's

    name: str
    status: TestStatus
    score: float
    details: Mapping[str, Any]  # Any: free JSON
    recommendations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FullResult:
    """Outcome of the full diagnostic.

    Attributes:
        quick: the quick diagnostic of the same checkpoint: its numbers are the yardstick of a run's
            history, whichever profile measured them, and give the grade.
        tests: in the guide's order; two of them with `--quick`.
        findings: what all of it says together, those of `quick` included.
        seed: of the noise that both sides drew their continuations with; None: none were drawn.
        generation_seconds: the continuations of the checkpoint.
    """

    quick: QuickResult
    tests: tuple[TestResult, ...]
    findings: tuple[Finding, ...]
    seed: int | None
    generation_seconds: float

    @property
    def avg_score(self) -> float:
        """Mean score of the tests, 0 to 1; rounded, as sums of tenths are not exact."""
        return round(sum(test.score for test in self.tests) / len(self.tests), 6)

    def count(self, status: TestStatus) -> int:
        """Tests that ended so."""
        return sum(test.status is status for test in self.tests)
