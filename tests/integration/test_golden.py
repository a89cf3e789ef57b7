"""Agreement with the numbers that the original code measured (tests/data/golden)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nptwatch.diagnostics.generation import Draw, generate
from nptwatch.diagnostics.probes import tokenize
from nptwatch.diagnostics.quick import QuickDiagnostic
from nptwatch.diagnostics.reference import References, compute_reference
from nptwatch.diagnostics.sweep import Variant, sweep
from nptwatch.grade_settings import GradeSettings
from nptwatch.npt.base import BaseModel, load_base
from nptwatch.npt.layout import infer_layout
from nptwatch.npt.modulation import NptLayer, npt_layers
from nptwatch.npt.reader import Checkpoint, read_checkpoint
from nptwatch.settings import Settings
from nptwatch.worker.bases import full_diagnostic, quick_diagnostic

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
CASES = sorted(path.name for path in (GOLDEN / "cases").iterdir())
RELATIVE = 1e-4
PER_LAYER_PROMPT = "The capital of France is Paris, and it is known for"
PROGRESSIVE_PROMPT = "Machine learning is a subset of artificial intelligence"


@pytest.fixture(scope="module")
def base() -> BaseModel:
    """The golden base."""
    return load_base(str(GOLDEN / "base"), local_files_only=True)


def read(path: Path) -> Checkpoint:
    """Read a checkpoint."""
    return read_checkpoint(path, max_bytes=2**20)


class Case:
    """A golden checkpoint with what was measured of it."""

    def __init__(self, name: str, base: BaseModel) -> None:
        folder = GOLDEN / "cases" / name
        self.expected: dict[str, Any] = json.loads((folder / "expected.json").read_text())
        (self.path,) = folder.glob("checkpoints/*/npt_weights.pt")
        self.residual = name.rsplit("-", 1)[1]
        self.drop = self.residual == "drop"
        checkpoint = read(self.path)
        self.layout = infer_layout(checkpoint.shapes, base.shape)
        self.npt: dict[int, NptLayer] = npt_layers(
            self.layout, checkpoint.tensors, dtype=base.dtype, device=base.device
        )


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, base: BaseModel) -> Case:
    """Each golden case in turn."""
    return Case(request.param, base)


def test_there_are_cases_of_every_kind_and_rule() -> None:
    """An empty folder must not pass."""
    assert len(CASES) >= 5
    assert {name.split("-")[0] for name in CASES} == {"single", "dual", "triple"}
    assert {name.split("-")[2] for name in CASES} == {"keep", "drop"}


def test_quick_numbers_agree(case: Case, base: BaseModel) -> None:
    """MSE and cosine of each quick prompt and their mean are the original's."""
    diagnostic = QuickDiagnostic(references=References(base=base), residual=case.residual)
    result = diagnostic.measure(read(case.path))
    assert result.mean is not None
    for score, wanted in zip(result.scores, case.expected["quick"].values(), strict=True):
        assert score.mse == pytest.approx(wanted["mse"], rel=RELATIVE)
        assert score.cosine == pytest.approx(wanted["cosine"], rel=RELATIVE, abs=1e-5)
    average = case.expected["quick_avg"]
    assert result.mean.mse == pytest.approx(average["mse"], rel=RELATIVE)
    assert result.mean.cosine == pytest.approx(average["cosine"], rel=RELATIVE, abs=1e-5)
    assert [la.index for la in result.layout.layers] == case.expected["layers"]
    assert result.layout.num_parameters == case.expected["num_params"]


def test_npt_vs_original_numbers_agree(case: Case, base: BaseModel) -> None:
    """The full diagnostic's first comparison, prompt by prompt."""
    wanted = case.expected["npt_vs_original"]
    probes = tokenize(base, list(wanted))
    variant = Variant(active=frozenset(case.npt), drop=case.drop)
    (swept,) = sweep(base, case.npt, probes, compute_reference(base, probes), [variant]).outcomes
    for score, numbers in zip(swept.scores, wanted.values(), strict=True):
        assert score.mse == pytest.approx(numbers["mse"], rel=RELATIVE)
        assert score.cosine == pytest.approx(numbers["cosine"], rel=RELATIVE, abs=1e-5)


def test_each_layer_alone_agrees(case: Case, base: BaseModel) -> None:
    """All single-layer variants as rows of one sweep give the original's per-layer numbers."""
    probes = tokenize(base, [PER_LAYER_PROMPT])
    wanted = case.expected["per_layer"]
    variants = [Variant(active=frozenset([int(index)]), drop=case.drop) for index in wanted]
    swept = sweep(base, case.npt, probes, compute_reference(base, probes), variants).outcomes
    for outcome, numbers in zip(swept, wanted.values(), strict=True):
        (score,) = outcome.scores
        assert score.mse == pytest.approx(numbers["mse"], rel=RELATIVE)
        assert score.cosine == pytest.approx(numbers["cosine"], rel=RELATIVE, abs=1e-5)
        assert score.kl_last == pytest.approx(numbers["kl_last"], rel=1e-3)


def test_progressive_activation_agrees(case: Case, base: BaseModel) -> None:
    """The first n layers active, n = 1..all, as rows of one sweep."""
    probes = tokenize(base, [PROGRESSIVE_PROMPT])
    wanted = case.expected["progressive"]
    layers = sorted(case.npt)
    variants = [Variant(active=frozenset(layers[: int(n)]), drop=case.drop) for n in wanted]
    swept = sweep(base, case.npt, probes, compute_reference(base, probes), variants).outcomes
    for outcome, mse in zip(swept, wanted.values(), strict=True):
        assert outcome.scores[0].mse == pytest.approx(mse, rel=RELATIVE)


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_greedy_tokens_are_the_originals(case: Case, base: BaseModel, *, use_cache: bool) -> None:
    """With and without KV cache, all prompts as one batch, both sides give the recorded tokens."""
    expected = case.expected["greedy"]
    draws = [Draw(prompt=prompt, temperature=0.0) for prompt in expected]
    starts = [len(base.tokenizer(prompt)["input_ids"]) for prompt in expected]
    for side, npt in (("npt", case.npt), ("original", {})):
        found = generate(base, npt, draws, drop=case.drop, seed=0, use_cache=use_cache)
        wanted = [
            tuple(tokens[side][start:])
            for tokens, start in zip(expected.values(), starts, strict=True)
        ]
        assert found == wanted


def test_the_layer_by_layer_base_is_the_library_s_own_forward_pass(base: BaseModel) -> None:
    """Our standard path, padded batch included, equals transformers' forward one at a time."""
    probes = tokenize(base, ["The capital of France is", "2 + 2 equals", "To be or not to be"])
    reference = compute_reference(base, probes)
    pieces = base.head(reference.normed_ND).split(probes.lengths)
    for prompt, ours_TV in zip(probes.prompts, pieces, strict=True):
        ids = base.tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            theirs_TV = base.model(input_ids=ids).logits[0]
        torch.testing.assert_close(ours_TV, theirs_TV, rtol=1e-5, atol=1e-5)


def test_auto_takes_the_rule_with_the_lower_mse(case: Case, base: BaseModel) -> None:
    """Auto equals the better of the two fixed rules, and reports both."""
    references = References(base=base)
    fixed = {}
    for rule in ("keep", "drop"):
        diagnostic = QuickDiagnostic(references=references, residual=rule)
        result = diagnostic.measure(read(case.path))
        assert result.mean is not None
        fixed[rule] = result.mean.mse
    auto = QuickDiagnostic(references=references, residual="auto")
    result = auto.measure(read(case.path))
    assert result.mean is not None
    assert result.residual == min(fixed, key=fixed.__getitem__)
    assert result.mean.mse == pytest.approx(min(fixed.values()), rel=1e-5)
    assert result.residual_mse == pytest.approx(fixed, rel=1e-5)


def test_the_run_s_recorded_numbers_agree(base: BaseModel) -> None:
    """Every checkpoint of the original trainer's run, best/ and final/ among them."""
    expected = json.loads((GOLDEN / "run" / "expected.json").read_text())
    diagnostic = QuickDiagnostic(references=References(base=base), residual="keep")
    folder = GOLDEN / "run" / "experiments" / "equivalence" / "checkpoints"
    assert len(expected) == 6
    for name, numbers in expected.items():
        result = diagnostic.measure(read(folder / name / "npt_weights.pt"))
        assert result.mean is not None
        assert result.mean.mse == pytest.approx(numbers["avg_mse"], rel=RELATIVE)
        assert result.mean.cosine == pytest.approx(numbers["avg_cosine_similarity"], rel=RELATIVE)


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_grades_are_by_the_bounds_of_the_settings(
    base: BaseModel, tmp_path: Path, profile: str
) -> None:
    """The last checkpoint of the run: zero puts a grade out of reach, a wide bound within it."""
    path = GOLDEN / "run/experiments/equivalence/checkpoints/final/npt_weights.pt"
    grades = {}
    zero = {"excellent_mse": 0, "good_mse": 0, "fair_mse": 0}
    for name, bounds in (("guide", {}), ("zero", zero), ("wide", {"good_mse": 0.5})):
        settings = Settings(state_dir=tmp_path, grades=GradeSettings(**bounds))
        if profile == "quick":
            result = quick_diagnostic(settings, References(base=base)).measure(read(path))
        else:
            full = full_diagnostic(settings, References(base=base))
            result = full.measure(read(path), quick=True).quick
        grades[name] = str(result.grade)
    assert grades == {"guide": "FAIR", "zero": "POOR", "wide": "GOOD"}
