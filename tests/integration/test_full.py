"""The full diagnostic on golden checkpoints: the original's numbers, and statuses that follow."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from nptwatch.diagnostics.full import FullDiagnostic
from nptwatch.diagnostics.full_report import full_report
from nptwatch.diagnostics.generation import Continuations
from nptwatch.diagnostics.probes import (
    BASIC_PROMPT,
    GENERATION_PROMPTS,
    MAX_TOKENS,
    PER_LAYER_PROMPT,
    PROGRESSIVE_PROMPT,
    QUICK_PROMPTS,
    STANDARD_PROMPTS,
    tokenize,
)
from nptwatch.diagnostics.quick import QuickDiagnostic
from nptwatch.diagnostics.reference import References
from nptwatch.errors import ConfigError, LayoutError
from nptwatch.npt.base import BaseModel, load_base
from nptwatch.npt.reader import Checkpoint, read_checkpoint
from nptwatch.settings import Settings
from nptwatch.store.engine import utc_now
from nptwatch.worker.bases import load_references

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
CASES = sorted(path.name for path in (GOLDEN / "cases").iterdir())
RELATIVE = 1e-4
TESTS = [
    "Basic Functionality",
    "NPT vs Standard Mode",
    "Per-Layer Performance",
    "Generation Quality",
    "Progressive Layer Activation",
]


@pytest.fixture(scope="module")
def base() -> BaseModel:
    """The golden base."""
    return load_base(str(GOLDEN / "base"), local_files_only=True)


def read(path: Path) -> Checkpoint:
    """Read a checkpoint."""
    return read_checkpoint(path, max_bytes=2**20)


def golden(case: str) -> tuple[Checkpoint, dict[str, Any]]:
    """A golden checkpoint with what was measured of it."""
    folder = GOLDEN / "cases" / case
    (path,) = folder.glob("checkpoints/*/npt_weights.pt")
    return read(path), json.loads((folder / "expected.json").read_text())


def full(
    base: BaseModel, *, residual: str = "auto", texts: tuple[str, ...] = (), seed: int = 0
) -> FullDiagnostic:
    """A diagnostic that keeps nothing on disk."""
    return FullDiagnostic(
        references=References(base=base),
        continuations=Continuations(base=base, folder=None, seed=seed),
        residual=residual,
        texts=texts,
    )


def report_of(diagnostic: FullDiagnostic, checkpoint: Checkpoint, **how: Any) -> dict[str, Any]:
    """Measure and report."""
    return full_report(
        diagnostic.measure(checkpoint, **how),
        checkpoint="c",
        model_name="b",
        step=1,
        device="cpu",
        dtype="float32",
        total_seconds=1.0,
        at=utc_now(),
    )


def details(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Details by test."""
    return {test["test_name"]: test["details"] for test in report["detailed_results"]}


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_the_originals(case: str, base: BaseModel) -> None:
    """NPT against base, each layer alone, progressive: to 1e-4, KL to 1e-3."""
    checkpoint, wanted = golden(case)
    found = details(report_of(full(base, residual=case.rsplit("-", 1)[1]), checkpoint))
    assert list(found) == TESTS
    compared = found["NPT vs Standard Mode"]
    for result, numbers in zip(
        compared["individual_results"], wanted["npt_vs_original"].values(), strict=True
    ):
        assert result["mse"] == pytest.approx(numbers["mse"], rel=RELATIVE)
        assert result["cosine"] == pytest.approx(numbers["cosine"], rel=RELATIVE, abs=1e-5)
    assert compared["avg_mse_standard_vs_original"] < 1e-9
    layers = found["Per-Layer Performance"]["layer_results"]
    assert set(layers) == set(wanted["per_layer"])
    for layer, numbers in wanted["per_layer"].items():
        assert layers[layer]["mse_loss"] == pytest.approx(numbers["mse"], rel=RELATIVE)
        assert layers[layer]["kl_divergence"] == pytest.approx(numbers["kl_last"], rel=1e-3)
    steps = found["Progressive Layer Activation"]["progression_results"]
    assert {n: step["mse_loss"] for n, step in steps.items()} == pytest.approx(
        wanted["progressive"], rel=RELATIVE
    )


@pytest.mark.parametrize("case", CASES)
def test_the_quick_part_is_the_quick_diagnostic(case: str, base: BaseModel) -> None:
    """Same numbers to the last bit, same rule, same grade, same errors of each layer."""
    checkpoint, _ = golden(case)
    alone = QuickDiagnostic(references=References(base=base), residual="auto").measure(checkpoint)
    part = full(base).measure(checkpoint, quick=True).quick
    assert alone.mean is not None
    assert (part.grade, part.residual, part.mean) == (alone.grade, alone.residual, alone.mean)
    assert (part.scores, part.local) == (alone.scores, alone.local)
    assert [own.layer for own in part.local] == [la.index for la in alone.layout.layers]


def test_the_common_prefix_is_that_of_the_recorded_greedy_tokens(base: BaseModel) -> None:
    """Counted on the continuations that the original recorded."""
    checkpoint, wanted = golden("single-rank4-keep")
    found = details(report_of(full(base, residual="keep"), checkpoint))["Generation Quality"]
    for prompt, tokens in wanted["greedy"].items():
        start = len(base.tokenizer(prompt)["input_ids"])
        pairs = zip(tokens["npt"][start:], tokens["original"][start:], strict=False)
        same = [ours == theirs for ours, theirs in pairs]
        common = same.index(False) if False in same else len(same)
        assert found["greedy_common_prefix"][prompt] == common


def test_a_report_is_reproducible_and_the_seed_counts(base: BaseModel) -> None:
    """Same seed, same texts; another seed, others. Rates of both sides come from the same noise."""
    checkpoint, _ = golden("dual-rank2-keep")
    first, again, other = (
        details(report_of(full(base, seed=seed), checkpoint))["Generation Quality"]
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first["generation_results"]["1.0"] != other["generation_results"]["1.0"]


def test_two_tests_with_quick(base: BaseModel) -> None:
    """The guide's --quick: the first two tests, no continuation drawn, no seed."""
    checkpoint, _ = golden("single-rank1-keep")
    report = report_of(full(base), checkpoint, quick=True)
    assert [test["test_name"] for test in report["detailed_results"]] == TESTS[:2]
    assert report["seed"] is None
    assert report["summary"]["test_counts"]["total"] == 2


def test_a_good_checkpoint_is_ready(tmp_path: Path) -> None:
    """A layer that was really distilled passes every test but, by chance, that of generation."""
    folder = tiny.llama(tmp_path / "base")
    base = load_base(str(folder), local_files_only=True)
    texts = (
        *(*QUICK_PROMPTS, BASIC_PROMPT, *STANDARD_PROMPTS),
        *(PER_LAYER_PROMPT, PROGRESSIVE_PROMPT, *GENERATION_PROMPTS),
    )
    path = tiny.save(tmp_path / "npt_weights.pt", tiny.distilled(folder, 0.03, texts))
    report = report_of(full(base), read(path))
    assert report["grade"] == "EXCELLENT"
    statuses = {test["test_name"]: test["status"] for test in report["detailed_results"]}
    del statuses["Generation Quality"]
    assert set(statuses.values()) == {"PASS"}
    assert report["summary"]["overall_status"] == "READY"
    assert report["summary"]["avg_score"] > 0.8


def test_custom_texts_replace_the_guide_s(base: BaseModel) -> None:
    """Accuracy, grade and the comparison with standard mode are of the texts that were given."""
    checkpoint, wanted = golden("triple-rank4-drop")
    (text, numbers), *_ = wanted["npt_vs_original"].items()
    report = report_of(full(base, residual="drop", texts=(text,)), checkpoint)
    assert report["accuracy"]["individual_mse"] == [pytest.approx(numbers["mse"], rel=RELATIVE)]
    (result,) = details(report)["NPT vs Standard Mode"]["individual_results"]
    assert result["mse"] == pytest.approx(numbers["mse"], rel=RELATIVE)
    assert len(details(report)) == len(TESTS)


@pytest.mark.parametrize("scale", [float("nan"), 1e30])
def test_an_invalid_checkpoint_fails_every_test(
    base: BaseModel, tmp_path: Path, scale: float
) -> None:
    """NaN in the weights or in the forward pass: INVALID, no number is made up."""
    checkpoint, _ = golden("dual-rank1-drop")
    tensors = {name: tensor * scale for name, tensor in checkpoint.tensors.items()}
    report = report_of(full(base), read(tiny.save(tmp_path / "npt_weights.pt", tensors)))
    assert report["grade"] == "INVALID"
    assert {test["status"] for test in report["detailed_results"]} == {"FAIL"}
    assert [test["test_name"] for test in report["detailed_results"]] == TESTS
    assert report["summary"]["avg_score"] == 0
    assert report["summary"]["overall_status"] == "NOT_READY"
    assert report["summary"]["loss_guidance"]["current_estimated_loss"] is None
    assert json.loads(json.dumps(report, allow_nan=False)) == report


@pytest.mark.parametrize(
    ("case", "where"),
    [("dual-rank2-keep", "output of layer 1"), ("single-rank1-keep", "the logits after 3 new")],
)
def test_nan_that_only_the_later_tests_meet_is_invalid_too(
    base: BaseModel, case: str, where: str
) -> None:
    """A checkpoint that the quick prompts just hold overflows elsewhere: no grade but INVALID."""
    checkpoint, _ = golden(case)
    diagnostic = full(base)
    quick = QuickDiagnostic(references=diagnostic.references, residual="auto")

    def scaled(scale: float) -> Checkpoint:
        tensors = {name: tensor * scale for name, tensor in checkpoint.tensors.items()}
        return replace(checkpoint, tensors=tensors)

    finite, broken = 1.0, 1e30
    for _ in range(40):
        middle = math.sqrt(finite * broken)
        if quick.measure(scaled(middle)).grade == "INVALID":
            broken = middle
        else:
            finite = middle
    found = diagnostic.measure(scaled(finite))
    assert quick.measure(scaled(finite)).grade == "POOR"
    assert found.quick.grade == "INVALID"
    assert found.quick.why is not None
    assert where in found.quick.why
    assert found.quick.why.count("NaN or infinity") == 1


def test_a_checkpoint_of_another_base_is_refused(base: BaseModel, tmp_path: Path) -> None:
    """As in the quick diagnostic: every fault is named, nothing is measured."""
    path = tiny.save(tmp_path / "npt_weights.pt", tiny.weights(tiny.layer(1)))
    with pytest.raises(LayoutError):
        full(base).measure(read(path))


def test_the_base_is_run_once_for_all_checkpoints(base: BaseModel, tmp_path: Path) -> None:
    """Neither its logits nor its continuations are computed for a second checkpoint or process."""
    references = References(base=base, folder=tmp_path)
    kept = Continuations(base=base, folder=tmp_path, seed=0)
    diagnostic = FullDiagnostic(references=references, continuations=kept, residual="auto")
    for case in CASES[:2]:
        diagnostic.measure(golden(case)[0])
    assert (references.computed, kept.computed) == (3, 1)  # quick's, the tests', the drafts'
    again = FullDiagnostic(
        references=References(base=base, folder=tmp_path),
        continuations=Continuations(base=base, folder=tmp_path, seed=0),
        residual="auto",
    )
    again.measure(golden(CASES[0])[0])
    assert (again.references.computed, again.continuations.computed) == (0, 0)


def test_texts_are_refused_for_every_profile_or_none(tmp_path: Path) -> None:
    """What the quick diagnostic could just measure, and the full one with its prompts not."""
    text = "The quick brown fox jumps over the lazy dog and"
    base = load_base(str(GOLDEN / "base"), local_files_only=True)
    tokens = len(base.tokenizer(text)["input_ids"])
    texts = (text,) * (MAX_TOKENS // tokens)
    tokenize(base, texts)
    settings = Settings.model_validate(
        {"state_dir": tmp_path, "diagnostic": {"probe_texts": texts}, "worker": {"threads": 1}}
    )
    with pytest.raises(ConfigError, match="fewer or shorter"):
        load_references(settings, str(GOLDEN / "base"))
