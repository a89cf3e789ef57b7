"""The trainer's log is anybody's file: nothing in it may end a measurement."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from nptwatch.diagnostics.training_log import trainer_loss

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A checkpoint's weights, three levels below the folder above its run."""
    path = tmp_path / "run" / "checkpoints" / "checkpoint-400" / "npt_weights.pt"
    path.parent.mkdir(parents=True)
    return path


def log_of(weights: Path) -> Path:
    """Where the run's log is."""
    return weights.parents[2] / "training_log.jsonl"


GOOD = json.dumps({"step": 400, "fidelity_loss": 0.25})


@pytest.mark.parametrize(
    "line",
    [
        "[" * 200_000,
        '{"step": 400, "val_fidelity_loss": 1' + "0" * 400 + "}",
        '{"step": 400, "val_fidelity_loss": NaN}',
        '{"step": 400, "val_fidelity_loss": -Infinity}',
        '{"step": 400, "val_fidelity_loss": true}',
        '{"step": 400, "val_fidelity_loss": "0.1"}',
        "null",
        "{",
    ],
    ids=["nested", "huge", "nan", "infinity", "true", "text", "null", "half"],
)
def test_a_line_that_says_nothing_is_passed_over(weights: Path, line: str) -> None:
    """Whatever it holds; the loss of another line counts."""
    log_of(weights).write_text(f"{line}\n{GOOD}\n{line}\n")
    found = trainer_loss(weights, 400)
    assert found is not None
    assert (found.name, found.value) == ("fidelity_loss", 0.25)


def test_a_pipe_is_not_waited_for(weights: Path) -> None:
    """A reader of a FIFO without a writer would wait for ever."""
    os.mkfifo(log_of(weights))
    assert trainer_loss(weights, 400) is None


def test_the_log_above_the_run_is_another_s(weights: Path) -> None:
    """Only the run's own folder and those below it are looked into."""
    (weights.parents[3] / "training_log.jsonl").write_text(GOOD)
    assert trainer_loss(weights, 400) is None
