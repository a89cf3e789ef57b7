"""Peak memory and time of `nptwatch quick` with layers streamed and resident, cold and known.

Each run is a process of its own, and its peak is the kernel's figure (VmHWM). The base is written
to a temporary folder (2.5 GB at the 1B shape) and removed. "first" computes the base's own streams
too; "next" finds them in the state folder, as every later checkpoint does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import one_b

LIMIT_BYTES = 2e9
COMMAND = Path(sys.executable).with_name("nptwatch")


def quick(weights: Path, base: Path, env: dict[str, str]) -> tuple[float, int, float]:
    """Run the command; give its seconds, its peak memory in bytes, and the MSE."""
    started = time.perf_counter()
    with subprocess.Popen(
        [COMMAND, "quick", weights, "--model-name", base, "--device", "cpu", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **env},
    ) as process:
        assert process.stdout is not None
        report = json.loads(process.stdout.read())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    return seconds, usage.ru_maxrss * 1024, float(report["accuracy"]["avg_mse"])


def main() -> int:
    """Build, measure, print; 1 if a streamed run takes 2 GB."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=one_b.SHAPES, default=one_b.ONE_B.name)
    shape = one_b.SHAPES[parser.parse_args().shape]
    worst = 0
    print(
        f"hidden {shape.hidden}, {shape.layers} layers, vocabulary {shape.vocabulary}, tied, "
        f"bfloat16 file;\nNPT layers {shape.npt_layers}, rank {shape.rank} x {shape.num_ranks}"
    )
    print("  computed in  layers     run       peak MB     s   MSE")
    with tempfile.TemporaryDirectory() as scratch:
        # in a process of its own: what this one has had in memory counts in its children's peak
        maker = [sys.executable, one_b.__file__, scratch, "--shape", shape.name, "--no-grown"]
        subprocess.run(maker, check=True, stderr=subprocess.DEVNULL)
        base, weights = Path(scratch) / one_b.BASE, one_b.weights_of(Path(scratch), one_b.POOR)
        for dtype in ("float32", "bfloat16"):
            for layers in ("streamed", "resident"):
                env = {
                    "NPTWATCH_STATE_DIR": str(Path(scratch) / f"{dtype}-{layers}"),
                    "NPTWATCH_BASE__DTYPE": dtype,
                    "NPTWATCH_BASE__LAYERS": layers,
                }
                for run in ("first", "next"):
                    seconds, peak, mse = quick(weights, base, env)
                    worst = max(worst, peak if layers == "streamed" else 0)
                    print(
                        f"  {dtype:12} {layers:10} {run:7} {peak / 1e6:9.0f} {seconds:5.1f}   {mse:.6g}",
                        flush=True,
                    )
    print(f"  most, streamed: {worst / 1e6:.0f} MB (aim < {LIMIT_BYTES / 1e6:.0f})")
    return int(worst >= LIMIT_BYTES)


if __name__ == "__main__":
    sys.exit(main())
