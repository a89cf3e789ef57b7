"""Bounds and scores of the five tests are the guide's; findings follow from them."""

from __future__ import annotations

import math

import pytest

from nptwatch.diagnostics import full_tests
from nptwatch.diagnostics.full_report import overall_status
from nptwatch.diagnostics.full_tests import Generated
from nptwatch.diagnostics.results import LocalError, Score, TestResult


def score(mse: float, cosine: float = 0.99) -> Score:
    """A score with the numbers that the tests look at."""
    return Score(
        mse=mse,
        cosine=cosine,
        kl=0.1,
        kl_last=0.2,
        top1_agreement=0.9,
        relative_mse=mse / 6,
        perplexity_ratio=1.1,
        hidden_mse=mse / 3,
    )


def verdict(test: TestResult) -> tuple[str, float]:
    """Status and score."""
    return str(test.status), test.score


@pytest.mark.parametrize(
    ("mse", "cosine", "wanted"),
    [
        (0.0999, 0.951, ("PASS", 1.0)),
        (0.1, 0.99, ("WARNING", 0.7)),
        (0.05, 0.95, ("WARNING", 0.7)),
        (0.499, 0.801, ("WARNING", 0.7)),
        (0.5, 0.99, ("FAIL", 0.3)),
        (0.2, 0.8, ("FAIL", 0.3)),
    ],
)
def test_npt_vs_standard(mse: float, cosine: float, wanted: tuple[str, float]) -> None:
    """A value on a bound belongs to the worse side."""
    test = full_tests.npt_vs_standard(["a", "b"], [score(mse, cosine)] * 2, [score(0.0)] * 2)
    assert verdict(test) == wanted
    assert test.details["avg_mse_npt_vs_original"] == pytest.approx(mse)
    assert test.details["avg_mse_standard_vs_original"] == 0


@pytest.mark.parametrize(
    ("mses", "wanted", "good"),
    [
        ([0.05, 0.05, 0.05], ("PASS", 1.0), 3),
        ([0.01, 0.01, 0.12], ("WARNING", 0.6), 2),  # 67 % of the layers are good: not over 70
        ([0.09, 0.11], ("WARNING", 0.6), 1),  # mean exactly 0.1
        ([0.4, 0.6], ("FAIL", 0.2), 0),  # mean exactly 0.5
        ([1.0], ("FAIL", 0.2), 0),
    ],
)
def test_per_layer(mses: list[float], wanted: tuple[str, float], good: int) -> None:
    """Mean below 0.1 and over 70 % good layers pass."""
    test = full_tests.per_layer({n: score(mse) for n, mse in enumerate(mses)}, {})
    assert verdict(test) == wanted
    assert test.details["summary"]["good_layers"] == good


def test_a_layer_that_cannot_be_measured_is_told_and_left_out_of_the_mean() -> None:
    """Its error stands in its place; where no layer can be measured the test cannot run."""
    own = LocalError(layer=3, mse=0.5, relative=0.25)
    test = full_tests.per_layer({2: score(0.05), 3: "NaN or infinity in logits"}, {3: own})
    assert test.details["summary"]["avg_mse"] == pytest.approx(0.05)
    assert test.details["layer_results"]["3"] == {
        "error": "NaN or infinity in logits",
        "status": "error",
        "local_mse": 0.5,
        "local_relative": 0.25,
    }
    assert verdict(test) == ("WARNING", 0.6)  # whatever the others are like
    none = full_tests.per_layer({3: "NaN or infinity in logits"}, {})
    assert verdict(none) == ("FAIL", 0.0)
    assert none.details == {"error": "NaN or infinity in logits"}


@pytest.mark.parametrize(
    ("mses", "trend", "wanted"),
    [
        ([0.3, 0.2, 0.09], "improving", ("PASS", 1.0)),
        ([0.05, 0.1], "degrading", ("WARNING", 0.6)),
        ([0.5, 0.5], "degrading", ("FAIL", 0.3)),
        ([0.05], "degrading", ("PASS", 1.0)),
    ],
)
def test_progressive(mses: list[float], trend: str, wanted: tuple[str, float]) -> None:
    """The last MSE counts; not below the first is degrading."""
    test = full_tests.progressive_activation(range(2, 9), [score(mse) for mse in mses])
    assert verdict(test) == wanted
    assert test.details["mse_trend"] == trend
    last = test.details["progression_results"][str(len(mses))]
    assert last == {"active_layers": list(range(2, 2 + len(mses))), "mse_loss": mses[-1]}


def generated(npt: str, base: str, temperature: float = 0.7, prompt: str = "p") -> Generated:
    """Texts, their words as tokens."""
    tokens = {word: n for n, word in enumerate({*npt.split(), *base.split()})}
    return Generated(
        prompt=prompt,
        temperature=temperature,
        npt_text=npt,
        base_text=base,
        npt_ids=tuple(tokens[word] for word in npt.split()),
        base_ids=tuple(tokens[word] for word in base.split()),
    )


@pytest.mark.parametrize(
    ("npt", "base", "wanted"),
    [
        ("The cat sat down", "The cat sat down", ("PASS", 1.0)),
        ("The cat sat up", "The cat sat down", ("WARNING", 0.6)),  # 3 of 5 words
        ("a a a a a a", "a a a a a a", ("FAIL", 0.3)),  # coherence 0.55
        ("The cat sat down", "Some dog ran off", ("FAIL", 0.3)),
    ],
)
def test_generation(npt: str, base: str, wanted: tuple[str, float]) -> None:
    """Both coherence and similarity must hold."""
    test = full_tests.generation_quality([generated(npt, base)], seed=7, max_new_tokens=20)
    assert verdict(test) == wanted
    assert test.details["seed"] == 7


def test_greedy_continuations_are_compared_by_token_and_not_scored() -> None:
    """Temperature 0 gives the common prefix only."""
    drawn = [generated("The cat sat down", "The cat sat down")]
    greedy = [generated("a b c", "a b d", 0.0, "q"), generated("x", "y", 0.0, "r")]
    test = full_tests.generation_quality([*greedy, *drawn], seed=0, max_new_tokens=20)
    assert verdict(test) == ("PASS", 1.0)
    assert test.details["greedy_common_prefix"] == {"q": 2, "r": 0}
    assert test.details["avg_greedy_common_prefix"] == 1.0
    assert list(test.details["generation_results"]) == ["0.7"]


@pytest.mark.parametrize(
    ("avg", "wanted"),
    [(0.81, "READY"), (0.8, "PARTIALLY_READY"), (0.61, "PARTIALLY_READY"), (0.6, "NOT_READY")],
)
def test_overall_status(avg: float, wanted: str) -> None:
    """A mean on a bound belongs to the worse side."""
    assert overall_status(avg) == wanted


def codes(*tests: TestResult) -> list[str]:
    """Codes of what the tests say together."""
    return [finding.code for finding in full_tests.findings_of_tests(tests)]


def standard(mse: float, standard_mse: float = 0.0) -> TestResult:
    """The comparison with standard mode."""
    return full_tests.npt_vs_standard(["a"], [score(mse)], [score(standard_mse)])


def alone(*mses: float) -> TestResult:
    """Layers 4, 5, ... each alone."""
    return full_tests.per_layer({4 + n: score(mse) for n, mse in enumerate(mses)}, {})


def test_layers_that_are_good_alone_and_not_together_interact() -> None:
    """Several layers, each below 0.1, together not."""
    assert codes(standard(0.1), alone(0.05, 0.06)) == ["LAYER_INTERACTION"]
    assert codes(standard(0.09), alone(0.05, 0.06)) == []
    assert codes(standard(0.5), alone(0.05)) == []  # a single layer has nothing to interact with


def test_a_degrading_trend_is_an_interaction() -> None:
    """Unless there is one layer only."""
    rising = full_tests.progressive_activation([1, 2], [score(0.02), score(0.2)])
    (finding,) = full_tests.findings_of_tests([rising])
    assert finding.code == "LAYER_INTERACTION"
    assert "from 0.0200 to 0.2000" in finding.text
    assert codes(full_tests.progressive_activation([1], [score(0.2)])) == []


def test_weak_layers_are_named() -> None:
    """With their numbers."""
    (finding,) = full_tests.findings_of_tests([alone(0.05, 0.3, 0.1)])
    assert finding.code == "WEAK_LAYERS"
    assert "5 (MSE 0.3000), 6 (MSE 0.1000)" in finding.text


def test_a_standard_mode_that_is_not_the_base_is_a_finding() -> None:
    """Above 0.01, not at it."""
    assert codes(standard(0.05, 0.0101)) == ["STANDARD_MISMATCH"]
    assert codes(standard(0.05, 0.01)) == []


def test_an_invalid_number_passes_nothing() -> None:
    """NaN is below no bound."""
    assert verdict(standard(math.nan)) == ("FAIL", 0.3)
    assert verdict(full_tests.progressive_activation([1], [score(math.nan)])) == ("FAIL", 0.3)
