"""The oracle itself agrees with the numbers that the original code measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import plain_reference
import pytest

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
BASE = GOLDEN / "base"
CASES = sorted(path.name for path in (GOLDEN / "cases").iterdir())


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    """Each golden case in turn."""
    name: str = request.param
    return name


def weights_of(case: str) -> Path:
    """Where a case's weights lie."""
    (weights,) = (GOLDEN / "cases" / case).glob("checkpoints/*/npt_weights.pt")
    return weights


def expected_of(case: str) -> dict[str, Any]:
    """What was measured of it."""
    expected: dict[str, Any] = json.loads((GOLDEN / "cases" / case / "expected.json").read_text())
    return expected


def test_quick_gives_the_originals_numbers(case: str) -> None:
    """The quick prompts."""
    found = plain_reference.quick(BASE, weights_of(case), drop=case.endswith("drop"))
    wanted = [numbers["mse"] for numbers in expected_of(case)["quick"].values()]
    assert found == pytest.approx(wanted, rel=1e-4)


def test_full_gives_the_originals_numbers(case: str) -> None:
    """Every comparison of the comprehensive script."""
    found = plain_reference.full(BASE, weights_of(case), drop=case.endswith("drop"))
    expected = expected_of(case)
    together = [numbers["mse"] for numbers in expected["npt_vs_original"].values()]
    alone = [numbers["mse"] for numbers in expected["per_layer"].values()]
    assert found["npt"] == pytest.approx(together, rel=1e-4)
    assert found["per_layer"] == pytest.approx(alone, rel=1e-4)
    assert found["progressive"] == pytest.approx(list(expected["progressive"].values()), rel=1e-4)
    assert found["standard"] == pytest.approx([0.0] * len(together), abs=1e-9)


def test_a_cached_continuation_gives_the_originals_tokens(case: str) -> None:
    """The NPT path with transformers' own cache: the tokens that it gives without."""
    models = plain_reference.Models(
        BASE, weights_of(case), drop=case.endswith("drop"), device="cpu"
    )
    for prompt, tokens in expected_of(case)["greedy"].items():
        ids = models.ids(prompt)
        with models.npt(models.layers) as npt:
            found = plain_reference.continuation(npt, ids, temperature=0)
        assert ids + found == tokens["npt"]
        base = plain_reference.continuation(models.base, ids, temperature=0)
        assert ids + base == tokens["original"]
