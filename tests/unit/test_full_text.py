"""The full report as text: the guide's headings, each test's numbers, safe to print."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest

from nptwatch.cli.history import print_checkpoint
from nptwatch.cli.screen import Screen
from nptwatch.diagnostics import full_tests
from nptwatch.diagnostics.full_report import full_error_report, full_report
from nptwatch.diagnostics.full_tests import Generated
from nptwatch.diagnostics.full_text import full_text
from nptwatch.diagnostics.grading import Grade, grade_of
from nptwatch.diagnostics.results import (
    FullResult,
    LocalError,
    QuickResult,
    Score,
    TestResult,
    mean_score,
)
from nptwatch.diagnostics.training_log import TrainerLoss
from nptwatch.errors import LayoutError
from nptwatch.npt.layout import Kind, LayerLayout, Layout
from nptwatch.store.records import HistoryRow

AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LAYERS = (2, 3, 4, 7)
PROMPT = "The capital of France is"


def score(mse: float) -> Score:
    """A score with this MSE."""
    return Score(
        mse=mse,
        cosine=0.97,
        kl=0.125,
        kl_last=0.25,
        top1_agreement=0.75,
        relative_mse=mse / 6,
        perplexity_ratio=1.0625,
        hidden_mse=mse / 3,
    )


def generated(temperature: float, ours: str, theirs: str, *ids: int) -> Generated:
    """A continuation of both sides; the base's tokens are 1, 2, 3."""
    return Generated(
        prompt=PROMPT,
        temperature=temperature,
        npt_text=f"{PROMPT} {ours}",
        base_text=f"{PROMPT} {theirs}",
        npt_ids=ids,
        base_ids=(1, 2, 3),
    )


def all_tests(mse: float, *generations: Generated) -> tuple[TestResult, ...]:
    """All five tests of a checkpoint with this MSE; layer 7 alone is the worst."""
    alone: dict[int, Score | str] = {n: score(mse * n / 7) for n in LAYERS}
    local = {n: LocalError(layer=n, mse=0.001 * n, relative=0.25) for n in LAYERS}
    texts = ["A" * 70, "short"]
    return (
        full_tests.basic_functionality(same_shape=True, non_finite=None),
        full_tests.npt_vs_standard(texts, [score(mse)] * 2, [score(0.0)] * 2),
        full_tests.per_layer(alone, local),
        full_tests.generation_quality(
            generations or (generated(0.0, "a", "a", 1, 2, 9), generated(0.7, "ours", "their own")),
            seed=5,
            max_new_tokens=20,
        ),
        full_tests.progressive_activation(LAYERS, [score(mse * n / 4) for n in (1, 2, 3, 4)]),
    )


def result(mse: float | None = 0.4, tests: tuple[TestResult, ...] | None = None) -> FullResult:
    """A full result; without an MSE one that is INVALID."""
    quick = QuickResult(
        layout=Layout(
            layers=tuple(
                LayerLayout(index=n, kind=Kind.DUAL, rank=8, num_ranks=2, prefix=f"layer_{n}_np.")
                for n in LAYERS
            ),
            hidden_size=16,
            intermediate_size=48,
        ),
        grade=Grade.INVALID if mse is None else grade_of(mse, 0.97),
        scores=() if mse is None else (score(mse),),
        mean=None if mse is None else mean_score([score(mse)]),
        residual=None if mse is None else "keep",
        residual_mse={},
        local=(),
        findings=(),
        why="NaN in tensor 'x'" if mse is None else "",
        load_seconds=0.5,
        sweep_seconds=0.25,
    )
    tests = all_tests(mse or 1.0) if tests is None else tests
    return FullResult(quick=quick, tests=tests, findings=(), seed=5, generation_seconds=1.0)


def report_of(full: FullResult, loss: TrainerLoss | None = None) -> dict[str, Any]:
    """Its report, as a file would have it."""
    report = full_report(
        full,
        checkpoint="run/checkpoint-5/npt_weights.pt",
        model_name="base",
        step=5,
        device="cpu",
        dtype="float32",
        total_seconds=1.5,
        at=AT,
        trainer=loss,
    )
    read: dict[str, Any] = json.loads(json.dumps(report, allow_nan=False))
    return read


def lines_of(text: str) -> list[str]:
    """Its lines without indentation."""
    return [line.strip() for line in text.splitlines()]


def test_the_guide_s_headings_and_labels() -> None:
    """Headings, labels and numbers of the comprehensive test, and of the quick one beside them."""
    lines = lines_of(full_text(report_of(result(0.4))))
    for line in (
        "NPT MODEL DIAGNOSTIC REPORT",
        "OVERALL STATUS: PARTIALLY_READY",
        "Average Score: 0.70",
        "Readiness: Model partially ready, some issues remain",
        "TEST RESULTS:",
        "Passed: 1/5",
        "Warnings: 4/5",
        "Failed: 0/5",
        "0.70  NPT vs Standard Mode: WARNING",
        "NPT LAYERS: [2, 3, 4, 7]",
        "LOSS ANALYSIS:",
        "Current Estimated Loss: 0.4000 (NPT vs Standard Mode)",
        "Target Range: 0.01 - 0.1",
        "Ready Threshold: < 0.1",
        "ACCURACY METRICS:",
        "MSE Loss: 0.400000",
        "Loss Status: FAIR",
        "TRAINING PROGRESS:",
        "Estimated Progress: 70.0%",
        "GRADE: FAIR",
        "KEY RECOMMENDATIONS:",
        "1. Less than 50% of layers performing well",
    ):
        assert line in lines
    assert "DETAILED TEST RESULTS:" not in lines


@pytest.mark.parametrize(
    ("line", "heading"),
    [
        ("MSE Loss: 0.050000", "ACCURACY METRICS:"),
        ("Loss Status: GOOD \N{WHITE HEAVY CHECK MARK}", "ACCURACY METRICS:"),
        ("OVERALL STATUS: READY \N{WHITE HEAVY CHECK MARK}", "OVERALL STATUS: READY"),
        ("1.00  Basic Functionality: PASS \N{WHITE HEAVY CHECK MARK}", "TEST RESULTS:"),
    ],
)
def test_marks_stand_behind_words_where_emoji_can_be_shown(line: str, heading: str) -> None:
    """With emoji as in the guide; the words themselves stay for grep."""
    same = (generated(0.0, "It is a b c", "It is a b c", 1, 2, 3), generated(1.0, "A b", "A b"))
    text = full_text(report_of(result(0.05, all_tests(0.05, *same))), emoji=True)
    assert line in lines_of(text)
    assert heading in text


def test_details_give_every_test_its_numbers() -> None:
    """Score, recommendations and tables: texts, layers, generations of both sides, progression."""
    text = full_text(report_of(result(0.4)), detailed=True)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in (
        "1. Basic Functionality: PASS (score 1.00)",
        "0.400000 0.9700 short",
        "7 0.400000 0.9700 0.2500 0.007000 25.0% needs_training",
        "Mean MSE 0.228571, cosine 0.9700; good layers 0/4",
        "Greedy continuations agree for 2.0 of 20 tokens",
        "Temperature 0.7, coherence 1.00, similarity 0.62",
        "NPT ORIGINAL",
        "ours their own",
        "4 0.400000 2-4, 7",
        "MSE trend degrading, final MSE 0.400000",
        "Recommendation: MSE increases with more layers - check layer interactions",
    ):
        assert line in lines
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii()


def test_generated_texts_cannot_harm_a_terminal_nor_break_the_columns() -> None:
    """Control characters are escaped; long and wide words are broken; nothing is lost."""
    hostile = "\x1b[2J" + "x" * 90 + "\n\u65e5\u672c" * 20
    tests = all_tests(0.4, generated(0.0, "a", "a", 1), generated(0.7, hostile, "calm"))
    text = full_text(report_of(result(0.4, tests)), detailed=True)
    assert "\x1b" not in text
    block = text.partition("ORIGINAL\n")[2].partition("\n\n")[0].splitlines()
    assert block[0].endswith("  calm")
    assert all(len(line) <= 80 for line in block)
    shown = "".join(block).replace("calm", "").replace(" ", "")
    assert shown == "\\x1b[2J" + "x" * 90 + "\\n\u65e5\u672c" * 20


def test_a_test_that_cannot_run_says_why() -> None:
    """INVALID: no accuracy, nothing made up, the reason with each test."""
    error = "NaN in tensor 'x'"
    tests = (
        full_tests.basic_functionality(same_shape=True, non_finite=error),
        full_tests.cannot_run(full_tests.STANDARD, error),
    )
    text = full_text(report_of(result(None, tests)), detailed=True)
    lines = lines_of(text)
    assert "OVERALL STATUS: NOT_READY" in lines
    assert "GRADE: INVALID" in lines
    assert "Current Estimated Loss: not measured" in lines
    assert f"Error: {error}" in lines
    assert f"First NaN or infinity: {error}" in lines
    assert "MSE Loss" not in text


def test_the_trainer_s_loss_stands_beside() -> None:
    """With what it measures."""
    loss = TrainerLoss(step=5, name="val_loss", value=0.25, measures="something else")
    lines = lines_of(full_text(report_of(result(0.4), loss)))
    assert "val_loss 0.250000 at step 5: something else" in lines


def test_a_checkpoint_that_cannot_be_loaded_has_the_same_keys() -> None:
    """Scripts that read the summary find null and empty lists, never a made-up score."""
    report = full_error_report("x.pt", None, LayoutError(["a", "b"]), AT)
    sound = report_of(result(0.4))
    assert set(report) <= set(sound)
    assert set(report["summary"]) == set(sound["summary"])
    assert report["summary"]["test_counts"]["total"] == 0
    assert report["summary"]["avg_score"] is None
    assert report["detailed_results"] == []
    assert report["grade"] == "UNLOADABLE"


def test_show_prints_the_text_of_the_profile_that_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A full result's report is shown as the full text, a quick one's as the quick text."""
    facts: dict[str, Any] = dict.fromkeys(field.name for field in fields(HistoryRow))
    row = HistoryRow(**facts | {"state": "done", "grade": "FAIR", "also": ()})
    report = report_of(result(0.4))
    print_checkpoint(row, Screen.of_stdout(), report)
    assert "NPT MODEL DIAGNOSTIC REPORT" in capsys.readouterr().out
    quick = {key: value for key, value in report.items() if key != "summary"}
    print_checkpoint(row, Screen.of_stdout(), quick)
    assert "NPT QUICK DIAGNOSTIC" in capsys.readouterr().out
