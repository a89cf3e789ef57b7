"""The five tests of the full diagnostic: measured numbers -> status, score, details. No torch.

Bounds, scores and keys are those of the guide's comprehensive test: docs/diagnostics.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nptwatch.diagnostics.grading import FAIR_COSINE, FAIR_MSE, GOOD_MSE, Finding
from nptwatch.diagnostics.results import Score, TestResult, TestStatus, mean_score
from nptwatch.diagnostics.texts import coherence, common_prefix, similarity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nptwatch.diagnostics.results import LocalError

PASS, WARNING, FAIL = TestStatus.PASS, TestStatus.WARNING, TestStatus.FAIL

BASIC = "Basic Functionality"
STANDARD = "NPT vs Standard Mode"
PER_LAYER = "Per-Layer Performance"
GENERATION = "Generation Quality"
PROGRESSIVE = "Progressive Layer Activation"

PASS_COSINE = 0.95
GOOD_SHARE = 0.7
HALF = 0.5
MISMATCH_MSE = 0.01
ROUNDING = 1e-6
"""A rise of MSE up to this is none."""
COHERENT, FAIRLY_COHERENT = 0.8, 0.6
SIMILAR, FAIRLY_SIMILAR = 0.7, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """Continuations of one prompt at one temperature (0: the most likely token each time).

    Attributes:
        npt_text: prompt and continuation by the checkpoint; base_text: by the base.
        npt_ids: the continuation's tokens; base_ids: the base's.
    """

    prompt: str
    temperature: float
    npt_text: str
    base_text: str
    npt_ids: tuple[int, ...]
    base_ids: tuple[int, ...]


def cannot_run(name: str, error: str, *recommendations: str) -> TestResult:
    """Fail a test that has no numbers."""
    return TestResult(
        name=name,
        status=FAIL,
        score=0.0,
        details={"error": error},
        recommendations=recommendations,
    )


def basic_functionality(*, same_shape: bool | None, non_finite: str | None) -> TestResult:
    """Shape and finiteness of the logits.

    Args:
        same_shape: None where there are no logits.
    """
    good = bool(same_shape) and non_finite is None
    advice = () if good else ("Model produces NaN, infinity or a wrong shape - check training",)
    return TestResult(
        name=BASIC,
        status=PASS if good else FAIL,
        score=1.0 if good else 0.0,
        details={
            "same_shape": same_shape,
            "all_finite": non_finite is None,
            "non_finite": non_finite,
        },
        recommendations=advice,
    )


def npt_vs_standard(
    texts: Sequence[str], npt: Sequence[Score], standard: Sequence[Score]
) -> TestResult:
    """Checkpoint against base, and standard mode against base."""
    mean, standard_mse = mean_score(npt), mean_score(standard).mse
    if mean.mse < GOOD_MSE and mean.cosine > PASS_COSINE:
        status, score = PASS, 1.0
    elif mean.mse < FAIR_MSE and mean.cosine > FAIR_COSINE:
        status, score = WARNING, 0.7
    else:
        status, score = FAIL, 0.3
    advice = []
    if mean.mse > FAIR_MSE:
        advice.append("High MSE loss - continue training")
    if mean.cosine < FAIR_COSINE:
        advice.append("Low cosine similarity - check initialization")
    if standard_mse > MISMATCH_MSE:
        advice.append("Standard mode not matching original - architecture issue")
    pairs = zip(texts, npt, strict=True)
    details = {
        "avg_mse_npt_vs_original": mean.mse,
        "avg_mse_standard_vs_original": standard_mse,
        "avg_cosine_similarity": mean.cosine,
        "individual_results": [
            {"text": text, "mse": score.mse, "cosine": score.cosine} for text, score in pairs
        ],
        "avg_kl": mean.kl,
        "top1_agreement": mean.top1_agreement,
        "relative_mse": mean.relative_mse,
        "perplexity_ratio": mean.perplexity_ratio,
        "hidden_mse": mean.hidden_mse,
    }
    return TestResult(
        name=STANDARD, status=status, score=score, details=details, recommendations=tuple(advice)
    )


def per_layer(scores: Mapping[int, Score | str], local: Mapping[int, LocalError]) -> TestResult:
    """Each layer active alone.

    Args:
        scores: by layer; a text says why a layer has none.
        local: each layer's own error, as far as measured.
    """
    valid = {layer: score for layer, score in scores.items() if isinstance(score, Score)}
    if not valid:
        return cannot_run(PER_LAYER, str(next(iter(scores.values()))), "Check each layer's weights")
    mean = mean_score(list(valid.values()))
    good = sum(score.mse < GOOD_MSE for score in valid.values())
    if len(valid) == len(scores) and mean.mse < GOOD_MSE and good > len(valid) * GOOD_SHARE:
        status, score = PASS, 1.0
    elif mean.mse < FAIR_MSE:
        status, score = WARNING, 0.6
    else:
        status, score = FAIL, 0.2
    advice = []
    if good < len(scores) * HALF:
        advice.append("Less than 50% of layers performing well")
    if mean.mse > FAIR_MSE:
        advice.append("High average MSE - extend training")
    details = {
        "layer_results": {
            str(layer): _layer_result(each, local.get(layer)) for layer, each in scores.items()
        },
        "summary": {
            "avg_mse": mean.mse,
            "avg_cosine_similarity": mean.cosine,
            "good_layers": good,
            "total_layers": len(scores),
        },
    }
    return TestResult(
        name=PER_LAYER, status=status, score=score, details=details, recommendations=tuple(advice)
    )


def _layer_result(score: Score | str, local: LocalError | None) -> dict[str, Any]:  # Any: JSON
    own = {
        "local_mse": local.mse if local else None,
        "local_relative": local.relative if local else None,
    }
    if isinstance(score, str):
        return {"error": score, "status": "error", **own}
    return {
        "mse_loss": score.mse,
        "cosine_similarity": score.cosine,
        "kl_divergence": score.kl_last,
        "status": "good" if score.mse < GOOD_MSE else "needs_training",
        **own,
    }


def generation_quality(
    generated: Sequence[Generated], *, seed: int, max_new_tokens: int
) -> TestResult:
    """Continuations of both sides, drawn with the same noise."""
    results: dict[str, dict[str, Any]] = {}  # Any: JSON
    prefixes: dict[str, int] = {}
    for each in generated:
        if each.temperature == 0:
            prefixes[each.prompt] = common_prefix(each.npt_ids, each.base_ids)
            continue
        results.setdefault(str(each.temperature), {})[each.prompt] = {
            "npt_generation": each.npt_text,
            "original_generation": each.base_text,
            "coherent": coherence(each.npt_text),
            "similar_to_original": similarity(each.npt_text, each.base_text),
        }
    entries = [entry for at in results.values() for entry in at.values()]
    coherent = sum(entry["coherent"] for entry in entries) / len(entries)
    similar = sum(entry["similar_to_original"] for entry in entries) / len(entries)
    if coherent > COHERENT and similar > SIMILAR:
        status, score = PASS, 1.0
    elif coherent > FAIRLY_COHERENT and similar > FAIRLY_SIMILAR:
        status, score = WARNING, 0.6
    else:
        status, score = FAIL, 0.3
    advice = []
    if coherent < FAIRLY_COHERENT:
        advice.append("Low coherence - check training stability")
    if similar < FAIRLY_SIMILAR:
        advice.append("Low similarity to original - verify training objective")
    details = {
        "generation_results": results,
        "avg_coherence": coherent,
        "avg_similarity": similar,
        "greedy_common_prefix": prefixes,
        "avg_greedy_common_prefix": sum(prefixes.values()) / len(prefixes) if prefixes else None,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    return TestResult(
        name=GENERATION, status=status, score=score, details=details, recommendations=tuple(advice)
    )


def progressive_activation(layers: Sequence[int], scores: Sequence[Score | str]) -> TestResult:
    """The first n layers active, n = 1..all.

    Args:
        layers: all NPT layers, ascending.
        scores: for n = 1, 2, ...; a text says why there is none.
    """
    missing = next((score for score in scores if isinstance(score, str)), None)
    if missing is not None:
        return cannot_run(PROGRESSIVE, missing, "Check layer mode switching")
    mses = [score.mse for score in scores if isinstance(score, Score)]
    trend = "improving" if mses[-1] < mses[0] else "degrading"
    if mses[-1] < GOOD_MSE:
        status, score = PASS, 1.0
    elif mses[-1] < FAIR_MSE:
        status, score = WARNING, 0.6
    else:
        status, score = FAIL, 0.3
    advice = []
    if mses[-1] > mses[0] + ROUNDING:
        advice.append("MSE increases with more layers - check layer interactions")
    if mses[-1] > FAIR_MSE:
        advice.append("High final MSE - continue training")
    details = {
        "progression_results": {
            str(n): {"active_layers": list(layers[:n]), "mse_loss": mse}
            for n, mse in enumerate(mses, 1)
        },
        "mse_trend": trend,
        "final_mse": mses[-1],
    }
    return TestResult(
        name=PROGRESSIVE,
        status=status,
        score=score,
        details=details,
        recommendations=tuple(advice),
    )


def findings_of_tests(tests: Sequence[TestResult]) -> list[Finding]:
    """What the tests together say beside their scores."""
    details = {test.name: test.details for test in tests if "error" not in test.details}
    found = []
    standard = details.get(STANDARD)
    if standard and standard["avg_mse_standard_vs_original"] > MISMATCH_MSE:
        mse = standard["avg_mse_standard_vs_original"]
        found.append(
            Finding(
                code="STANDARD_MISMATCH",
                text=f"Standard mode, all layers inactive, differs from the base by MSE {mse:.4f}: "
                "an architecture or memory fault, not a matter of training.",
            )
        )
    if (alone := details.get(PER_LAYER)) is not None:
        found += _weak_layers(alone)
    if interaction := _interaction(alone, standard, details.get(PROGRESSIVE)):
        found.append(Finding(code="LAYER_INTERACTION", text=interaction))
    return found


def _weak_layers(alone: Mapping[str, Any]) -> list[Finding]:  # Any: JSON
    weak = [
        f"{layer} (MSE {result['mse_loss']:.4f})"
        if "mse_loss" in result
        else f"{layer} (not finite)"
        for layer, result in alone["layer_results"].items()
        if result["status"] != "good"
    ]
    if not weak:
        return []
    many = "Layers that are" if len(weak) > 1 else "A layer that is"
    text = (
        f"{many} not good alone: {', '.join(weak)}; good is below {GOOD_MSE}. More training there, "
        "or more rank; its local error says whether it is weak itself."
    )
    return [Finding(code="WEAK_LAYERS", text=text)]


def _interaction(
    alone: Mapping[str, Any] | None,  # Any: JSON
    standard: Mapping[str, Any] | None,
    progressive: Mapping[str, Any] | None,
) -> str | None:
    """Say how layers disturb one another, if they do."""
    if alone and standard:
        summary, together = alone["summary"], standard["avg_mse_npt_vs_original"]
        if summary["good_layers"] == summary["total_layers"] > 1 and together >= GOOD_MSE:
            return (
                f"Each layer alone is good (mean MSE {summary['avg_mse']:.4f}), all together are "
                f"not ({together:.4f}): later layers see what earlier ones changed."
            )
    steps = list(progressive["progression_results"].values()) if progressive else []
    first, last = (steps[0]["mse_loss"], steps[-1]["mse_loss"]) if steps else (0.0, 0.0)
    if last > first + ROUNDING:
        harm = "still good" if last < GOOD_MSE else "their errors add up, or disturb one another"
        return f"MSE rises from {first:.4f} to {last:.4f} as more layers are activated: {harm}."
    return None
