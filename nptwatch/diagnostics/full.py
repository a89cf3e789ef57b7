"""The full diagnostic: the quick one, then the guide's five tests in a sweep of their own."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nptwatch.diagnostics import full_tests
from nptwatch.diagnostics.drafting import generate_from_drafts
from nptwatch.diagnostics.full_tests import Generated
from nptwatch.diagnostics.generation import Draw, decode
from nptwatch.diagnostics.grading import GUIDE, Bounds, Grade
from nptwatch.diagnostics.probes import (
    BASIC_PROMPT,
    GENERATION_PROMPTS,
    PER_LAYER_PROMPT,
    PROGRESSIVE_PROMPT,
    STANDARD_PROMPTS,
    TEMPERATURES,
    tokenize,
)
from nptwatch.diagnostics.quick import QuickDiagnostic, not_finite
from nptwatch.diagnostics.results import FullResult
from nptwatch.diagnostics.sweep import Variant, sweep
from nptwatch.npt.modulation import npt_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nptwatch.diagnostics.generation import Continuations
    from nptwatch.diagnostics.reference import References
    from nptwatch.diagnostics.results import QuickResult, Score, TestResult
    from nptwatch.diagnostics.sweep import Outcome
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

    The quick diagnostic comes first and chooses the residual rule, so that everything else is
    computed by one rule only; its numbers are the quick profile's own, to the last bit.

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
    bounds: Bounds = GUIDE

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
        verdict = self._quick.measure(checkpoint)
        if verdict.residual is None:
            return _broken(verdict, quick=quick)
        base, drop = self.references.base, verdict.residual == "drop"
        npt = npt_layers(verdict.layout, checkpoint.tensors, dtype=base.dtype, device=base.device)
        asked = _Questions(
            texts=self.texts or STANDARD_PROMPTS,
            layers=tuple(sorted(npt)),
            drop=drop,
            quick=quick,
        )
        progress("measuring all layer variants")
        started = time.perf_counter()
        probes = tokenize(base, asked.prompts)
        swept = sweep(base, npt, probes, self.references.of(probes), asked.variants)
        seconds = time.perf_counter() - started
        verdict = replace(verdict, sweep_seconds=verdict.sweep_seconds + seconds)
        for outcome in asked.together(swept.outcomes):
            if outcome.non_finite is not None:
                return _broken(not_finite(verdict, outcome.non_finite), quick=quick)
        tests = asked.tests(swept.outcomes, verdict)
        generation_seconds = 0.0
        if not quick:
            progress("generating continuations")
            started = time.perf_counter()
            generation = self._generation(npt, drop=drop)
            if "error" in generation.details:
                where = str(generation.details["error"]).removeprefix("NaN or infinity in ")
                verdict = not_finite(verdict, where)
            tests.insert(-1, generation)
            generation_seconds = time.perf_counter() - started
        return FullResult(
            quick=verdict,
            tests=tuple(tests),
            findings=(*verdict.findings, *full_tests.findings_of_tests(tests)),
            seed=None if quick else self.continuations.seed,
            generation_seconds=generation_seconds,
        )

    @property
    def _quick(self) -> QuickDiagnostic:
        return QuickDiagnostic(
            references=self.references,
            residual=self.residual,
            texts=self.texts,
            bounds=self.bounds,
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

    In order: all layers; standard mode; each layer alone; the first n layers.
    """

    texts: tuple[str, ...]
    layers: tuple[int, ...]
    drop: bool
    quick: bool

    @property
    def prompts(self) -> tuple[str, ...]:
        more = () if self.quick else (PER_LAYER_PROMPT, PROGRESSIVE_PROMPT)
        return (BASIC_PROMPT, *self.texts, *more)

    @property
    def variants(self) -> list[Variant]:
        texts = tuple(range(1, 1 + len(self.texts)))
        together = Variant(active=frozenset(self.layers), drop=self.drop, prompts=(0, *texts))
        standard = Variant(active=frozenset(), prompts=texts)
        if self.quick:
            return [together, standard]
        per_layer, progressive = len(texts) + 1, len(texts) + 2
        alone = [
            Variant(active=frozenset({layer}), drop=self.drop, prompts=(per_layer,))
            for layer in self.layers
        ]
        first = [
            Variant(active=frozenset(self.layers[:n]), drop=self.drop, prompts=(progressive,))
            for n in range(1, len(self.layers) + 1)
        ]
        return [together, standard, *alone, *first]

    def together(self, outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
        """Those of all layers: NaN in any of them is the checkpoint's."""
        return (outcomes[0],) if self.quick else (outcomes[0], outcomes[-1])

    def tests(self, outcomes: Sequence[Outcome], verdict: QuickResult) -> list[TestResult]:
        """Run all tests but the generation."""
        together, standard, *singles = outcomes
        tests = [
            full_tests.basic_functionality(
                same_shape=together.same_shape, non_finite=together.non_finite
            ),
            full_tests.npt_vs_standard(self.texts, together.scores[1:], standard.scores),
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
    basic = full_tests.basic_functionality(same_shape=None, non_finite=verdict.why)
    return FullResult(
        quick=verdict,
        tests=(basic, *(full_tests.cannot_run(name, verdict.why) for name in names)),
        findings=verdict.findings,
        seed=None,
        generation_seconds=0.0,
    )
