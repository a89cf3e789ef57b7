"""Where the time of warm diagnostics goes, part by part: each second counted once.

python tests/benchmarks/where_time_goes.py FOLDER [--checkpoint good]

FOLDER is what one_b.py writes. Functions are wrapped while it runs; what a part calls and is a part
itself is taken off it. "the rest" is what no part holds: Python, mostly.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import one_b
import torch
from floor import Floor, overheard
from sides import Warm

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS = {
    "reading: fingerprint": ("nptwatch.npt.reader", "fingerprint"),
    "reading: CRC": ("nptwatch.npt.reader", "check_crc"),
    "reading: torch.load": ("torch", "load"),
    "reading: the rest": ("nptwatch.npt.reader", "read_checkpoint"),
    "values finite": ("nptwatch.npt.reader", "Checkpoint.first_non_finite"),
    "names and shapes": ("nptwatch.npt.layout", "infer_layout"),
    "stacking": ("nptwatch.npt.modulation", "_stack"),
    "tokenizing": ("nptwatch.diagnostics.probes", "tokenize"),
    "reference asked": ("nptwatch.diagnostics.reference", "References.of"),
    "base's logits": ("nptwatch.diagnostics.reference", "Reference.sides"),
    "plan": ("nptwatch.diagnostics.plan", "make_plan"),
    "layers: attention": ("nptwatch.npt.attention", "attend"),
    "layers: NPT deltas": ("nptwatch.npt.modulation", "Modulation.delta"),
    "layers: the rest (norms, adding deltas)": ("nptwatch.npt.modulation", "layer_parts"),
    "layers: base projections": ("torch.nn", "Linear.forward"),
    "walk: gather": ("nptwatch.diagnostics.walk", "Walk._inputs"),
    "walk: sum and keep": ("nptwatch.diagnostics.walk", "Walk._keep"),
    "walk: NaN": ("nptwatch.diagnostics.walk", "Walk._note_non_finite"),
    "walk: local errors": ("nptwatch.diagnostics.walk", "Walk._probe"),
    "head": ("nptwatch.npt.base", "BaseModel.head"),
    "metrics": ("nptwatch.diagnostics.metrics", "score_prompt"),
    "logits finite": ("nptwatch.npt.finite", "all_finite"),
    "drawing: noise": ("nptwatch.diagnostics.generation", "Draw._noise"),
    "drawing: the rest": ("nptwatch.diagnostics.generation", "Draw.choose"),
    "step by step decoding": ("nptwatch.diagnostics.generation", "generate"),
}

WHOLE = {"head"}
"""Parts that keep what they call: the head is a projection, too."""


class Clock:
    """Counts each second for the innermost part that runs."""

    def __init__(self) -> None:
        self._whole = False
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inner: list[float] = []

    def wrapped(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Give a function that counts."""

        def counted(*arguments: Any, **more: Any) -> Any:
            if self._whole:
                return work(*arguments, **more)
            self._inner.append(0.0)
            self._whole = name in WHOLE
            started = time.perf_counter()
            try:
                return work(*arguments, **more)
            finally:
                self._whole = False
                took = time.perf_counter() - started
                self.seconds[name] += took - self._inner.pop()
                self.calls[name] += 1
                if self._inner:
                    self._inner[-1] += took

        return counted


def watched(stack: ExitStack, clock: Clock) -> None:
    """Wrap every part, wherever its name is imported."""
    for name, (module_name, path) in PARTS.items():
        owner: Any = sys.modules[module_name]
        *classes, last = path.split(".")
        for each in classes:
            owner = getattr(owner, each)
        work = getattr(owner, last)
        counted = clock.wrapped(name, work)
        stack.enter_context(mock.patch.object(owner, last, counted))
        for module in list(sys.modules.values()):
            if module.__name__.startswith("nptwatch.") and module.__dict__.get(last) is work:
                stack.enter_context(mock.patch.object(module, last, counted))


def report(what: str, work: Callable[[], Any], rounds: int) -> None:
    """Print the parts of a piece of work, the mean of some rounds."""
    work()
    clock = Clock()
    with ExitStack() as stack:
        watched(stack, clock)
        total = clock.wrapped("the rest", work)
        started = time.perf_counter()
        for _ in range(rounds):
            total()
        seconds = (time.perf_counter() - started) / rounds
    print(f"\n{what}: {seconds * 1e3:.0f} ms, load average {os.getloadavg()[0]:.1f}")
    for name, took in sorted(clock.seconds.items(), key=lambda item: -item[1]):
        share = took / rounds / seconds
        if share > 0.002:
            calls = clock.calls[name] // rounds
            print(f"  {name:42}{took / rounds * 1e3:9.1f} ms{share:7.1%}{calls:7} calls")


def report_floor(measure: Callable[[], Any], rounds: int) -> None:
    """Print what the products alone take, layer by layer and the head."""
    with overheard() as asked:
        measure()
    floor = Floor(asked)
    bare = floor.work()
    bare()
    started = time.perf_counter()
    for _ in range(rounds):
        bare()
    seconds = (time.perf_counter() - started) / rounds
    print(
        f"  floor: {seconds * 1e3:.0f} ms for {floor.weight_bytes / 1e9:.2f} GB of weights "
        f"({floor.weight_bytes / 1e9 / seconds:.1f} GB/s) and {floor.operations / 1e9:.0f} GFLOP "
        f"({floor.operations / 1e9 / seconds:.0f} GFLOP/s)"
    )
    by_shape: dict[tuple[int, int, int], int] = defaultdict(int)
    for weight, tokens in floor.products:
        by_shape[weight.shape[0], weight.shape[1], tokens] += 1
    for (wide, high, tokens), times in sorted(by_shape.items(), key=lambda i: -i[0][0] * i[0][1]):
        print(f"    {times:3} x ({tokens},{wide}) @ ({wide},{high})")


def main() -> None:
    """Print the parts of warm quick and warm full."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", default=one_b.GOOD, help="good, poor or grown-<layers>")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as state_dir:
        side = Warm(asked.folder, Path(state_dir), asked)
        name = asked.checkpoint
        quick, full = side.quick_diagnostic("auto"), side.full_diagnostic()
        for what, diagnostic in (("quick", quick), ("full", full)):

            def measure(diagnostic: Any = diagnostic) -> None:
                diagnostic.measure(side.read(name))

            report(f"warm {what}, {name}, {torch.get_num_threads()} threads", measure, asked.rounds)
            report_floor(measure, asked.rounds)


if __name__ == "__main__":
    main()
