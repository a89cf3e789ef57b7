"""The real daemon let loose on a run as the original trainer left it, and on a live trainer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tiny

from nptwatch.npt.layout import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
EXPECTED = json.loads((GOLDEN / "run" / "expected.json").read_text())


class Installation:
    """A settings file, its state folder and its experiments, driven through the command alone."""

    def __init__(self, folder: Path) -> None:
        self.experiments = folder / "experiments"
        self.config = folder / "nptwatch.toml"
        self.alerts = folder / "alerts.jsonl"
        self.log = folder / "daemon.log"
        self.config.write_text(
            f"""
            state_dir = "state"
            [watch]
            roots = ["experiments"]
            settle_seconds = 0.5
            rescan_seconds = 2
            [base]
            model = "{GOLDEN / "base"}"
            local_files_only = true
            [worker]
            device = "cpu"
            retry_delay_seconds = 0.2
            [channels.file]
            type = "command"
            command = ["/bin/sh", "-c", "cat >> {self.alerts}; echo >> {self.alerts}"]
            """
        )

    def command(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run nptwatch with these settings."""
        return subprocess.run(
            [sys.executable, "-m", "nptwatch", *args, "--config", str(self.config)],
            capture_output=True,
            text=True,
            check=check,
            timeout=120,
        )

    def json(self, *args: str) -> Any:
        """Return what a verb prints with --json; None while it has nothing to read."""
        done = self.command(*args, "--json", check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    @contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the daemon; stop it as systemd would, and see it end well."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "nptwatch", "run", "--config", str(self.config)], stderr=log
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            code = process.wait(60)
        assert code in {0, -signal.SIGKILL}, self.log.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """What the daemon logged under a name."""
        lines = self.log.read_text().splitlines()
        return [event for line in lines if (event := json.loads(line))["event"] == name]

    def done(self, run: str) -> dict[str, dict[str, Any]]:
        """The measured checkpoints of a run, by folder name."""
        rows = self.json("history", run) or []
        return {Path(row["path"]).parent.name: row for row in rows if row["state"] == "done"}


def until(condition: Callable[[], object], seconds: float = 90) -> None:
    """Poll a condition that another process brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


@pytest.fixture
def place(tmp_path: Path) -> Installation:
    """Return a fresh installation."""
    return Installation(tmp_path)


def test_the_golden_run_is_recorded_once_with_its_numbers(place: Installation) -> None:
    """Each content once, best/ and final/ known as twins of step 400, numbers as expected.json."""
    shutil.copytree(GOLDEN / "run" / "experiments", place.experiments)
    before = {p: p.stat().st_mtime_ns for p in place.experiments.rglob("*")}
    with place.daemon():
        until(lambda: len(place.done("equivalence")) == 4)
        until(lambda: len(place.events("checkpoint_twin")) == 2)
    rows = place.json("history", "equivalence")
    assert [row["step"] for row in rows] == [100, 200, 300, 400]
    for row in rows:
        wanted = EXPECTED[f"checkpoint-{row['step']}"]
        assert row["mse"] == pytest.approx(wanted["avg_mse"], rel=1e-4)
        assert row["cosine"] == pytest.approx(wanted["avg_cosine_similarity"], rel=1e-4)
        assert (row["grade"], row["profile"], row["attempts"]) == ("FAIR", "quick", 0)
    assert {Path(path).parent.name for path in rows[3]["also"]} == {"best", "final"}
    status = place.json("status")
    assert status["queue"]["done"] == 4
    (run,) = place.json("runs")
    assert (run["run"], run["step"], run["grade"]) == ("equivalence", 400, "FAIR")
    assert not place.alerts.exists()
    after = {p: p.stat().st_mtime_ns for p in place.experiments.rglob("*")}
    assert after == before  # nothing of the trainer's was touched, nothing added

    with place.daemon():  # a restart repeats nothing
        until(lambda: len(place.events("worker_ready")) == 2)
        touched = place.experiments / "equivalence/checkpoints/checkpoint-200/npt_weights.pt"
        os.utime(touched)  # nor does a touched file
        os.utime(touched.parent / "training_state.pt")
        shutil.copytree(place.experiments / "equivalence", place.experiments / "copied")
        until(lambda: len(place.done("copied")) == 4)
    assert len(place.events("job_claimed")) == 8
    assert [row["result_id"] for row in place.json("history", "copied")] == [
        row["result_id"] for row in rows
    ]


def test_without_a_daemon_scan_and_worker_measure_what_is_there(place: Installation) -> None:
    """`scan --once` and `worker --until-empty` leave the numbers that the daemon leaves."""
    shutil.copytree(GOLDEN / "run" / "experiments", place.experiments)
    refused = place.command("worker", "--until-empty", check=False)
    assert (refused.returncode, "no database yet" in refused.stderr) == (5, True)
    place.command("scan", "--once")

    worked = place.command("worker", "--workers", "2", "--until-empty", "--max-minutes", "2")

    assert "worker_found_nothing_queued" in worked.stderr
    measured = place.done("equivalence")
    assert {name: round(row["mse"], 4) for name, row in measured.items()} == {
        name: round(EXPECTED[name]["avg_mse"], 4) for name in measured
    }
    assert len(measured) == 4


def test_a_run_that_gets_good_raises_one_alert_through_crashes(place: Installation) -> None:
    """POOR, then GOOD or better, with worker and daemon killed in between: one alert, no loss."""
    run = place.experiments / "run" / "checkpoints"
    poor = tiny.weights(tiny.layer(3, Kind.SINGLE), hidden=64, intermediate=192, scale=5.0)
    with place.daemon() as daemon:
        tiny.save(run / "checkpoint-1" / "npt_weights.pt", poor)
        until(lambda: "checkpoint-1" in place.done("run"))
        (worker,) = place.json("status")["workers"]
        os.kill(worker["pid"], signal.SIGKILL)
        until(lambda: len(place.events("worker_ready")) == 2)
        tiny.save(run / "checkpoint-2" / "npt_weights.pt", tiny.distilled(GOLDEN / "base", 0.085))
        until(lambda: place.events("checkpoint_queued")[-1]["step"] == 2)
        daemon.send_signal(signal.SIGKILL)
        daemon.wait(30)
    with place.daemon():
        until(lambda: "checkpoint-2" in place.done("run"))
        until(place.alerts.exists)
        assert place.command("wait", "run", "--until", "good", "--timeout", "30").returncode == 0
        failed = place.command("wait", "run", "--until", "excellent", "--timeout", "0", check=False)
        assert failed.returncode == 1
    grades = {name: row["grade"] for name, row in place.done("run").items()}
    assert grades == {"checkpoint-1": "POOR", "checkpoint-2": "GOOD"}
    (alert,) = (json.loads(line) for line in place.alerts.read_text().splitlines() if line)
    assert (alert["kind"], alert["run"], alert["step"]) == ("reached_good", "run", 2)
    assert (alert["old"], alert["new"]) == ("POOR", "GOOD")
    assert alert["mse"] < 0.1
