"""The daemon's numbers for Prometheus; docs/metrics.md lists them, and a test holds it to that."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

import structlog
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from nptwatch.diagnostics.grading import LEVELS, Grade
from nptwatch.errors import DatabaseError
from nptwatch.store.records import OutboxState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    from nptwatch.health import Health
    from nptwatch.store.chore_records import ChoreRecord
    from nptwatch.store.gauges import GaugeReader, Gauges, Numbers, RunGauge
    from nptwatch.watch.watcher import Scan

_RUN = ("run", "root")

log = structlog.get_logger()


class DaemonCollector(Collector):
    """Reads everything anew at each scrape: what is gone from the database is gone here.

    A database that cannot be read costs its metrics, not those of the daemon itself.

    Args:
        chores: gives how the daemon's chores went.
        scan: gives its last scan, if there was one.
    """

    def __init__(
        self,
        gauges: GaugeReader,
        health: Health,
        chores: Callable[[], Sequence[ChoreRecord]],
        scan: Callable[[], Scan | None],
    ) -> None:
        self._gauges = gauges
        self._health = health
        self._chores = chores
        self._scan = scan

    def collect(self) -> Iterator[Metric]:
        """Give all families, those without a sample too."""
        version = importlib.metadata.version("nptwatch")
        yield InfoMetricFamily("nptwatch_build", "The daemon.", {"version": version})
        yield from _helpers(self._health)
        yield from _chore_families(self._chores())
        yield from _scan_families(self._scan())
        try:
            gauges = self._gauges.read()
        except DatabaseError as error:
            log.warning("metrics_incomplete", error=str(error))
            yield GaugeMetricFamily("nptwatch_database_up", "1: the database could be read.", 0)
            return
        yield GaugeMetricFamily("nptwatch_database_up", "1: the database could be read.", 1)
        yield from _run_families(gauges.runs)
        yield from _queue_families(gauges)
        yield from _worker_families(gauges)
        yield from _alert_families(gauges)


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"nptwatch_{name}", text, labels=labels)


def _helpers(health: Health) -> Iterator[Metric]:
    up = _family("helper_up", "1: the daemon's helper lives and gets on.", "helper")
    for part in health.parts():
        up.add_metric([part.name], part.is_well)
    yield up


def _chore_families(chores: Sequence[ChoreRecord]) -> Iterator[Metric]:
    last = _family(
        "chore_last_run_timestamp_seconds", "When a chore was begun last, Unix time.", "chore"
    )
    took = _family("chore_duration_seconds", "How long it took then.", "chore")
    failures = _family("chore_failures", "Its failures in a row.", "chore")
    for chore in chores:
        last.add_metric([chore.name], chore.started_at.timestamp())
        took.add_metric([chore.name], chore.duration_seconds)
        failures.add_metric([chore.name], chore.failures)
    yield from (last, took, failures)


def _scan_families(scan: Scan | None) -> Iterator[Metric]:
    at = _family("scan_timestamp_seconds", "When the watcher's last scan ended, Unix time.")
    took = _family("scan_duration_seconds", "How long it took.")
    files = _family("scan_files", "Weights files that it saw.")
    if scan is not None:
        at.add_metric([], scan.ended_at)
        took.add_metric([], scan.seconds)
        files.add_metric([], scan.files)
    yield from (at, took, files)


def _run_families(runs: Sequence[RunGauge]) -> Iterator[Metric]:
    grade = _family(
        "run_grade",
        "Grade of its last and best checkpoint: 4 EXCELLENT, 3 GOOD, 2 FAIR, 1 POOR, 0 INVALID.",
        *_RUN,
        "which",
    )
    mse = _family("run_mse", "Mean square error of its logits.", *_RUN, "which")
    cosine = _family("run_cosine", "Cosine of its logits with the base's.", *_RUN, "which")
    at = _family(
        "run_last_measured_timestamp_seconds", "When its last checkpoint was measured.", *_RUN
    )
    checkpoints = _family("run_checkpoints", "Checkpoints of a run that were found.", *_RUN)
    measured = _family("run_checkpoints_measured", "Of these, measured.", *_RUN)
    failed = _family("run_checkpoints_failed", "Of these, given up.", *_RUN)
    for run in runs:
        labels = [run.run, run.root]
        checkpoints.add_metric(labels, run.checkpoints)
        measured.add_metric(labels, run.done)
        failed.add_metric(labels, run.failed)
        if run.last_at is not None:
            at.add_metric(labels, run.last_at.timestamp())
        for which, numbers in (("last", run.last), ("best", run.best)):
            if numbers is not None:
                _add(numbers, [*labels, which], grade, mse, cosine)
    yield from (grade, mse, cosine, at, checkpoints, measured, failed)


def _add(
    numbers: Numbers,
    labels: Sequence[str],
    grade: GaugeMetricFamily,
    mse: GaugeMetricFamily,
    cosine: GaugeMetricFamily,
) -> None:
    if numbers.grade is not None:
        grade.add_metric(labels, LEVELS[Grade(numbers.grade)])
    if numbers.mse is not None:
        mse.add_metric(labels, numbers.mse)
    if numbers.cosine is not None:
        cosine.add_metric(labels, numbers.cosine)


def _queue_families(gauges: Gauges) -> Iterator[Metric]:
    jobs = _family("jobs", "Jobs by state: what waits, runs, and how the others ended.", "state")
    for state, count in gauges.jobs.items():
        jobs.add_metric([state.value], count)
    oldest = gauges.oldest_queued_at
    age = 0.0 if oldest is None else max(0.0, (gauges.at - oldest).total_seconds())
    yield jobs
    yield GaugeMetricFamily(
        "nptwatch_queue_oldest_age_seconds", "How long the oldest queued job waits.", age
    )
    yield GaugeMetricFamily(
        "nptwatch_open_job_attempts",
        "Failed attempts at the jobs that wait or run.",
        gauges.attempts,
    )


def _worker_families(gauges: Gauges) -> Iterator[Metric]:
    workers = _family("workers", "Workers at work, by state and device.", "state", "device")
    counts: dict[tuple[str, str], int] = {}
    for worker in gauges.workers:
        key = (worker.state.value, worker.device)
        counts[key] = counts.get(key, 0) + 1
    for labels, count in counts.items():
        workers.add_metric(labels, count)
    memory = _family("worker_memory_bytes", "Resident memory of a worker process.", "worker")
    for worker in gauges.workers:
        if worker.memory_bytes is not None:
            memory.add_metric([worker.worker_id], worker.memory_bytes)
    yield from (workers, memory)


def _alert_families(gauges: Gauges) -> Iterator[Metric]:
    messages = _family(
        "alert_messages", "Messages of alerts by channel and state.", "channel", "state"
    )
    for channel in sorted({channel for channel, _ in gauges.messages}):
        for state in OutboxState:
            messages.add_metric([channel, state.value], gauges.messages.get((channel, state), 0))
    kept = _family("kept_checkpoints", "Checkpoints wanted, kept and released.", "state")
    for name, number in gauges.kept.items():
        kept.add_metric([str(name)], number)
    yield from (messages, kept)
