"""The quick diagnostic: is this checkpoint any good yet?"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nptwatch.diagnostics.grading import GUIDE, Bounds, Finding, Grade, findings_of, grade_of
from nptwatch.diagnostics.probes import QUICK_PROMPTS, tokenize
from nptwatch.diagnostics.results import QuickResult, Score, mean_score
from nptwatch.diagnostics.sweep import Variant, sweep
from nptwatch.npt.layout import infer_layout
from nptwatch.npt.modulation import npt_layers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nptwatch.diagnostics.probes import Probes
    from nptwatch.diagnostics.reference import References
    from nptwatch.diagnostics.results import LocalError
    from nptwatch.diagnostics.sweep import Outcome, Swept
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
        texts: what to measure on instead of the guide's prompts; none: those.
        bounds: where grades begin.
    """

    references: References
    residual: str
    texts: tuple[str, ...] = ()
    bounds: Bounds = GUIDE

    def measure(self, checkpoint: Checkpoint, *, accuracy: bool = True) -> QuickResult:
        """Measure a checkpoint that was read.

        Args:
            accuracy: False checks structure, values and one forward pass only.

        Raises:
            LayoutError: it does not fit the base. NaN and infinity are a result (INVALID).
            ConfigError: the texts are too long.
        """
        started = time.perf_counter()
        layout = infer_layout(checkpoint.shapes, self.references.base.shape)
        setting = Setting(
            load_seconds=checkpoint.read_seconds,
            started=started,
            texts=self.texts,
            bounds=self.bounds,
        )
        if (why := _bad_weights(checkpoint)) is not None:
            return _invalid(layout, why, setting)
        prompts = self.texts or QUICK_PROMPTS
        probes = tokenize(self.references.base, prompts if accuracy else prompts[:1])
        swept = self._sweep(checkpoint, layout, probes, accuracy=accuracy)
        rules = _rules_of(self.residual)
        outcomes = dict(zip(rules, swept.outcomes, strict=True))
        return _judge(layout, outcomes, swept.local, setting)

    def _sweep(
        self, checkpoint: Checkpoint, layout: Layout, probes: Probes, *, accuracy: bool
    ) -> Swept:
        base = self.references.base
        npt = npt_layers(layout, checkpoint.tensors, dtype=base.dtype, device=base.device)
        variants = [
            Variant(active=frozenset(npt), drop=rule == "drop") for rule in _rules_of(self.residual)
        ]
        return sweep(
            base,
            npt,
            probes,
            self.references.of(probes),
            variants,
            compare=accuracy,
            local_on=range(len(probes.lengths)) if accuracy else (),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """When a measurement began, what reading took before, on what it is made, how it is graded."""

    load_seconds: float
    started: float
    texts: tuple[str, ...] = ()
    bounds: Bounds = GUIDE

    @property
    def sweep_seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self.started


def _rules_of(residual: str) -> tuple[str, ...]:
    """Give the residual rules to measure."""
    return ("keep", "drop") if residual == "auto" else (residual,)


def _bad_weights(checkpoint: Checkpoint) -> str | None:
    """Say what is wrong with the values of a checkpoint; None: all are finite."""
    bad_tensor = checkpoint.first_non_finite()
    if bad_tensor is None:
        return None
    return f"NaN or infinity in the weights, first in tensor {bad_tensor!r}"


def _judge(
    layout: Layout,
    outcomes: Mapping[str, Outcome],
    local: Mapping[bool, tuple[LocalError, ...]],
    setting: Setting,
) -> QuickResult:
    """Pick the residual rule and grade it.

    Args:
        outcomes: of the checkpoint with all its layers active, by residual rule.
        local: each layer's own error, by `drop`.
    """
    finite = {rule: outcome for rule, outcome in outcomes.items() if outcome.non_finite is None}
    if not finite:
        first = next(iter(outcomes.values())).non_finite
        return _invalid(layout, f"NaN or infinity, first in {first}", setting)
    means = {rule: mean_score(out.scores) for rule, out in finite.items() if out.scores}
    if not means:
        return _result(layout, setting)
    rule = min(means, key=lambda r: means[r].mse)
    mean: Score = means[rule]
    return _result(
        layout,
        setting,
        grade=grade_of(mean.mse, mean.cosine, setting.bounds),
        scores=finite[rule].scores,
        mean=mean,
        residual=rule,
        residual_mse={r: m.mse for r, m in means.items()},
        local=local.get(rule == "drop", ()),
        findings=tuple(findings_of(mean.mse, mean.cosine)),
    )


def not_finite(verdict: QuickResult, first: str) -> QuickResult:
    """Give the verdict on a checkpoint that gave NaN or infinity elsewhere after all."""
    why = f"NaN or infinity, first in {first}"
    return replace(
        verdict,
        grade=Grade.INVALID,
        scores=(),
        mean=None,
        residual=None,
        residual_mse={},
        local=(),
        findings=(Finding(code="NON_FINITE", text=why),),
        why=why,
    )


def _invalid(layout: Layout, why: str, setting: Setting) -> QuickResult:
    """Give the result of a checkpoint with NaN or infinity."""
    finding = Finding(code="NON_FINITE", text=why)
    return _result(layout, setting, grade=Grade.INVALID, findings=(finding,), why=why)


def _result(layout: Layout, setting: Setting, **measured: Any) -> QuickResult:  # noqa: ANN401 - fields
    nothing: dict[str, Any] = {  # Any: fields
        "grade": None,
        "scores": (),
        "mean": None,
        "residual": None,
        "residual_mse": {},
        "local": (),
        "findings": (),
        "why": "",
    }
    return QuickResult(
        layout=layout,
        load_seconds=setting.load_seconds,
        sweep_seconds=setting.sweep_seconds,
        texts=setting.texts,
        bounds=setting.bounds,
        **{**nothing, **measured},
    )
