"""From what a user names to weights files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nptwatch.cli.targets import weights_below
from nptwatch.errors import CheckpointDeletedError, LayoutError
from nptwatch.settings import WatchSettings

if TYPE_CHECKING:
    from pathlib import Path


def save(folder: Path) -> Path:
    """Leave a file that is called like weights."""
    folder.mkdir(parents=True)
    (folder / "npt_weights.pt").write_bytes(b"weights")
    return folder / "npt_weights.pt"


def test_runs_stay_together_each_in_step_order(tmp_path: Path) -> None:
    """Runs may have different bases: taken in turns, each would be loaded again and again."""
    names = ("checkpoint-90", "checkpoint-100", "checkpoint-1000", "best", "final")
    for name in reversed(names):
        for run in ("b", "a"):
            save(tmp_path / run / "checkpoints" / name)
    wanted = [
        tmp_path / run / "checkpoints" / name / "npt_weights.pt"
        for run in ("a", "b")
        for name in names
    ]
    assert weights_below(tmp_path, WatchSettings()) == wanted


def test_a_file_or_its_folder_names_one_checkpoint(tmp_path: Path) -> None:
    """Whatever the watcher is told to leave out."""
    weights = save(tmp_path / "checkpoint-5")
    settings = WatchSettings(exclude=("checkpoint-*",))
    assert weights_below(weights, settings) == [weights]
    assert weights_below(weights.parent, settings) == [weights]


def test_nothing_there_is_told_apart_from_no_weights(tmp_path: Path) -> None:
    """A path that is not there, and a folder that holds something else, which is named."""
    with pytest.raises(CheckpointDeletedError, match="no such file or folder"):
        weights_below(tmp_path / "nowhere", WatchSettings())
    (tmp_path / "optimizer.pt").touch()
    with pytest.raises(LayoutError, match=r"no checkpoint in it .*it holds optimizer\.pt"):
        weights_below(tmp_path, WatchSettings())
