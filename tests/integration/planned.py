"""A diagnoser for tests that does what a `plan.json` beside the checkpoint says.

Given to real workers by `--diagnoser planned:PlanDiagnoser`. Each start of a measurement adds a
line to `measured.log` beside the checkpoint, so that tests can count them across processes.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nptwatch.diagnostics.grading import Grade, grade_of
from nptwatch.diagnostics.identity import DIAGNOSTICS_VERSION
from nptwatch.errors import BaseModelError, OutOfMemoryError
from nptwatch.npt.files import check_crc
from nptwatch.store.records import Measured

if TYPE_CHECKING:
    from collections.abc import Callable, ItemsView
    from datetime import datetime

    from nptwatch.settings import Settings
    from nptwatch.store.records import Claim


class PlanDiagnoser:
    """Implements worker.loop.Diagnoser."""

    device = "cpu"
    base_model = None

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        if settings.base.model == "broken":
            msg = "the base model is broken"
            raise BaseModelError(msg)
        self._clock = clock

    def base_revision(self, claim: Claim) -> str:
        """The same base for all; the plan may have loading it end the process, or take for ever."""
        plan = Path(claim.paths[0]).with_name("plan.json") if claim.paths else None
        match json.loads(plan.read_text()).get("base") if plan else None:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "load":
                threading.Event().wait()
        return _revision(claim)

    def measure(self, claim: Claim, path: Path) -> Measured:
        """Follow the plan; it is read before the measurement is noted, as tests then move it."""
        plan = json.loads((path.parent / "plan.json").read_text())
        with (path.parent / "measured.log").open("a") as file:
            file.write(f"{os.getpid()}\n")
        check_crc(path)
        time.sleep(plan.get("seconds", 0.0))  # as long as a measurement takes
        _act(plan, path.parent)
        mse, cosine = plan.get("mse", 0.4), plan.get("cosine", 0.99)
        grade = str(Grade.INVALID if mse is None else grade_of(mse, cosine))
        return Measured(
            grade=grade,
            base_revision=_revision(claim),
            diagnostics_version=DIAGNOSTICS_VERSION,
            mse=mse,
            cosine=None if mse is None else cosine,
            duration_seconds=0.01,
            measured_at=self._clock(),
            details=StopsWhenWritten() if plan.get("do") == "stop in finish" else {},
        )


class StopsWhenWritten(dict[str, Any]):  # Any: free JSON
    """A report that has its process stopped (SIGSTOP) inside the transaction that writes it."""

    def items(self) -> ItemsView[str, Any]:
        """Stop the first time."""
        if "stopped" not in self:
            self["stopped"] = True
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().items()


def _revision(claim: Claim) -> str:
    return f"base:{claim.base_model}"


def _act(plan: dict[str, Any], folder: Path) -> None:
    match plan.get("do"):
        case "crash":
            os._exit(9)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise ValueError("the plan says so")
        case "memory":
            if not (folder / "go").exists():
                raise OutOfMemoryError("the plan says so")
        case "block":
            while not (folder / "go").exists():
                time.sleep(0.01)
