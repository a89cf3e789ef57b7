"""The full diagnostic: the guide's five tests, and the quick diagnostic, from one sweep."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nptwatch.diagnostics import full_tests
from nptwatch.diagnostics.drafting import generate_from_drafts
from nptwatch.diagnostics.full_tests import Generated
from nptwatch.diagnostics.generation import Draw, decode
from nptwatch.diagnostics.grading import Grade
from nptwatch.diagnostics.probes import (
    BASIC_PROMPT,
    GENERATION_PROMPTS,
    PER_LAYER_PROMPT,
    PROGRESSIVE_PROMPT,
    QUICK_PROMPTS,
    STANDARD_PROMPTS,
    TEMPERATURES,
    tokenize,
)
from nptwatch.diagnostics.quick import Setting, bad_weights, invalid, judge, rules_of
from nptwatch.diagnostics.results import FullResult
from nptwatch.diagnostics.sweep import Variant, sweep
from nptwatch.npt.layout import infer_layout
from nptwatch.npt.modulation import stack_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nptwatch.diagnostics.generation import Continuations
    from nptwatch.diagnostics.reference import References
    from nptwatch.diagnostics.results import QuickResult, Score, TestResult
    from nptwatch.diagnostics.sweep import Outcome, Swept
    from nptwatch.npt.modulation import NptLayer
    from nptwatch.npt.reader import Checkpoint

DRAWS = tuple(
    Draw(prompt=prompt, temperature=temperature)
    for temperature in (0.0, *TEMPERATURES)
    for prompt in GENERATION_PROMPTS
)
"""Continuations that are asked of both sides; the greedy ones (0) are compared token by token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FullDiagnostic:
    """Runs all tests against one loaded base, again and again.

    Args:
        references: of the base; what it holds is never computed twice.
        continuations: the base's own texts; computed once.
        residual: as in QuickDiagnostic.
        texts: what to measure on instead of the guide's prompts, in the accuracy and in the
            comparison with standard mode; none: those.
    """

    references: References
    continuations: Continuations
    residual: str
    texts: tuple[str, ...] = ()

    def measure(
        self,
        checkpoint: Checkpoint,
        *,
        quick: bool = False,
        progress: Callable[[str], None] = lambda _: None,
    ) -> FullResult:
        """Measure a checkpoint that was read.

        Args:
            quick: run the first two tests only.
            progress: told what is being done.

        Raises:
            LayoutError: it does not fit the base. NaN and infinity are a result (INVALID).
            ConfigError: the texts are too long.
        """
        started = time.perf_counter()
        base = self.references.base
        layout = infer_layout(checkpoint.shapes, base.shape)
        setting = Setting(load_seconds=checkpoint.read_seconds, started=started, texts=self.texts)
        if (why := bad_weights(checkpoint)) is not None:
            return _broken(invalid(layout, why, setting), quick=quick)
        npt = stack_layers(layout, checkpoint.tensors, dtype=base.dtype, device=base.device)
        asked = _Questions(
            texts=self.texts or QUICK_PROMPTS,
            standard_texts=self.texts or STANDARD_PROMPTS,
            layers=tuple(sorted(npt)),
            rules=rules_of(self.residual),
            quick=quick,
        )
        progress("measuring all layer variants")
        swept = self._sweep(npt, asked)
        verdict = judge(layout, asked.accuracy(swept), swept.local, setting)
        if verdict.residual is None:
            return _broken(verdict, quick=quick)
        tests = asked.tests(swept, verdict)
        generation_seconds = 0.0
        if not quick:
            progress("generating continuations")
            started = time.perf_counter()
            tests.insert(-1, self._generation(npt, drop=verdict.residual == "drop"))
            generation_seconds = time.perf_counter() - started
        return FullResult(
            quick=verdict,
            tests=tuple(tests),
            findings=(*verdict.findings, *full_tests.findings_of_tests(tests)),
            seed=None if quick else self.continuations.seed,
            generation_seconds=generation_seconds,
        )

    def _sweep(self, npt: Mapping[int, NptLayer], asked: _Questions) -> Swept:
        base = self.references.base
        probes = tokenize(base, asked.prompts)
        return sweep(
            base,
            npt,
            probes,
            self.references.of(probes),
            asked.variants,
            local_on=range(len(asked.texts)),
        )

    def _generation(self, npt: Mapping[int, NptLayer], *, drop: bool) -> TestResult:
        base, kept = self.references.base, self.continuations
        theirs = kept.of(DRAWS)
        try:
            ours = generate_from_drafts(self.references, npt, DRAWS, kept, drop=drop)
        except FloatingPointError as exc:
            return full_tests.cannot_run(
                full_tests.GENERATION, str(exc), "Check generation functionality"
            )
        generated = [
            Generated(
                prompt=draw.prompt,
                temperature=draw.temperature,
                npt_text=decode(base, draw.prompt, npt_ids),
                base_text=decode(base, draw.prompt, base_ids),
                npt_ids=npt_ids,
                base_ids=base_ids,
            )
            for draw, npt_ids, base_ids in zip(DRAWS, ours, theirs, strict=True)
        ]
        return full_tests.generation_quality(
            generated, seed=kept.seed, max_new_tokens=kept.max_new_tokens
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Questions:
    """Which variants are asked on which prompts, and where their answers stand.

    For each residual rule in turn: all layers; each layer alone; the first n layers. Then standard
    mode, which has no rule.
    """

    texts: tuple[str, ...]
    standard_texts: tuple[str, ...]
    layers: tuple[int, ...]
    rules: tuple[str, ...]
    quick: bool

    @property
    def prompts(self) -> tuple[str, ...]:
        more = () if self.quick else (PER_LAYER_PROMPT, PROGRESSIVE_PROMPT)
        return (*self.texts, BASIC_PROMPT, *self.standard_texts, *more)

    @property
    def _basic(self) -> int:
        return len(self.texts)

    @property
    def _standard(self) -> slice:
        return slice(self._basic + 1, self._basic + 1 + len(self.standard_texts))

    @property
    def variants(self) -> list[Variant]:
        ends = self._standard.stop
        standard = Variant(active=frozenset(), prompts=tuple(range(ends))[self._standard])
        return [variant for rule in self.rules for variant in self._of_rule(rule)] + [standard]

    def _of_rule(self, rule: str) -> list[Variant]:
        drop, ends = rule == "drop", self._standard.stop
        together = Variant(active=frozenset(self.layers), drop=drop, prompts=tuple(range(ends)))
        if self.quick:
            return [together]
        alone = [
            Variant(active=frozenset({layer}), drop=drop, prompts=(ends,)) for layer in self.layers
        ]
        first = [
            Variant(active=frozenset(self.layers[: n + 1]), drop=drop, prompts=(ends + 1,))
            for n in range(len(self.layers))
        ]
        return [together, *alone, *first]

    def _answers(self, swept: Swept, rule: str) -> Sequence[Outcome]:
        per_rule = (len(swept.outcomes) - 1) // len(self.rules)
        start = self.rules.index(rule) * per_rule
        return swept.outcomes[start : start + per_rule]

    def accuracy(self, swept: Swept) -> dict[str, Outcome]:
        """Give the quick diagnostic's part: all layers on its prompts, by rule."""
        together = {rule: self._answers(swept, rule)[0] for rule in self.rules}
        return {rule: outcome.part(slice(self._basic)) for rule, outcome in together.items()}

    def tests(self, swept: Swept, verdict: QuickResult) -> list[TestResult]:
        """Run all tests but the generation."""
        together, *singles = self._answers(swept, verdict.residual or self.rules[0])
        standard = swept.outcomes[-1]
        tests = [
            full_tests.basic_functionality(
                same_shape=together.same_shape, non_finite=together.non_finite
            ),
            full_tests.npt_vs_standard(
                self.standard_texts, together.scores[self._standard], standard.scores
            ),
        ]
        if self.quick:
            return tests
        count = len(self.layers)
        alone = dict(zip(self.layers, map(_score, singles[:count]), strict=True))
        local = {error.layer: error for error in verdict.local}
        first = [_score(outcome) for outcome in singles[count:]]
        tests.append(full_tests.per_layer(alone, local))
        tests.append(full_tests.progressive_activation(self.layers, first))
        return tests


def _score(outcome: Outcome) -> Score | str:
    """Give the one score of a variant on a single prompt, or why there is none."""
    return outcome.scores[0] if outcome.scores else f"NaN or infinity in {outcome.non_finite}"


def _broken(verdict: QuickResult, *, quick: bool) -> FullResult:
    """Fail all tests of a checkpoint that gives NaN or infinity."""
    assert verdict.grade is Grade.INVALID  # noqa: S101 - `judge` grades all that it measures
    names = [full_tests.STANDARD]
    if not quick:
        names += [full_tests.PER_LAYER, full_tests.GENERATION, full_tests.PROGRESSIVE]
    basic = full_tests.basic_functionality(same_shape=True, non_finite=verdict.why)
    return FullResult(
        quick=verdict,
        tests=(basic, *(full_tests.cannot_run(name, verdict.why) for name in names)),
        findings=verdict.findings,
        seed=None,
        generation_seconds=0.0,
    )
