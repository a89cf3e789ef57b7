"""Reports keep the original scripts' keys and the guide's labels; nothing is made up."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from nptwatch.diagnostics.grading import Grade, findings_of, grade_of
from nptwatch.diagnostics.quick_text import quick_text
from nptwatch.diagnostics.report import error_report, quick_report
from nptwatch.diagnostics.results import LocalError, QuickResult, Score, mean_score
from nptwatch.diagnostics.training_log import TrainerLoss, loss_finding, trainer_loss
from nptwatch.errors import LayoutError
from nptwatch.npt.layout import Kind, LayerLayout, Layout

if TYPE_CHECKING:
    from pathlib import Path

AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LAYOUT = Layout(
    layers=(LayerLayout(index=3, kind=Kind.DUAL, rank=8, num_ranks=2, prefix="layer_3_np."),),
    hidden_size=16,
    intermediate_size=48,
)


def score(mse: float, cosine: float) -> Score:
    """Return a score with these two numbers."""
    return Score(
        mse=mse,
        cosine=cosine,
        kl=0.1,
        kl_last=0.2,
        top1_agreement=0.75,
        relative_mse=0.03,
        perplexity_ratio=float("nan"),
        hidden_mse=0.01,
    )


def result(*scores: Score, grade: Grade | None = None, why: str = "") -> QuickResult:
    """Return a quick result made of these scores."""
    mean = mean_score(scores) if scores else None
    return QuickResult(
        layout=LAYOUT,
        grade=grade_of(mean.mse, mean.cosine) if mean else grade,
        scores=scores,
        mean=mean,
        residual="keep" if mean else None,
        residual_mse={"keep": mean.mse, "drop": 9.5} if mean else {},
        local=(LocalError(layer=3, mse=0.02, relative=math.nan),) if mean else (),
        findings=tuple(findings_of(mean.mse, mean.cosine)) if mean else (),
        why=why,
        load_seconds=0.5,
        sweep_seconds=0.25,
    )


def report_of(quick: QuickResult, loss: TrainerLoss | None = None) -> dict[str, object]:
    """Return its report."""
    return quick_report(
        quick,
        checkpoint="run/checkpoint-5/npt_weights.pt",
        model_name="base",
        step=5,
        device="cpu",
        dtype="float32",
        total_seconds=1.5,
        at=AT,
        trainer=loss,
    )


def test_json_has_every_key_that_scripts_parse() -> None:
    """The original's keys are there, with its meaning, and the whole is strict JSON."""
    report = json.loads(
        json.dumps(report_of(result(score(0.2, 0.9), score(0.4, 1.0))), allow_nan=False)
    )
    assert report["local_errors"] == [{"layer": 3, "mse": 0.02, "relative": None}]
    assert report["diagnostic"] | {"layers": 0, "num_parameters": 0} == {
        "status": "success",
        "load_time": 0.5,
        "npt_layers": [3],
        "num_npt_layers": 1,
        "mse_between_modes": pytest.approx(0.3),
        "issues": [],
        "model_info": {"device": "cpu", "dtype": "float32", "base_model": "base"},
        "layers": 0,
        "num_parameters": 0,
    }
    accuracy = report["accuracy"]
    assert accuracy["avg_mse"] == pytest.approx(0.3)
    assert accuracy["avg_cosine_similarity"] == pytest.approx(0.95)
    assert accuracy["individual_mse"] == [0.2, 0.4]
    assert accuracy["individual_cosine"] == [0.9, 1.0]
    assert accuracy["perplexity_ratio"] is None  # NaN is null
    assert report["readiness"]["ready"] is False
    assert report["readiness"]["confidence"] == 0.4
    assert set(report["readiness"]) == {"ready", "confidence", "reason", "recommendation"}
    assert report["progress"] == {
        "progress_estimate": 0.7,
        "remaining_work": "Light training needed (1k-5k steps)",
        "current_mse": pytest.approx(0.3),
        "target_mse": 0.05,
    }
    assert (report["grade"], report["timestamp"], report["total_time"]) == (
        "FAIR",
        AT.isoformat(),
        1.5,
    )


@pytest.mark.parametrize(
    ("mse", "cosine", "status", "progress"),
    [
        (1.888480, 0.9548, "POOR", "10.0%"),
        (1.292411, 0.9661, "POOR", "10.0%"),
        (0.350000, 0.9850, "FAIR", "70.0%"),
        (0.085000, 0.9920, "GOOD", "90.0%"),
    ],
)
def test_text_gives_the_guide_s_examples(
    mse: float, cosine: float, status: str, progress: str
) -> None:
    """The four examples of the guide come out with its labels, numbers and words."""
    text = quick_text(report_of(result(score(mse, cosine))), emoji=True)
    lines = [line.strip() for line in text.splitlines()]
    assert f"MSE Loss: {mse:.6f}" in lines
    assert f"Cosine Similarity: {cosine:.4f}" in lines
    assert f"Estimated Progress: {progress}" in lines
    assert any(line.startswith(f"Loss Status: {status}") for line in lines)
    assert any(line.endswith("ACCURACY METRICS:") for line in lines)
    assert any(line.endswith("TRAINING PROGRESS:") for line in lines)
    assert len(re.findall(r"(MSE Loss|Progress)", text)) == 2


def test_text_is_plain_where_emoji_cannot_be_shown() -> None:
    """Without emoji every character is ASCII, and no line is wider than a terminal."""
    text = quick_text(report_of(result(score(0.6, 0.95))), verbose=True)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 80
    assert "MAGNITUDE" in text


def test_numbers_that_are_none_are_told_as_such() -> None:
    """An MSE that overflows is strict JSON all the same, and dashes in text."""
    report = report_of(result(score(math.inf, 0.9)))
    text = quick_text(json.loads(json.dumps(report, allow_nan=False)), verbose=True)
    assert "prompt 1: MSE -  cosine 0.900000" in text
    assert "residual keep: MSE -" in text
    assert "Grade: POOR" in text


def test_nothing_is_made_up_where_accuracy_was_not_measured() -> None:
    """No MSE, no grade, no progress: null in JSON, words in text."""
    report = report_of(result())
    assert report["grade"] is None
    assert json.loads(json.dumps(report))["accuracy"]["avg_mse"] is None
    assert "accuracy not measured" in quick_text(report)


def test_invalid_says_where() -> None:
    """INVALID is no grade of POOR: no numbers, the reason, no confidence."""
    report = report_of(result(grade=Grade.INVALID, why="NaN in tensor 'x'"))
    text = quick_text(report)
    assert "Grade: INVALID" in text
    assert "NaN in tensor 'x'" in text
    assert "POOR" not in text


def test_a_checkpoint_that_cannot_be_loaded_has_the_same_keys() -> None:
    """Scripts that read `accuracy` or `grade` find null and UNLOADABLE."""
    report = error_report("x.pt", None, LayoutError(["a", "b"]), AT)
    assert set(report) <= set(report_of(result())) | {"error"}
    assert report["diagnostic"]["status"] == "error"
    assert report["diagnostic"]["error"] == "a; b"
    assert (report["grade"], report["accuracy"]["avg_mse"]) == ("UNLOADABLE", None)


def test_the_trainer_s_loss_is_shown_with_what_it_measures(tmp_path: Path) -> None:
    """The log beside the run gives the loss at that step; a difference is explained."""
    weights = tmp_path / "run" / "checkpoints" / "checkpoint-5" / "npt_weights.pt"
    weights.parent.mkdir(parents=True)
    (tmp_path / "run" / "training_log.jsonl").write_text(
        '{"step": 4, "fidelity_loss": 9}\nnot json\n[]\n'
        '{"step": 5, "fidelity_loss": 0.07, "total_loss": 0.08}\n{"step": 5, "val_loss": 0.068}\n'
    )
    loss = trainer_loss(weights, 5)
    assert loss is not None
    assert (loss.name, loss.value) == ("fidelity_loss", 0.07)
    finding = loss_finding(loss, 0.41)
    assert finding is not None
    assert finding.code == "TRAINING_LOSS_DIFFERS"
    assert loss_finding(loss, 0.071) is None
    assert "final hidden states" in quick_text(report_of(result(score(0.41, 0.9)), loss))
    assert trainer_loss(weights, 6) is None
    assert trainer_loss(weights, None) is None
    assert trainer_loss(tmp_path / "elsewhere" / "npt_weights.pt", 5) is None


def test_text_says_where_and_why_there() -> None:
    """The GPU by name, streamed layers, and each step that led there, within the page's width."""
    report = report_of(result(score(0.6, 0.95))) | {
        "measured_on": {
            "gpu": "NVIDIA A100",
            "layers": "streamed",
            "steps": ["waited 600 s for cuda:0 (NVIDIA A100): 812 MiB free, 2048 wanted; then x"],
        }
    }
    lines = quick_text(report).splitlines()
    assert "Device:      cpu (NVIDIA A100), float32, streamed layers" in lines
    start = next(n for n, line in enumerate(lines) if line.startswith("Because:"))
    assert lines[start : start + 2] == [
        "Because:     waited 600 s for cuda:0 (NVIDIA A100): 812 MiB free, 2048 wanted;",
        "             then x",
    ]
