"""One side of the benchmark in a process of its own; prints what it found as JSON.

python sides.py reference quick|full BASE WEIGHTS    what the guide's script does
python sides.py warm FOLDER                          the diagnostics, with their base in memory
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import one_b
import plain_reference
import torch
from floor import Floor, overheard

if TYPE_CHECKING:
    from collections.abc import Callable

    from nptwatch.diagnostics.full import FullDiagnostic
    from nptwatch.diagnostics.quick import QuickDiagnostic
    from nptwatch.diagnostics.reference import References
    from nptwatch.npt.reader import Checkpoint


def reference(profile: str, base: Path, weights: Path, device: str) -> dict[str, Any]:
    """Run the plain reference once."""
    if profile == "quick":
        return {"npt": plain_reference.quick(base, weights, drop=False, device=device)}
    return dict(plain_reference.full(base, weights, drop=False, device=device))


@dataclass(slots=True, kw_only=True)
class Stopwatch:
    """Times of several kinds of work, one after the other in each round, so that noise hits all."""

    device: torch.device
    rounds: int
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def time(self, name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do work and note how long it took."""
        self._wait()
        started = time.perf_counter()
        found = work(*arguments)
        self._wait()
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)
        return found

    def medians(self) -> dict[str, float]:
        """Seconds by name."""
        return {name: statistics.median(each) for name, each in self.seconds.items()}

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Warm:
    """Everything that is measured with the base in memory."""

    def __init__(self, folder: Path, state_dir: Path, asked: argparse.Namespace) -> None:
        """Load the base as a worker does."""
        from nptwatch.logs import configure_logs
        from nptwatch.settings import BaseSection, Settings, WorkerSettings
        from nptwatch.worker.bases import load_references

        configure_logs(level="warning")
        self._folder, self._rounds = folder, asked.rounds
        self._settings = Settings(
            state_dir=state_dir,
            base=BaseSection(layers="resident", dtype=asked.dtype, local_files_only=True),
            worker=WorkerSettings(device=asked.device, threads=asked.threads),
        )
        self._references: References = load_references(self._settings, str(folder / one_b.BASE))
        self._device = self._references.base.device

    def quick(self, name: str, residual: str) -> dict[str, Any]:
        """Time quick diagnostics of one checkpoint, and their floor."""
        diagnostic = self.quick_diagnostic(residual)
        with overheard() as asked:
            diagnostic.measure(self.read(name))
        floor = Floor(asked)
        bare = floor.work()
        watch = self._watch()
        for number in range(self._rounds + 1):
            checkpoint = watch.time("read", self.read, name)
            watch.time("measure", diagnostic.measure, checkpoint)
            watch.time("floor", bare)
            if number == 0:
                watch.seconds.clear()
        return watch.medians() | _about(floor)

    def full(self, name: str, rounds: int | None = None) -> dict[str, Any]:
        """Time full diagnostics of one checkpoint, generation apart, and the sweep's floor.

        Args:
            rounds: fewer than asked for, where a refused draft makes generation long.
        """
        diagnostic = self.full_diagnostic()
        with overheard() as asked:
            diagnostic.measure(self.read(name))
        floor = Floor(asked)
        bare = floor.work()
        watch = self._watch()
        for number in range((rounds or self._rounds) + 1):
            checkpoint = watch.time("read", self.read, name)
            result = watch.time("measure", diagnostic.measure, checkpoint)
            generated = result.generation_seconds
            watch.seconds.setdefault("generation", []).append(generated)
            watch.seconds.setdefault("sweep", []).append(watch.seconds["measure"][-1] - generated)
            watch.time("floor", bare)
            if number == 0:
                watch.seconds.clear()
        (generation,) = (test for test in result.tests if test.name == "Generation Quality")
        similarity = generation.details.get("avg_similarity")
        return watch.medians() | _about(floor) | {"similarity": similarity}

    def _watch(self) -> Stopwatch:
        gc.collect()
        return Stopwatch(device=self._device, rounds=self._rounds)

    def read(self, name: str) -> Checkpoint:
        """Read a checkpoint, as a worker does each time."""
        from nptwatch.npt.reader import read_checkpoint

        return read_checkpoint(one_b.weights_of(self._folder, name), max_bytes=2**33)

    def quick_diagnostic(self, residual: str) -> QuickDiagnostic:
        """Give the quick diagnostic under a residual rule."""
        from nptwatch.diagnostics.quick import QuickDiagnostic

        return QuickDiagnostic(references=self._references, residual=residual)

    def full_diagnostic(self) -> FullDiagnostic:
        """Give the full diagnostic."""
        from nptwatch.worker.bases import full_diagnostic

        return full_diagnostic(self._settings, self._references)


def _about(floor: Floor) -> dict[str, float]:
    return {"floor_gb": floor.weight_bytes / 1e9, "floor_gflop": floor.operations / 1e9}


def warm(asked: argparse.Namespace) -> dict[str, Any]:
    """Measure all that is measured warm."""
    shape = one_b.SHAPES[asked.shape]
    with tempfile.TemporaryDirectory() as state_dir:
        side = Warm(asked.folder, Path(state_dir), asked)
        found: dict[str, Any] = {
            "quick": side.quick(one_b.GOOD, "auto"),
            "quick_keep": side.quick(one_b.GOOD, "keep"),
        }
        if not asked.quick_only:
            few = max(1, asked.rounds // 3)
            found["full"] = side.full(one_b.GOOD)
            found["full_poor"] = side.full(one_b.POOR, few)
            found["grown"] = {n: side.full(f"grown-{n}", few) for n in shape.grown}
    return found


def main() -> None:
    """Measure one side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, required=True)
    sides = parser.add_subparsers(dest="side", required=True)
    plain = sides.add_parser("reference")
    plain.add_argument("profile", choices=["quick", "full"])
    plain.add_argument("base", type=Path)
    plain.add_argument("weights", type=Path)
    ours = sides.add_parser("warm")
    ours.add_argument("folder", type=Path)
    ours.add_argument("--shape", choices=one_b.SHAPES, required=True)
    ours.add_argument("--rounds", type=int, required=True)
    ours.add_argument("--dtype", default="float32")
    ours.add_argument("--quick-only", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.side == "reference":
        found = reference(asked.profile, asked.base, asked.weights, asked.device)
    else:
        found = warm(asked)
    if torch.cuda.is_available():
        found["device_bytes"] = torch.cuda.max_memory_allocated()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
