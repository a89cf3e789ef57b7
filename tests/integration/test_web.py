"""/metrics, /health and /ready of the real daemon, over HTTP."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import DaemonProcess, Place
from watching import until

from nptwatch.health import Health
from nptwatch.store.records import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs/metrics.md"

HOSTILE = 'r"u\\n\n{x="1"} 5'
"""A run name that would be samples of its own if it were not escaped."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Give a place."""
    place = Place(tmp_path)
    yield place
    place.close()


@pytest.fixture
def daemon(place: Place) -> Iterator[DaemonProcess]:
    """Run a daemon that serves on a free port."""
    settings = place.settings(web={"listen": "127.0.0.1:0"})
    daemon = DaemonProcess(place, settings)
    yield daemon
    daemon.close()


def ask(daemon: DaemonProcess, path: str) -> tuple[int, str]:
    """Get a page."""
    address = daemon.wait_for("web_started")["listen"]
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metrics(daemon: DaemonProcess) -> dict[str, dict[tuple[str, ...], float]]:
    """Scrape: by name the values by labels, names of labels sorted."""
    status, text = ask(daemon, "/metrics")
    assert status == 200
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            of_name = found.setdefault(sample.name, {})
            assert labels not in of_name, sample
            of_name[labels] = sample.value
    return found


def answer(daemon: DaemonProcess, path: str) -> tuple[int, Any]:  # Any: JSON
    """Get a page of JSON."""
    status, text = ask(daemon, path)
    return status, json.loads(text)


def test_metrics_say_how_runs_and_the_daemon_are(place: Place, daemon: DaemonProcess) -> None:
    """Last and best of each run, jobs, workers, alerts, chores; names can hold anything."""
    for step, mse in ((1, 0.4), (2, 0.07), (3, 0.3)):
        place.checkpoint(step, mse=mse)
        until(lambda step=step: place.job_state(step) == JobState.DONE, seconds=30)
    place.checkpoint(9, run=HOSTILE, mse=0.01)
    until(lambda: place.stores.queue.depth()[JobState.DONE] == 4, seconds=30)
    until(lambda: metrics(daemon)["nptwatch_scan_files"] == {(): 4.0}, seconds=30)
    worker = daemon.log("worker_started")[0]["worker_id"]
    until(lambda: (worker,) in metrics(daemon).get("nptwatch_worker_memory_bytes", {}), seconds=30)
    sent = ("log", "delivered")
    until(lambda: metrics(daemon)["nptwatch_alert_messages"][sent] >= 1, seconds=30)

    found, root = metrics(daemon), str(place.root)
    assert found["nptwatch_run_mse"] == {
        (root, "run1", "last"): 0.3,
        (root, "run1", "best"): 0.07,
        (root, HOSTILE, "last"): 0.01,
        (root, HOSTILE, "best"): 0.01,
    }
    assert found["nptwatch_run_grade"][root, "run1", "last"] == 2
    assert found["nptwatch_run_grade"][root, "run1", "best"] == 3
    assert found["nptwatch_run_cosine"][root, "run1", "best"] == 0.99
    assert found["nptwatch_run_checkpoints_measured"][root, "run1"] == 3
    assert found["nptwatch_jobs"][("done",)] == 4
    assert found["nptwatch_jobs"][("queued",)] == found["nptwatch_open_job_attempts"][()] == 0
    assert found["nptwatch_workers"] == {("cpu", "idle"): 1}
    assert 10e6 < found["nptwatch_worker_memory_bytes"][(worker,)] < 2e9
    assert found["nptwatch_alert_messages"][sent] >= 1
    assert found["nptwatch_helper_up"] == {("watcher",): 1, ("workers",): 1, ("scheduler",): 1}
    assert found["nptwatch_chore_failures"][("keep",)] == 0
    assert found["nptwatch_database_up"] == {(): 1}
    assert "process_resident_memory_bytes" in found
    ours = {name for name in found if name.startswith("nptwatch_")}
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), flags=re.MULTILINE))
    assert listed == ours, "the page lists what there is"
    assert daemon.stop() == 0


def test_a_daemon_says_that_it_is_well_and_ready(place: Place, daemon: DaemonProcess) -> None:
    """Or what is missing: here a schema of another version. Other pages are not there."""
    until(lambda: answer(daemon, "/ready")[0] == 200, seconds=30)
    status, health = answer(daemon, "/health")
    assert (status, health["well"]) == (200, True)
    assert set(health["helpers"]) == {"watcher", "workers", "scheduler"}
    with place.stores.database.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    status, ready = answer(daemon, "/ready")
    assert (status, ready["ready"], list(ready["waits_for"])) == (503, False, ["database"])
    status, text = ask(daemon, "/state/nptwatch.db")
    assert (status, text) == (404, "try /metrics, /health, /ready\n")


def test_a_port_that_is_taken_costs_the_pages_only(
    place: Place, daemon: DaemonProcess, tmp_path: Path
) -> None:
    """The second daemon says so and measures."""
    taken = daemon.wait_for("web_started")["listen"]
    folder = tmp_path / "other"
    folder.mkdir()
    other = Place(folder)
    second = DaemonProcess(other, other.settings(web={"listen": taken}))
    try:
        assert second.wait_for("web_failed")["listen"] == taken
        other.checkpoint(1)
        until(lambda: other.job_state(1) == JobState.DONE, seconds=30)
        assert second.stop() == 0
    finally:
        second.close()
        other.close()


def test_a_helper_that_hangs_or_died_is_told() -> None:
    """Silence for longer than a helper may be silent counts, and so does a thread that is gone."""
    now = [0.0]
    alive = {"watcher": True, "workers": True, "scheduler": True}
    health = Health({name: (lambda name=name: alive[name]) for name in alive}, clock=lambda: now[0])
    health.beat("watcher")
    health.beat("scheduler")
    assert (health.ill(), health.dead()) == ([], [])
    now[0] = 59
    assert health.ill() == []
    now[0] = 61
    assert (health.ill(), health.dead()) == (["scheduler"], [])
    health.beat("scheduler")
    alive["workers"] = False
    assert (health.ill(), health.dead()) == (["workers"], ["workers"])
    now[0] = 301
    assert health.ill() == ["watcher", "workers", "scheduler"]
