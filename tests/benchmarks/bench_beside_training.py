"""What training notices: its step time while quick diagnostics run beside it, on the same device.

A training process steps without end and notes each step. Quiet windows take turns with windows in
which a worker's diagnoser, its base loaded, measures a checkpoint every few seconds. On a machine
without a GPU both compute on the CPU: training on the cores that the worker's default leaves.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

AIM = 1.05
SETTLE_SECONDS = 3.0
NICENESS = 5
"""As the daemon's workers have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that took its time, in monotonic seconds."""

    start: float
    end: float


def train(device: torch.device, threads: int) -> None:
    """Step for ever; a line for each step. Ends with its reader."""
    torch.set_num_threads(threads)
    width = 4096 if device.type == "cuda" else 512
    block = torch.nn.TransformerEncoderLayer(width, 8, 4 * width, batch_first=True)
    model = torch.nn.TransformerEncoder(block, 4, enable_nested_tensor=False).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    x_BTD = torch.randn(8, 64, width, device=device)
    while True:
        start = time.monotonic()
        loss = (model(x_BTD) - x_BTD).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the device
        say(Span(start=start, end=time.monotonic()))


def diagnose(folder: Path, device: str) -> None:
    """Measure once for each line of standard input; a line for each measurement."""
    from nptwatch.settings import Settings
    from nptwatch.store.engine import utc_now
    from nptwatch.worker.gpu import GpuDiagnoser

    os.nice(NICENESS)
    settings = Settings.model_validate(
        {
            "state_dir": folder / "state",
            "base": {"model": str(folder / "base"), "local_files_only": True},
            "worker": {"device": device},
            "gpu": {"min_free_gpu_mib": 0, "lock_dir": folder},
        }
    )
    diagnoser = GpuDiagnoser(settings, utc_now)
    weights = folder / "npt_weights.pt"
    claim = claim_of(weights)
    while True:
        start = time.monotonic()
        diagnoser.base_revision(claim)
        diagnoser.measure(claim, weights)
        say(Span(start=start, end=time.monotonic()))
        if not sys.stdin.readline():
            return


def claim_of(weights: Path) -> Any:
    """A quick job of one file."""
    from nptwatch.settings import QUICK
    from nptwatch.store.records import Claim

    return Claim(
        job_id=1,
        checkpoint_id=1,
        run_id=1,
        run_path=str(weights.parent),
        run_name="run",
        run_root=str(weights.parent),
        paths=(str(weights),),
        fingerprint="f",
        step=1,
        mtime_ns=0,
        base_model=None,
        profile=QUICK,
        settings_hash="h",
        attempts=0,
        kept_by=None,
    )


def say(span: Span) -> None:
    """Write a line."""
    print(json.dumps([span.start, span.end]), flush=True)


class Child:
    """This script in another part."""

    def __init__(self, folder: Path, part: str, *arguments: str) -> None:
        self.out = folder / f"{part}.log"
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--part", part, *arguments],
                stdin=subprocess.PIPE,
                stdout=out,
            )

    def spans(self) -> list[Span]:
        """What it has noted."""
        lines = [line for line in self.out.read_text().splitlines(keepends=True) if "]\n" in line]
        pairs = [json.loads(line) for line in lines if line.startswith("[")]
        return [Span(start=start, end=end) for start, end in pairs]

    def wait_for(self, count: int) -> None:
        """Wait until it has noted so many."""
        while len(self.spans()) < count:
            if self.process.poll() is not None:
                raise SystemExit(f"{self.out.stem} ended with {self.process.returncode}")
            time.sleep(0.05)

    def go(self) -> None:
        """Have it do its part once more."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


def mean_step(steps: Sequence[Span], windows: Sequence[Span]) -> float:
    """Seconds of a step, of those that lie in a window."""
    return fmean(
        step.end - step.start
        for step in steps
        if any(window.start <= step.start and step.end <= window.end for window in windows)
    )


def overlapping(steps: Sequence[Span], measured: Sequence[Span]) -> list[Span]:
    """Those steps during which something was measured."""
    return [s for s in steps if any(m.start < s.end and s.start < m.end for m in measured)]


def run(options: argparse.Namespace, folder: Path, device: torch.device) -> int:
    """Measure and print; 1 where training notices too much."""
    import tiny

    size, layers = options.hidden, options.layers
    tiny.llama(folder / "base", hidden=size, layers=layers)
    npt = [tiny.layer(index, rank=16) for index in range(layers - 4, layers)]
    tensors = tiny.weights(*npt, hidden=size, intermediate=3 * size)
    tiny.save(folder / "npt_weights.pt", tensors)
    cores = len(os.sched_getaffinity(0))
    training = Child(folder, "train", "--device", str(device), "--threads", str(cores - cores // 2))
    worker = Child(folder, "diagnose", "--folder", str(folder), "--device", str(device))
    quiet: list[Span] = []
    busy: list[Span] = []
    try:
        worker.wait_for(1)
        training.wait_for(5)
        time.sleep(SETTLE_SECONDS)
        for _ in range(options.rounds):
            quiet.append(window(options.seconds))
            busy.append(window(options.seconds, worker, options.every))
        steps, measured = training.spans(), worker.spans()[1:]
    finally:
        worker.close()
        training.close()
    before = mean_step(steps, quiet)
    # each window beside its neighbour, and the middle one of them: other work comes and goes
    ratios = [
        mean_step(steps, [b]) / mean_step(steps, [q]) for b, q in zip(busy, quiet, strict=True)
    ]
    beside = median(ratios)
    during = fmean(s.end - s.start for s in overlapping(steps, measured)) / before
    each = fmean(m.end - m.start for m in measured)
    print(
        f"  training step {before * 1e3:.1f} ms on {device}; {len(measured)} quick diagnostics of "
        f"{each:.2f} s, one every {options.every:g} s\n"
        f"  steps beside them : quiet steps = {beside:.3f} (aim < {AIM}; "
        f"{min(ratios):.3f} to {max(ratios):.3f} by window)\n"
        f"  steps that a diagnostic overlaps : quiet steps = {during:.3f}"
    )
    return int(beside >= AIM)


def window(seconds: float, worker: Child | None = None, every: float = 0.0) -> Span:
    """Let time pass, with or without measurements."""
    start = time.monotonic()
    while (left := start + seconds - time.monotonic()) > 0:
        if worker is not None:
            count = len(worker.spans())
            worker.go()
            worker.wait_for(count + 1)
            left = min(left, every)
        time.sleep(min(left, every or left))
    return Span(start=start, end=time.monotonic())


def main() -> int:
    """Run the part that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=["train", "diagnose"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each window")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between diagnostics")
    options = parser.parse_args()
    device = torch.device(options.device)
    if options.part == "train":
        train(device, options.threads)
    if options.part == "diagnose":
        diagnose(options.folder, options.device)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        return run(options, Path(scratch), device)


if __name__ == "__main__":
    sys.exit(main())
