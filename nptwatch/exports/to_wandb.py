"""A process that sends results to Weights & Biases, a run there for each run here.

Run as `python -m nptwatch.exports.to_wandb`; see exporter.py. The library's own counter of steps
can only grow, so it is left alone: the training step is logged like the other numbers and is the
axis that they are drawn over, so that a late step finds its place.

What is there already is left out: a run at the server says how far it is, and so does the folder of
each part that was written offline.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from nptwatch.exports.numbers import curve_values
from nptwatch.exports.telling import Question, RunNews, speak

if TYPE_CHECKING:
    from pathlib import Path

    from nptwatch.exports.telling import Point

STEP, ORDINAL = "step", "ordinal"
MARK = "nptwatch.json"
"""Beside a part that was written offline: how far it goes."""


def export(question: Question, run: RunNews) -> None:
    """Add a run's results to its run at W&B, or to the parts of it that wait for `wandb sync`."""
    offline = question.options["mode"] == "offline"
    run_id = f"nptwatch-{run.history}"
    made = question.folder / "wandb"
    held = _ordinal_of_parts(made, run_id) if offline else 0
    points = [point for point in run.points if point[ORDINAL] > held and curve_values(point)]
    if not points:
        return
    making = question.folder / f".making-{run_id}"
    shutil.rmtree(making, ignore_errors=True)  # of a process that was killed
    making.mkdir(parents=True)
    try:
        _send(question, run, run_id, points, making)
        if offline:
            _put(making, made, points[-1][ORDINAL])
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _send(question: Question, run: RunNews, run_id: str, points: list[Point], making: Path) -> None:
    _prepare(making)
    import wandb

    settings = _settings(question, run, run_id, making)
    with wandb.init(settings=wandb.Settings(**settings), config={"run": run.run}) as sent:
        held = int(sent.summary.get(ORDINAL) or 0)
        sent.define_metric(STEP, hidden=True)
        for point in points:
            if point[ORDINAL] > held:
                values = curve_values(point)
                for name in values:
                    sent.define_metric(name, step_metric=STEP, step_sync=False)
                sent.log({STEP: point[STEP], ORDINAL: point[ORDINAL], **values})
        # the library's own minimum knows nothing of what was sent before
        best = {"best_mse": run.best_mse, "best_step": run.best_step}
        sent.summary.update({"status": run.status, **best})


def _settings(
    question: Question, run: RunNews, run_id: str, making: Path
) -> dict[str, Any]:  # Any: as they are
    """Say all that the environment or a file of the user's could say otherwise."""
    options = question.options
    return {
        "mode": options["mode"],
        "project": options["project"],
        "entity": options["entity"],
        "base_url": options["base_url"] or "https://api.wandb.ai",
        "api_key": question.secret,
        "run_group": _group(options["group"], run),
        "run_job_type": "nptwatch",
        "run_id": run_id,
        "run_name": f"nptwatch {run.run}",
        "resume": "allow",
        "root_dir": str(making),
        "init_timeout": options["timeout_seconds"] / 3,
        "finish_timeout": options["timeout_seconds"] / 3,
        "finish_timeout_raises": True,
        "console": "off",
        "silent": True,
        "disable_code": True,
        "disable_git": True,
        "save_code": False,
        "x_disable_machine_info": True,
        "x_disable_meta": True,
        "x_disable_stats": True,
        "x_save_requirements": False,
    }


def _group(group: str, run: RunNews) -> str:
    parent = os.path.basename(os.path.dirname(run.run_path))  # noqa: PTH119,PTH120 - names only
    root = os.path.basename(run.root)  # noqa: PTH119
    return group.format(run=run.run, parent=parent, root=root)


def _prepare(making: Path) -> None:
    """Keep the library from what it would read and write elsewhere, and from talking."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]
    for place in ("CACHE", "CONFIG", "DATA"):
        os.environ[f"WANDB_{place}_DIR"] = str(making / place.lower())
    os.environ["WANDB_ERROR_REPORTING"] = "false"


def _ordinal_of_parts(made: Path, run_id: str) -> int:
    """Give how far the parts go that were written offline, synced or not."""
    marks = made.glob(f"*-{run_id}/{MARK}")
    return max((int(json.loads(mark.read_text())[ORDINAL]) for mark in marks), default=0)


def _put(making: Path, made: Path, ordinal: int) -> None:
    """Put a whole part where `wandb sync` looks for it, at once and with its mark."""
    (part,) = (making / "wandb").glob("offline-run-*")
    (part / MARK).write_text(json.dumps({ORDINAL: ordinal}))
    made.mkdir(parents=True, exist_ok=True)
    part.rename(made / part.name)


if __name__ == "__main__":
    sys.exit(speak(export, package="wandb"))
