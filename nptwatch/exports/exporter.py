"""Keeps one export up to date: what is new of each run, through a process that may be killed.

The process writes, then the database notes how far it is: a crash between the two exports again
what the target has, and the process leaves it out. So results arrive at least once, and nowhere
twice. The daemon loads none of the libraries, and waits for none of them on its way down.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from nptwatch.alerts.programs import Program
from nptwatch.errors import ConfigError, DeliveryError
from nptwatch.exports.telling import Question, RunNews, told, understood
from nptwatch.store.engine import utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from nptwatch.exports.targets import Target
    from nptwatch.store.exporting import Batch, Behind, Exports, Point
    from nptwatch.store.records import Clock

POINTS_AT_ONCE = 2000
"""Results of one run that are exported together."""

LEASE_MARGIN_SECONDS = 30.0
"""A claim outlives the slowest process by so much; after a crash others go on then."""

FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 10.0, 600.0
"""How long a run is left alone that could not be exported; doubles each time."""

GRACE_SECONDS = 5.0
"""A process that nobody is left to kill ends itself so much later."""


class Exporter:
    """One export of one daemon; daemons with one database take turns at each run of a target.

    Args:
        env: of its processes; nptwatch's own variables are left out.
    """

    def __init__(
        self,
        exports: Exports,
        target: Target,
        *,
        env: Mapping[str, str],
        clock: Clock = utc_now,
    ) -> None:
        self.target = target
        self._exports = exports
        self._clock = clock
        self._rests: dict[int, tuple[int, datetime]] = {}
        self._error: str | None = None
        self._stop = threading.Event()
        self._program = Program(
            f"the process of exports.{target.name}",
            [sys.executable, "-P", "-m", target.module],
            hear="stdout",
            env={key: value for key, value in env.items() if not key.startswith("NPTWATCH_")},
            timeout_seconds=target.timeout_seconds,
        )

    def turn(self) -> None:
        """Export what is new, until nothing is or something fails.

        Raises:
            DeliveryError: something does not work; also where it rests until it is tried again.
            DatabaseError: the database cannot be reached; what is claimed is free again in time.
        """
        try:
            self._go_on()
        except DeliveryError as error:
            if not self._stop.is_set():
                self._error = str(error)
                raise
        if self._rests and self._error is not None:
            raise DeliveryError(self._error)
        self._error = None

    def stop(self) -> None:
        """Start no further process."""
        self._stop.set()

    def close(self) -> None:
        """Kill the process that runs; what it was at is exported again at the next start."""
        self.stop()
        self._program.close()

    def _go_on(self) -> None:
        if problem := self.target.missing():
            raise DeliveryError(problem)
        identity = self.target.identity()
        while not self._stop.is_set():
            batches = self._claim(identity)
            if not batches:
                break
            self._export(batches)

    def _claim(self, identity: str) -> list[Batch]:
        """Take the next results of some runs."""
        batches: list[Batch] = []
        points = 0
        for run in self._exports.behind(identity):
            if not self.target.runs.match(run.run) or self._rests_now(run):
                continue
            batch = self._exports.claim(
                identity,
                run,
                lease_seconds=self.target.timeout_seconds + LEASE_MARGIN_SECONDS,
                limit=POINTS_AT_ONCE,
            )
            if batch is not None:
                batches.append(batch)
                points += len(batch.points)
            if len(batches) == self.target.runs_at_once or points >= POINTS_AT_ONCE:
                break
        return batches

    def _export(self, batches: Sequence[Batch]) -> None:
        """Have the process write, and note what it wrote.

        Raises:
            DeliveryError: a run could not be exported, or none.
        """
        errors: Mapping[int, str] = dict.fromkeys(range(len(batches)), "")
        try:
            errors = self._ask(batches)
        finally:
            for place, batch in enumerate(batches):
                self._note(batch, failed=place in errors)
        if errors:
            first = min(errors)
            raise DeliveryError(f"run {batches[first].run.run}: {errors[first]}")

    def _ask(self, batches: Sequence[Batch]) -> Mapping[int, str]:
        try:
            secret = None if self.target.secret is None else self.target.secret.read()
        except ConfigError as error:
            raise DeliveryError(str(error)) from error
        question = Question(
            folder=self.target.folder,
            options=self.target.options,
            secret=secret,
            runs=tuple(_news(batch) for batch in batches),
        )
        seconds = self.target.timeout_seconds + GRACE_SECONDS
        ended = self._program.run(told(question, seconds=seconds))
        answer = understood(ended.said)
        if answer is None:
            raise DeliveryError(
                f"the process of exports.{self.target.name} ended with exit code {ended.code}"
            )
        return answer.errors

    def _note(self, batch: Batch, *, failed: bool) -> None:
        run_id = batch.run.run_id
        if not failed:
            self._exports.done(batch)
            self._rests.pop(run_id, None)
            return
        self._exports.release(batch)
        failures = 1 + (self._rests[run_id][0] if run_id in self._rests else 0)
        seconds = min(FIRST_REST_SECONDS * 2 ** min(failures - 1, 32), LONGEST_REST_SECONDS)
        self._rests[run_id] = failures, self._clock() + timedelta(seconds=seconds)

    def _rests_now(self, run: Behind) -> bool:
        return run.run_id in self._rests and self._clock() < self._rests[run.run_id][1]


def _news(batch: Batch) -> RunNews:
    run = batch.run
    # of the database's own, so that a fresh one that has the run anew does not take up the old
    about = f"{run.run_id}\0{run.run}\0{run.created_at.isoformat()}"
    return RunNews(
        place=f"{run.run}@{run.run_id}" if run.is_namesake else run.run,
        history=hashlib.sha256(about.encode(errors="surrogateescape")).hexdigest()[:16],
        run=run.run,
        run_path=run.run_path,
        root=run.root,
        status=run.status,
        best_mse=batch.best.mse if batch.best else None,
        best_step=batch.best.step if batch.best else None,
        points=tuple(_told_of(point) for point in batch.points),
    )


def _told_of(point: Point) -> dict[str, Any]:  # Any: JSON
    return {**asdict(point), "measured_at": point.measured_at.isoformat()}
