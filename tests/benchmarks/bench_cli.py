"""How long the command takes: `python tests/benchmarks/bench_cli.py`.

The budget of `--help` and `status` is 0.4 s. Wall time of whole processes, median of ten, files
cached; the database holds 20 runs of 50 measured checkpoints.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from stocking import QUICK, measured, no_alerts, whole

from nptwatch.service.build import open_stores
from nptwatch.settings import Settings

BUDGET_SECONDS = {"--help": 0.4, "status": 0.4}
ROUNDS = 10
RUNS, STEPS = 20, 50
VERBS = (
    ["--version"],
    ["--help"],
    ["status"],
    ["status", "--json"],
    ["runs"],
    ["history", "run-7"],
    ["jobs"],
    ["config", "check"],
)


def fill(state_dir: Path) -> None:
    """Make a database as after some weeks."""
    stores = open_stores(Settings(state_dir=state_dir), migrate=True)
    for run in range(RUNS):
        for step in range(STEPS):
            stores.catalog.admit(whole(f"run-{run}", step), QUICK)
            claim = stores.queue.claim("w", lease_seconds=60)
            assert claim is not None
            grade, mse = ("GOOD", 0.07) if step % 2 else ("FAIR", 0.3)
            stores.queue.finish(claim, "w", measured(grade, mse), no_alerts)
    stores.close()


def seconds(arguments: list[str], env: dict[str, str]) -> float:
    """Time one call."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "nptwatch", *arguments],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - started


def main() -> int:
    """Print the times; 1 if one is over its budget."""
    over = 0
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"NPTWATCH_STATE_DIR": folder}
        fill(Path(folder))
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        for arguments in VERBS:
            times = sorted(seconds(arguments, env) for _ in range(ROUNDS))
            median, budget = statistics.median(times), BUDGET_SECONDS.get(" ".join(arguments))
            text = "" if budget is None else f"  budget {budget} s"
            if budget is not None and median > budget:
                text += "  OVER"
                over += 1
            name = "nptwatch " + " ".join(arguments)
            print(f"{name:<26} median {median:.3f} s, fastest {times[0]:.3f} s{text}")
    return int(over > 0)


if __name__ == "__main__":
    sys.exit(main())
