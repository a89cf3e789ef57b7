"""The quick diagnostic: is this checkpoint any good yet?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nptwatch.diagnostics.grading import Finding, Grade, findings_of, grade_of
from nptwatch.diagnostics.probes import QUICK_PROMPTS, tokenize
from nptwatch.diagnostics.results import QuickResult, Score, mean_score
from nptwatch.diagnostics.sweep import Swept, Variant, sweep
from nptwatch.npt.layout import infer_layout
from nptwatch.npt.modulation import stack_layers

if TYPE_CHECKING:
    from nptwatch.diagnostics.probes import Probes
    from nptwatch.diagnostics.reference import References
    from nptwatch.npt.layout import Layout
    from nptwatch.npt.reader import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickDiagnostic:
    """Measures checkpoints against one loaded base, again and again.

    Args:
        references: of the base; what it holds is never computed twice.
        residual: auto, keep or drop. Auto measures both rules in the same sweep, every time, and
            takes the lower MSE: an early checkpoint may look better under the wrong rule, so
            a choice is never carried over to the next one.
    """

    references: References
    residual: str

    def measure(self, checkpoint: Checkpoint, *, accuracy: bool = True) -> QuickResult:
        """Measure a checkpoint that was read.

        Args:
            accuracy: False checks structure, values and one forward pass only.

        Raises:
            LayoutError: it does not fit the base. NaN and infinity are a result (INVALID).
        """
        started = time.perf_counter()
        layout = infer_layout(checkpoint.shapes, self.references.base.shape)
        bad_tensor = checkpoint.first_non_finite()
        if bad_tensor is not None:
            why = f"NaN or infinity in the weights, first in tensor {bad_tensor!r}"
            return _invalid(layout, why, checkpoint.read_seconds, 0.0)
        swept = self._sweep(checkpoint, layout, accuracy=accuracy)
        return _judge(layout, swept, checkpoint.read_seconds, time.perf_counter() - started)

    def _sweep(self, checkpoint: Checkpoint, layout: Layout, *, accuracy: bool) -> dict[str, Swept]:
        base = self.references.base
        npt = stack_layers(layout, checkpoint.tensors, dtype=base.dtype, device=base.device)
        rules = ("keep", "drop") if self.residual == "auto" else (self.residual,)
        variants = [Variant(active=frozenset(npt), drop=rule == "drop") for rule in rules]
        probes = self._probes(accuracy=accuracy)
        outcomes = sweep(base, npt, probes, self.references.of(probes), variants, compare=accuracy)
        return dict(zip(rules, outcomes, strict=True))

    def _probes(self, *, accuracy: bool) -> Probes:
        return tokenize(self.references.base, QUICK_PROMPTS if accuracy else QUICK_PROMPTS[:1])


def _judge(
    layout: Layout, swept: dict[str, Swept], load_seconds: float, sweep_seconds: float
) -> QuickResult:
    """Pick the residual rule and grade it."""
    finite = {rule: outcome for rule, outcome in swept.items() if outcome.non_finite is None}
    if not finite:
        first = next(iter(swept.values())).non_finite
        return _invalid(layout, f"NaN or infinity, first in {first}", load_seconds, sweep_seconds)
    means = {rule: mean_score(out.scores) for rule, out in finite.items() if out.scores}
    if not means:
        return QuickResult(
            layout=layout,
            grade=None,
            scores=(),
            mean=None,
            residual=None,
            residual_mse={},
            local=(),
            findings=(),
            why="",
            load_seconds=load_seconds,
            sweep_seconds=sweep_seconds,
        )
    rule = min(means, key=lambda r: means[r].mse)
    mean: Score = means[rule]
    return QuickResult(
        layout=layout,
        grade=grade_of(mean.mse, mean.cosine),
        scores=finite[rule].scores,
        mean=mean,
        residual=rule,
        residual_mse={r: m.mse for r, m in means.items()},
        local=(),
        findings=tuple(findings_of(mean.mse, mean.cosine)),
        why="",
        load_seconds=load_seconds,
        sweep_seconds=sweep_seconds,
    )


def _invalid(layout: Layout, why: str, load_seconds: float, sweep_seconds: float) -> QuickResult:
    return QuickResult(
        layout=layout,
        grade=Grade.INVALID,
        scores=(),
        mean=None,
        residual=None,
        residual_mse={},
        local=(),
        findings=(Finding(code="NON_FINITE", text=why),),
        why=why,
        load_seconds=load_seconds,
        sweep_seconds=sweep_seconds,
    )
