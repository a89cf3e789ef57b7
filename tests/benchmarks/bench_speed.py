"""How fast and how small the diagnostics are, beside what the guide's scripts do: one table.

Reference: tests/plain_reference.py. Floor: tests/benchmarks/floor.py. Cold: a new process of the
real command with nothing kept of the base (and once more with it); warm: the diagnostic in memory,
as in a worker. Every time and every memory is of a process of its own; this one stays without
torch, as a child's peak memory counts from its parent's.

The shape is Llama-3.2-1B's where 14 GB of memory are free, else a small one, for which no goals
are set. It takes a quarter of an hour; `--shape small` one or two minutes, `--quick-only` half.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import one_b
from speed_table import Results, goals_missed, print_table

HERE = Path(__file__).resolve().parent


@dataclass(slots=True, kw_only=True)
class Runner:
    """Runs processes and keeps what they took, by name."""

    asked: argparse.Namespace
    folder: Path
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    peak_bytes: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def side(self, name: str, *arguments: str | Path) -> dict[str, Any]:
        """Run a side of the benchmark."""
        asked = self.asked
        begin: list[str | Path] = [sys.executable, HERE / "sides.py", "--device", asked.device]
        return self._run(name, [*begin, "--threads", str(asked.threads), *arguments], {})

    def command(self, name: str, verb: str, checkpoint: str, state_dir: Path) -> dict[str, Any]:
        """Run the real command."""
        weights = one_b.weights_of(self.folder, checkpoint)
        arguments: list[str | Path] = [
            verb,
            weights,
            "--model-name",
            self.folder / one_b.BASE,
            "--json",
        ]
        env = {
            "NPTWATCH_STATE_DIR": str(state_dir),
            "NPTWATCH_WORKER__DEVICE": self.asked.device,
            "NPTWATCH_WORKER__THREADS": str(self.asked.threads),
        }
        return self._run(name, [sys.executable, "-m", "nptwatch", *arguments], env)

    def _run(self, name: str, command: list[str | Path], env: dict[str, str]) -> dict[str, Any]:
        threads = {"OMP_NUM_THREADS": str(self.asked.threads)}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            started = perf_counter()
            process = subprocess.Popen(
                command, stdout=out, stderr=err, env=os.environ | threads | env
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                err.seek(0)
                sys.stderr.write(err.read().decode()[-2000:])
                raise SystemExit(f"{name}: exit code {process.returncode}")
            out.seek(0)
            found: dict[str, Any] = json.load(out)
        print(f"  {name}: {seconds:.1f} s, {usage.ru_maxrss * 1024 / 1e9:.2f} GB", file=sys.stderr)
        self.seconds[name].append(seconds)
        self.peak_bytes[name].append(usage.ru_maxrss * 1024)
        return found

    def results(self, warm: dict[str, Any]) -> Results:
        """Give the medians."""
        return Results(
            cold={name: statistics.median(each) for name, each in self.seconds.items()},
            peak_gb={name: statistics.median(each) / 1e9 for name, each in self.peak_bytes.items()},
            warm=warm,
        )


def measure(asked: argparse.Namespace, shape: one_b.Shape, folder: Path) -> Results:
    """Run everything, both sides in turn."""
    runner = Runner(asked=asked, folder=folder)
    profiles = ["quick"] if asked.quick_only else ["quick", "full"]
    for profile in profiles:
        for number in range(asked.rounds if profile == "quick" else asked.full_rounds):
            _both_sides(runner, profile, folder / f"state-{profile}-{number}")
    more = ["--quick-only"] if asked.quick_only else []
    sizes = ["--shape", shape.name, "--rounds", str(asked.warm_rounds)]
    warm = runner.side("warm", "warm", folder, *sizes, "--dtype", asked.dtype, *more)
    return runner.results(warm)


def _both_sides(runner: Runner, profile: str, state_dir: Path) -> None:
    """One round: the reference, and the command for the first time, and again."""
    weights = one_b.weights_of(runner.folder, one_b.POOR)
    base = runner.folder / one_b.BASE
    theirs = runner.side(f"reference {profile}", "reference", profile, base, weights)
    runner.command(f"{profile}, cold", profile, one_b.GOOD, state_dir)
    ours = runner.command(f"{profile}, again, draft refused", profile, one_b.POOR, state_dir)
    runner.command(f"{profile}, again", profile, one_b.GOOD, state_dir)
    _require_same(profile, ours, theirs)


def _require_same(profile: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Hold that both sides measured the same."""
    found = {"npt": ours["accuracy"]["individual_mse"]}
    if profile == "full":
        details = {test["test_name"]: test["details"] for test in ours["detailed_results"]}
        standard = details["NPT vs Standard Mode"]["individual_results"]
        alone = details["Per-Layer Performance"]["layer_results"]
        first = details["Progressive Layer Activation"]["progression_results"]
        found = {
            "npt": [each["mse"] for each in standard],
            "per_layer": [each["mse_loss"] for each in alone.values()],
            "progressive": [each["mse_loss"] for each in first.values()],
        }
    for test, numbers in found.items():
        for mine, other in zip(numbers, theirs[test], strict=True):
            assert abs(mine / other - 1) < 2e-3, f"{profile}, {test}: {mine} and {other}"


def _shape(name: str | None) -> one_b.Shape:
    """Take the big one if it fits."""
    if name is not None:
        return one_b.SHAPES[name]
    lines = Path("/proc/meminfo").read_text().splitlines()
    (free,) = (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    disk = shutil.disk_usage(tempfile.gettempdir()).free
    if free > one_b.ONE_B.memory_bytes and disk > one_b.ONE_B.disk_bytes:
        return one_b.ONE_B
    print("not enough memory or disk for the 1b shape: a small one")
    return one_b.SMALL


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed beside what the guide's scripts do.")
    parser.add_argument("--shape", choices=one_b.SHAPES, help="default: 1b where it fits")
    parser.add_argument("--quick-only", action="store_true", help="not the full diagnostic")
    parser.add_argument("--rounds", type=int, default=3, help="of whole processes, quick")
    parser.add_argument("--full-rounds", type=int, default=3, help="of whole processes, full")
    parser.add_argument("--warm-rounds", type=int, default=7, help="within the warm process")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every side")
    parser.add_argument("--device", default="cpu", help="of every side")
    parser.add_argument("--dtype", default="float32", help="of the warm diagnostics")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the numbers as JSON")
    parser.add_argument("--folder", type=Path, help="of an earlier run or of one_b.py; kept")
    return parser.parse_args()


def main() -> int:
    """Build, measure, print; 1 if a goal is missed."""
    asked = _asked()
    shape = _shape(asked.shape)
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        if not (folder / one_b.BASE / "config.json").exists():
            more = ["--no-grown"] if asked.quick_only else []
            make = [sys.executable, HERE / "one_b.py", folder, "--shape", shape.name, *more]
            subprocess.run(make, check=True, stderr=subprocess.DEVNULL)
        results = measure(asked, shape, folder)
        if asked.save:
            asked.save.write_text(results.as_json())
    print_table(results, shape, asked)
    missed = goals_missed(results) if shape is one_b.ONE_B else []
    for goal in missed:
        print(f"MISSED: {goal}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
