"""The real daemon: watcher, SQLite, workers and alerts, in real processes that are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from contextlib import closing
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from serving import DaemonProcess, Place, is_running, times_measured
from watching import until

from nptwatch.store.records import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nptwatch.settings import Settings

    Start = Callable[..., DaemonProcess]

LONG = 30.0

NOTE = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read())"
FAIL_FIRST = (
    "import pathlib, sys; said = sys.stdin.read(); first = pathlib.Path(sys.argv[1] + '.first');\n"
    "if not first.exists(): first.touch(); sys.exit('mail server is down')\n"
    "open(sys.argv[1], 'a').write(said)"
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A fresh place."""
    place = Place(tmp_path)
    yield place
    place.close()


@pytest.fixture
def start(place: Place) -> Iterator[Start]:
    """Starts daemons in that place and ends them after the test."""
    daemons: list[DaemonProcess] = []

    def start(settings: Settings | None = None, **more: str) -> DaemonProcess:
        daemons.append(DaemonProcess(place, settings or place.settings(), **more))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.close()


def noting(tmp_path: Path, program: str = NOTE) -> dict[str, object]:
    """Channel settings with a command that appends the event to a file."""
    return command([sys.executable, "-S", "-c", program, str(tmp_path / "alerts")])


def command(argv: list[str]) -> dict[str, object]:
    """Channel settings with one command."""
    return {"command": {"type": "command", "command": argv, "timeout_seconds": 50.0}}


def alerts(tmp_path: Path) -> list[dict[str, object]]:
    """The events that the command got."""
    path = tmp_path / "alerts"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_checkpoint_is_found_measured_recorded_and_told(
    place: Place, start: Start, tmp_path: Path
) -> None:
    """Backlog and newcomers get one result each, a change to GOOD one alert; SIGTERM exits 0."""
    first = place.checkpoint(100, mse=0.7, cosine=0.7)
    daemon = start(place.settings(channels=noting(tmp_path)))
    until(lambda: place.graded() == {100: "POOR"}, seconds=LONG)
    second = place.checkpoint(200, mse=0.08)
    until(lambda: alerts(tmp_path), seconds=LONG)

    assert place.graded() == {100: "POOR", 200: "GOOD"}
    assert [times_measured(first), times_measured(second)] == [1, 1]
    (alert,) = alerts(tmp_path)
    assert (alert["kind"], alert["run"], alert["step"]) == ("reached_good", "run1", 200)
    assert (alert["old"], alert["new"], alert["mse"]) == ("POOR", "GOOD", 0.08)
    assert daemon.wait_for("alert_raised")["event_id"] == alert["event_id"]
    change = daemon.wait_for("status_changed", times=2)
    assert {key: change[key] for key in ("run", "step", "old", "new", "mse", "cosine")} == {
        "run": "run1",
        "step": 200,
        "old": "POOR",
        "new": "GOOD",
        "mse": 0.08,
        "cosine": 0.99,
    }
    worker = daemon.worker_pid()
    assert daemon.stop() == 0
    assert not is_running(worker)
    assert {row.state for row in place.stores.workers.rows()} == {"stopped"}


def test_a_restart_repeats_nothing_and_tells_nothing_twice(
    place: Place, start: Start, tmp_path: Path
) -> None:
    """What was done stays done: no second measurement, no second alert."""
    settings = place.settings(channels=noting(tmp_path))
    done = place.checkpoint(100, mse=0.08)
    daemon = start(settings)
    until(lambda: alerts(tmp_path), seconds=LONG)
    daemon.stop()
    assert place.stores.outbox.pending() == 0
    new = place.checkpoint(200, mse=0.07)

    start(settings)

    until(lambda: 200 in place.graded(), seconds=LONG)
    assert [times_measured(done), times_measured(new)] == [1, 1]
    assert len(alerts(tmp_path)) == 1


def test_a_killed_worker_is_replaced_and_its_job_measured_again(place: Place, start: Start) -> None:
    """SIGKILL mid-job: the job comes back at once, counted as a crash, and is recorded once."""
    weights = place.checkpoint(100, do="block", mse=0.08)
    daemon = start()
    until(lambda: times_measured(weights) == 1, seconds=LONG)
    os.kill(daemon.worker_pid(), signal.SIGKILL)
    until(lambda: times_measured(weights) == 2, seconds=LONG)
    (weights.parent / "go").touch()
    until(lambda: place.graded() == {100: "GOOD"}, seconds=LONG)

    assert place.job(100).attempts_by_cause == {"crash": 1}
    assert daemon.wait_for("worker_crashed")["ended"] == "SIGKILL"
    assert times_measured(weights) == 2
    assert daemon.stop() == 0


def test_a_killed_daemon_takes_its_worker_along_and_loses_nothing(
    place: Place, start: Start, tmp_path: Path
) -> None:
    """SIGKILL of the daemon ends the worker; the next daemon goes on, repeating nothing done."""
    settings = place.settings(worker={"shutdown_seconds": 0.5}, channels=noting(tmp_path))
    done = place.checkpoint(100, mse=0.08)
    daemon = start(settings)
    until(lambda: alerts(tmp_path), seconds=LONG)
    running = place.checkpoint(200, do="block", mse=0.03)
    until(lambda: times_measured(running) == 1, seconds=LONG)
    worker = daemon.worker_pid()
    daemon.send(signal.SIGKILL)
    until(lambda: not is_running(worker), seconds=LONG)
    until(lambda: place.job_state(200) == JobState.QUEUED, seconds=LONG)
    assert place.job(200).attempts == 0

    (running.parent / "go").touch()
    start(settings)

    until(lambda: len(alerts(tmp_path)) == 2, seconds=LONG)
    assert place.graded() == {100: "GOOD", 200: "EXCELLENT"}
    assert [times_measured(done), times_measured(running)] == [1, 2]
    assert [alert["kind"] for alert in alerts(tmp_path)] == ["reached_good", "reached_excellent"]


def test_a_checkpoint_that_kills_every_worker_is_quarantined(place: Place, start: Start) -> None:
    """After `max_attempts` crashes it is failed with the cause, and the others get done."""
    poison = place.checkpoint(300, do="kill")
    place.checkpoint(100, mse=0.4)
    place.checkpoint(200, mse=0.3)
    daemon = start(place.settings(worker={"max_attempts": 2}))
    until(lambda: place.job_state(300) == JobState.FAILED, seconds=LONG)
    until(lambda: place.graded() == {100: "FAIR", 200: "FAIR"}, seconds=LONG)

    job = place.job(300)
    assert (job.attempts, job.attempts_by_cause) == (2, {"crash": 2})
    assert "SIGKILL" in (job.reason or "")
    assert times_measured(poison) == 2
    assert daemon.stop() == 0


def test_dying_while_loading_the_base_blames_no_checkpoint(place: Place, start: Start) -> None:
    """A machine too small for the base must not quarantine the queue, one job after the other."""
    weights = place.checkpoint(100, base="kill", mse=0.08)
    daemon = start(place.settings(worker={"max_attempts": 1}))
    daemon.wait_for("worker_crashed", times=2)
    until(lambda: place.job_state(100) == JobState.QUEUED, seconds=LONG)
    assert place.job(100).attempts == 0
    (weights.parent / "plan.json").write_text(json.dumps({"mse": 0.08}))

    until(lambda: place.graded() == {100: "GOOD"}, seconds=LONG)
    assert times_measured(weights) == 1


def test_errors_that_nobody_foresaw_are_quarantined_too(place: Place, start: Start) -> None:
    """An exception counts against its checkpoint, with its text as the reason."""
    place.checkpoint(300, do="raise")
    place.checkpoint(100, mse=0.4)
    daemon = start()
    until(lambda: place.job_state(300) == JobState.FAILED, seconds=LONG)
    until(lambda: place.graded() == {100: "FAIR"}, seconds=LONG)

    assert "ValueError: the plan says so" in (place.job(300).reason or "")
    assert place.job(300).attempts_by_cause == {"error": 3}
    assert daemon.wait_for("job_quarantined")["step"] == 300


def test_running_out_of_memory_is_not_counted(place: Place, start: Start) -> None:
    """The job waits and is tried again; the checkpoint is not blamed."""
    weights = place.checkpoint(100, do="memory", mse=0.08)
    daemon = start()
    daemon.wait_for("out_of_memory")
    (weights.parent / "go").touch()
    until(lambda: place.graded() == {100: "GOOD"}, seconds=LONG)

    assert place.job(100).attempts == 0
    assert daemon.stop() == 0


def damage(weights: Path, *, age_seconds: float = 3600.0) -> None:
    """Flip a bit of tensor data, long ago."""
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    at = time.time() - age_seconds
    os.utime(weights, (at, at))


def test_a_damaged_checkpoint_is_told_and_measured_once_it_is_repaired(
    place: Place, start: Start
) -> None:
    """Unloadable with the reason, the loop goes on; the same bytes written anew are measured."""
    weights = place.checkpoint(100, mse=0.08)
    sound = weights.read_bytes()
    damage(weights)
    place.checkpoint(50, mse=0.4)
    daemon = start()
    until(lambda: place.job_state(100) == JobState.UNLOADABLE, seconds=LONG)
    until(lambda: place.graded() == {50: "FAIR"}, seconds=LONG)
    assert "CRC" in (place.history()[100].reason or "")
    assert daemon.wait_for("checkpoint_unloadable")["step"] == 100

    weights.write_bytes(sound)

    until(lambda: place.graded() == {50: "FAIR", 100: "GOOD"}, seconds=LONG)
    assert daemon.stop() == 0


def test_a_sound_copy_is_measured_though_another_is_damaged(place: Place, start: Start) -> None:
    """Old checkpoint-400/ has a flipped bit, final/ is well: the step gets its grade."""
    weights = place.checkpoint(400, mse=0.08)
    final = weights.parent.with_name("final")
    shutil.copytree(weights.parent, final)
    damage(weights)

    start()

    until(lambda: place.graded() == {400: "GOOD"}, seconds=LONG)
    assert place.history()[400].also == (str(final / weights.name),)


def test_a_checkpoint_that_is_renamed_while_it_is_measured_is_not_lost(
    place: Place, start: Start
) -> None:
    """Its worker finds it gone, but the watcher found it again: measured under its new name."""
    weights = place.checkpoint(100, do="block", mse=0.08)
    daemon = start()
    until(lambda: times_measured(weights) == 1, seconds=LONG)
    old, new = weights.parent, weights.parent.with_name("kept")
    (old / "plan.json").write_text(json.dumps({"mse": 0.08}))
    old.rename(new)
    until(lambda: [row.path for row in place.history().values()] == [str(new / weights.name)])
    old.mkdir()
    (old / "go").touch()

    until(lambda: place.graded() == {100: "GOOD"}, seconds=LONG)
    assert daemon.wait_for("checkpoint_moved")["step"] == 100
    assert times_measured(new / weights.name) == 2


def test_what_was_asked_by_other_settings_is_asked_again_and_measured_once(
    place: Place, start: Start
) -> None:
    """A restart with another residual rule leaves no job, and no result, of the old one behind."""
    weights = place.checkpoint(100, do="block", mse=0.08)
    daemon = start(place.settings(worker={"shutdown_seconds": 0.2}))
    until(lambda: times_measured(weights) == 1, seconds=LONG)
    daemon.stop()
    assert place.job_state(100) == JobState.QUEUED
    (weights.parent / "plan.json").write_text(json.dumps({"mse": 0.08}))
    settings = place.settings(diagnostic={"residual": "drop"})

    start(settings)

    until(lambda: place.graded() == {100: "GOOD"}, seconds=LONG)
    jobs = {job.state: job for job in place.stores.queue.jobs()}
    assert set(jobs) == {JobState.DONE, JobState.SUPERSEDED}
    assert "other settings" in (jobs[JobState.SUPERSEDED].reason or "")
    assert times_measured(weights) == 2


def test_one_scan_at_start_and_then_one_in_each_interval(place: Place, start: Start) -> None:
    """Watcher and chore both see to scans and do not add up; alone it would wait 3.75 s."""
    place.checkpoint(100, mse=0.08)
    daemon = start(place.settings(log={"level": "debug"}, watch={"rescan_seconds": 3.0}))
    daemon.wait_for("scan_finished", times=3)

    at = [datetime.fromisoformat(scan["timestamp"]) for scan in daemon.log("scan_finished")]
    pauses = [(later - earlier).total_seconds() for earlier, later in pairwise(at)]
    assert all(2.3 < pause < 3.7 for pause in pauses), pauses


def test_an_alert_command_that_hangs_holds_up_no_log(place: Place, start: Start) -> None:
    """Each channel has a turn of its own: a second run's alert is logged meanwhile."""
    daemon = start(
        place.settings(channels=command(["sleep", "60"]), worker={"shutdown_seconds": 0.5})
    )
    place.checkpoint(100, mse=0.08)
    daemon.wait_for("alert_raised")
    place.checkpoint(100, run="run2", mse=0.08)

    daemon.wait_for("alert_raised", times=2, seconds=20)
    assert place.stores.outbox.pending() == 2


def test_a_worker_that_cannot_start_touches_no_job(place: Place, start: Start) -> None:
    """Failing at start-up is told apart from crashing, tried again, and counts for no job."""
    place.checkpoint(100, mse=0.4)
    daemon = start(place.settings(base={"model": "broken"}))
    daemon.wait_for("worker_start_failed", times=2)

    assert daemon.log("worker_start_failed")[0]["ended"] == "exit code 4"
    assert daemon.log("worker_crashed") == []
    assert place.job(100).attempts == 0
    assert daemon.stop() == 0


def test_a_stop_lets_the_running_job_finish(place: Place, start: Start) -> None:
    """Within `shutdown_seconds` the job in hand is still recorded, and no other is begun."""
    place.checkpoint(100, mse=0.4)
    weights = place.checkpoint(200, do="block", mse=0.08)
    daemon = start()
    until(lambda: times_measured(weights) == 1, seconds=LONG)
    daemon.send(signal.SIGTERM)
    daemon.wait_for("daemon_stopping")
    (weights.parent / "go").touch()

    assert daemon.process.wait(40) == 0
    assert place.graded() == {200: "GOOD"}
    assert place.job_state(100) == JobState.QUEUED


def test_a_stop_hands_back_a_job_that_does_not_finish(place: Place, start: Start) -> None:
    """After `shutdown_seconds` the job goes back uncounted, and the daemon still exits 0."""
    weights = place.checkpoint(100, do="block")
    daemon = start(place.settings(worker={"shutdown_seconds": 0.5}))
    until(lambda: times_measured(weights) == 1, seconds=LONG)

    assert daemon.stop() == 0
    job = place.job(100)
    assert (job.state, job.attempts) == (JobState.QUEUED, 0)
    assert "worker stopped" in (job.reason or "")


def test_a_job_that_hangs_is_ended_and_holds_up_no_other(place: Place, start: Start) -> None:
    """Its heartbeat goes on; after `max_job_minutes` it is counted, and at last quarantined."""
    fine = place.checkpoint(100, mse=0.08)
    weights = place.checkpoint(200, do="block")
    daemon = start(place.settings(worker={"max_job_minutes": 1 / 60, "max_attempts": 2}))
    until(lambda: place.job_state(200) == JobState.FAILED, seconds=LONG)
    until(lambda: place.job_state(100) == JobState.DONE, seconds=LONG)

    assert (times_measured(weights), times_measured(fine)) == (2, 1)
    assert place.job(200).reason == "timeout: not done after 0.0166667 min (worker.max_job_minutes)"
    assert [event["state"] for event in daemon.log("job_timed_out")] == ["queued", "failed"]
    assert "Thread 0x" in daemon.text(), "where it hangs"
    assert not daemon.log("worker_crashed")
    assert daemon.stop() == 0


def test_a_base_model_that_never_loads_is_ended_and_blames_no_checkpoint(
    place: Place, start: Start
) -> None:
    """The job goes back uncounted, and says why."""
    place.checkpoint(100, base="load")
    daemon = start(place.settings(worker={"max_job_minutes": 1 / 60}))
    daemon.wait_for("job_timed_out", times=2, seconds=LONG)
    assert place.job(100).attempts == 0
    until(lambda: "its base: not done after" in (place.job(100).reason or ""))
    assert daemon.stop() == 0


def test_a_second_interrupt_cuts_the_wait_short(place: Place, start: Start) -> None:
    """Ctrl-C twice does not wait for `shutdown_seconds`; the job goes back uncounted."""
    weights = place.checkpoint(100, do="block")
    daemon = start(place.settings(worker={"shutdown_seconds": 600.0}))
    until(lambda: times_measured(weights) == 1, seconds=LONG)
    daemon.send(signal.SIGINT)
    daemon.wait_for("daemon_stopping")
    daemon.send(signal.SIGINT)

    assert daemon.process.wait(20) == 0
    job = place.job(100)
    assert (job.state, job.attempts) == (JobState.QUEUED, 0)


def pause(pid: int, place: Place) -> None:
    """Stop a process that is in no transaction: it would hold SQLite's lock for as long."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        try:
            with closing(sqlite3.connect(place.state_dir / "nptwatch.db", timeout=1)) as own:
                own.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            os.kill(pid, signal.SIGCONT)
        else:
            return


def test_a_worker_that_was_silent_too_long_records_nothing(place: Place, start: Start) -> None:
    """A stopped process loses its lease; the one that took over records, the first does not."""
    weights = place.checkpoint(100, do="block", mse=0.08)
    daemon = start(place.settings(worker={"count": 2, "lease_seconds": 2.0}))
    daemon.worker_pid(2)
    until(lambda: times_measured(weights) == 1, seconds=LONG)
    silent = int((weights.parent / "measured.log").read_text())
    pause(silent, place)
    try:
        until(lambda: times_measured(weights) == 2, seconds=LONG)
        (weights.parent / "go").touch()
        until(lambda: place.graded() == {100: "GOOD"}, seconds=LONG)
    finally:
        os.kill(silent, signal.SIGCONT)
    lost = daemon.wait_for("lease_lost")

    assert lost["worker"] == daemon.log("job_claimed")[0]["worker"]
    assert len(daemon.log("job_done")) == 1
    assert place.job(100).attempts_by_cause == {"lease_expired": 1}
    assert daemon.stop() == 0


def test_a_worker_is_replaced_after_its_share_of_jobs(place: Place, start: Start) -> None:
    """With `max_jobs` each worker ends in good order and the next goes on at once."""
    for step in (100, 200, 300):
        place.checkpoint(step)
    daemon = start(place.settings(worker={"max_jobs": 1}))
    until(lambda: len(place.graded()) == 3, seconds=LONG)
    daemon.wait_for("worker_recycled", times=3)

    assert daemon.log("worker_crashed") == []
    assert [daemon.log("job_done")[0]["step"], len(daemon.log("job_done"))] == [300, 3]
    assert daemon.stop() == 0


def test_an_alert_is_tried_again_until_the_command_takes_it(
    place: Place, start: Start, tmp_path: Path
) -> None:
    """A command that fails first gets the same event again; the log channel is not held up."""
    place.checkpoint(100, mse=0.08)
    daemon = start(place.settings(channels=noting(tmp_path, FAIL_FIRST)))
    failed = daemon.wait_for("alert_failed")
    until(lambda: alerts(tmp_path), seconds=LONG)

    assert "mail server is down" in failed["error"]
    assert [alert["event_id"] for alert in alerts(tmp_path)] == [failed["event_id"]]
    assert len(daemon.log("alert_raised")) == 1
    assert daemon.stop() == 0


def test_a_second_daemon_is_refused_by_name(place: Place, start: Start) -> None:
    """One daemon per state folder: the second exits 2 and names the process of the first."""
    first = start()
    first.wait_for("daemon_started")
    second = start()

    assert second.process.wait(LONG) == 2
    assert f"another nptwatch daemon (process {first.process.pid})" in second.text()
    assert first.stop() == 0


def test_an_unwritable_state_folder_is_a_clear_error(place: Place, start: Start) -> None:
    """Exit code 2 and what to set instead of a traceback."""
    place.state_dir.write_text("a file in the way")
    daemon = start()

    assert daemon.process.wait(LONG) == 2
    assert "state folder" in daemon.text()
    assert "set state_dir" in daemon.text()


def test_hangup_reloads_settings_that_work_and_keeps_those_that_do_not(
    place: Place, start: Start, tmp_path: Path
) -> None:
    """A broken file changes nothing; a good one makes the daemon watch its roots."""
    place.checkpoint(100, mse=0.4)
    daemon = start()
    until(lambda: 100 in place.graded(), seconds=LONG)
    daemon.config.write_text("{")
    daemon.send(signal.SIGHUP)
    daemon.wait_for("reload_failed")
    place.checkpoint(200, mse=0.4)
    until(lambda: 200 in place.graded(), seconds=LONG)

    place.root = tmp_path / "other"
    place.root.mkdir()
    daemon.write(place.settings())
    daemon.send(signal.SIGHUP)
    daemon.wait_for("settings_reloaded")
    place.checkpoint(300, run="run2", mse=0.4)

    until(lambda: 300 in place.graded("run2"), seconds=LONG)
    assert daemon.log("daemon_started")[-1]["roots"] == [str(place.root)]
    assert daemon.stop() == 0


def test_a_lost_database_loses_no_result(place: Place, start: Start) -> None:
    """A result measured while the database is away is kept and recorded once it is back."""
    weights = place.checkpoint(100, do="block", mse=0.08)
    daemon = start()
    until(lambda: times_measured(weights) == 1, seconds=LONG)
    place.close()
    away = place.state_dir.parent / "away"
    away.mkdir()
    files = list(place.state_dir.glob("nptwatch.db*"))
    for file in files:
        file.rename(away / file.name)
    (weights.parent / "go").touch()
    daemon.wait_for("record_failed")
    daemon.wait_for("database_lost")
    for file in files:
        (away / file.name).rename(file)
    daemon.wait_for("database_back")
    until(lambda: place.graded() == {100: "GOOD"}, seconds=LONG)

    assert times_measured(weights) == 1
    assert len(daemon.log("database_lost")) == 1
    assert daemon.stop() == 0


def test_a_dead_helper_ends_the_daemon(place: Place, start: Start) -> None:
    """A watcher that ends by itself is not survived in silence: exit 1, for systemd to restart."""
    daemon = start()
    daemon.worker_pid()
    with place.stores.database.begin() as connection:
        connection.exec_driver_sql("DROP TABLE outbox")
        connection.exec_driver_sql("ALTER TABLE files RENAME TO filed")
    place.checkpoint(100)

    assert daemon.process.wait(LONG) == 1
    assert daemon.log("helper_died")[0]["helpers"] == ["watcher"]
