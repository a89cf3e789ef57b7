"""Warm quick diagnostic against the plain reference and against the floor, in one run.

Reference: what the guide's script does (fresh load of both models, one prompt at a time).
Floor: the bare matrix products over each needed weight, once, for the same tokens.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

import plain_reference
import tiny
import torch

from nptwatch.diagnostics.probes import QUICK_PROMPTS, tokenize
from nptwatch.diagnostics.quick import QuickDiagnostic
from nptwatch.diagnostics.reference import References
from nptwatch.npt.base import BaseModel, load_base
from nptwatch.npt.layout import infer_layout
from nptwatch.npt.modulation import stack_layers
from nptwatch.npt.reader import Checkpoint, read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

HIDDEN, LAYERS, VOCABULARY = 512, 8, 32_000
NPT_LAYERS = (5, 6, 7)


def read(weights: Path) -> Checkpoint:
    """Read a checkpoint, as the worker does each time."""
    return read_checkpoint(weights, max_bytes=2**32)


def median(work: Callable[[], object], runs: int) -> float:
    """Median wall time of several runs, in seconds."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def floor(base: BaseModel, weights: Path, rules: int) -> Callable[[], None]:
    """The products of the needed weights with as many tokens as are measured, and nothing else."""
    tokens = rules * sum(tokenize(base, QUICK_PROMPTS).lengths)
    checkpoint = read(weights)
    layout = infer_layout(checkpoint.shapes, base.shape)
    npt = stack_layers(layout, checkpoint.tensors, dtype=base.dtype, device=base.device)
    linear = [base.model.lm_head.weight.T]
    for layer in base.layers[min(npt) :]:
        linear += [m.weight.T for m in layer.modules() if isinstance(m, torch.nn.Linear)]
    for layer in npt.values():
        for part in (layer.gate, layer.up, layer.down):
            if part is not None:
                linear += [part.down_DJ, part.a_JX.T, part.b_JY]
    inputs = {w.shape[0]: torch.randn(tokens, w.shape[0]) for w in linear}

    @torch.inference_mode()
    def products() -> None:
        for weight in linear:
            inputs[weight.shape[0]] @ weight

    return products


def main() -> None:
    """Build the base, measure, print."""
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as scratch:
        folder = tiny.llama(
            Path(scratch) / "base",
            hidden=HIDDEN,
            layers=LAYERS,
            vocab_size=VOCABULARY,
            num_attention_heads=8,
        )
        layers = [tiny.layer(i, rank=64) for i in NPT_LAYERS]
        tensors = tiny.weights(*layers, hidden=HIDDEN, intermediate=3 * HIDDEN)
        weights = tiny.save(Path(scratch) / "npt_weights.pt", tensors)
        base = load_base(str(folder), local_files_only=True)
        references = References(base=base, folder=Path(scratch) / "cache")
        quick = {
            rule: QuickDiagnostic(references=references, residual=rule) for rule in ("keep", "auto")
        }
        result = quick["keep"].measure(read(weights))
        plain = plain_reference.quick(folder, weights, QUICK_PROMPTS, drop=False)
        assert all(
            abs(ours.mse / theirs - 1) < 1e-4
            for ours, theirs in zip(result.scores, plain, strict=True)
        )
        reference = median(
            lambda: plain_reference.quick(folder, weights, QUICK_PROMPTS, drop=False), 5
        )
        warm = median(lambda: quick["keep"].measure(read(weights)), 30)
        auto = median(lambda: quick["auto"].measure(read(weights)), 30)
        bare = median(floor(base, weights, rules=1), 30)
        bare_auto = median(floor(base, weights, rules=2), 30)
        size = weights.stat().st_size / 2**20
    print(f"hidden {HIDDEN}, {LAYERS} layers, vocabulary {VOCABULARY}, NPT layers {NPT_LAYERS},")
    print(
        f"checkpoint {size:.1f} MiB, float32, 2 threads; medians; base computed "
        f"{references.computed} time"
    )
    print(f"  plain reference (fresh load, one prompt at a time) {reference * 1e3:9.1f} ms")
    print(f"  warm quick, residual keep (reading included)       {warm * 1e3:9.1f} ms")
    print(f"  warm quick, residual auto (both rules)             {auto * 1e3:9.1f} ms")
    print(f"  floor: the same matrix products alone              {bare * 1e3:9.1f} ms")
    print(f"  floor for both rules                               {bare_auto * 1e3:9.1f} ms")
    print(f"  reference : ours   keep {reference / warm:.1f}   auto {reference / auto:.1f}")
    print(f"  ours : floor       keep {warm / bare:.2f}  auto {auto / bare_auto:.2f}   (aim < 2)")


if __name__ == "__main__":
    main()
