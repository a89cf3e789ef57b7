"""From a claimed job to its outcome: find the file, measure it, make sure it stayed the same."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog

from nptwatch.errors import (
    BaseModelError,
    CheckpointChangedError,
    CheckpointDeletedError,
    CheckpointError,
    ConfigError,
    DatabaseError,
    DeviceError,
    GpuBusyError,
    IncompleteCheckpointError,
    NptwatchError,
    OutOfMemoryError,
)
from nptwatch.npt.files import fingerprint
from nptwatch.store.records import JobState, WorkerState
from nptwatch.worker.outcomes import (
    GONE,
    OVERWRITTEN,
    AskAgain,
    Backoff,
    Close,
    Fault,
    HandBack,
    Outcome,
    Store,
    StoreKnown,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from nptwatch.settings import WorkerSettings
    from nptwatch.store.queue import Queue
    from nptwatch.store.records import Claim, Measured, Request
    from nptwatch.worker.sight import Sight

NOT_WHOLE_DELAY_SECONDS = 30.0
"""A young file that is not whole is looked at again after at most so long."""

BASE_MODEL_DELAY_SECONDS = 60.0
"""First pause after a base model could not be had; doubles."""

LONGEST_BUSY_SECONDS = 60.0
"""Pause between looks at a GPU that others need, at most."""

SURPRISES_IN_A_ROW = 2

LEAST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 900.0

log = structlog.get_logger()


def _nobody(_state: WorkerState) -> None:
    return None


class Diagnoser(Protocol):
    """Measures checkpoints; keeps what is worth keeping between them."""

    @property
    def device(self) -> str:
        """Where it measures."""

    @property
    def base_model(self) -> str | None:
        """Name of the base that is loaded."""

    def base_revision(self, claim: Claim) -> str:
        """Identify the content of the claim's base model, loading it if needed.

        Raises:
            BaseModelError: it is not to be had.
            GpuBusyError: others need the device.
        """

    def measure(self, claim: Claim, path: Path) -> Measured:
        """Measure the file at `path` by the claim's profile.

        Raises:
            CheckpointError: the file is at fault; `CheckpointDeletedError` where it is gone.
            OutOfMemoryError: the device was too full.
        """


class Diagnosis:
    """Turns claims into outcomes; every error has its place here.

    Args:
        request: gives how this worker measures a profile.
        sight: tells files that are gone from those that this host does not see.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        diagnoser: Diagnoser,
        settings: WorkerSettings,
        request: Callable[[str], Request],
        unloadable_after_seconds: float,
        sight: Sight,
        clock: Callable[[], datetime],
    ) -> None:
        self._queue = queue
        self._diagnoser = diagnoser
        self._request = request
        self._sight = sight
        self._unloadable_after_seconds = unloadable_after_seconds
        self._clock = clock
        first = max(settings.retry_delay_seconds, LEAST_DELAY_SECONDS)
        self._memory = Backoff(first, LONGEST_DELAY_SECONDS, time.monotonic)
        self._busy = Backoff(first, LONGEST_BUSY_SECONDS, time.monotonic)
        self._bases: dict[str | None, Backoff] = {}
        self._surprises = 0
        self.exit_code: int | None = None
        """Set when this process is to be replaced: its device is not to be trusted any more."""

    @property
    def rest_seconds(self) -> float:
        """For how long no job is worth a try: others need the device."""
        return self._busy.left()

    def of(self, claim: Claim, tell: Callable[[WorkerState], None] = _nobody) -> Outcome:
        """Measure a claimed job; never raises.

        Args:
            tell: called before and after the base is loaded; should the process die, the database
                knows whose fault it may be.
        """
        try:
            return self._diagnose(claim, tell)
        except DatabaseError as error:  # nothing was measured yet
            return HandBack(event="database_lost", reason=str(error))
        except DeviceError as error:
            return self._device_fault(error)
        except Exception as error:
            log.exception("diagnosis_failed", job_id=claim.job_id)
            return self._surprised(error)

    def _diagnose(self, claim: Claim, tell: Callable[[WorkerState], None]) -> Outcome:
        """Measure the first of the claim's files that can be read: one may be damaged, or go."""
        in_force = self._request(claim.profile)
        if claim.settings_hash != in_force.settings_hash:
            return AskAgain(request=in_force)
        failed: dict[Path, CheckpointError] = {}
        while isinstance(found := self._find(claim, failed), Path):
            try:
                return self._measure(claim, found, tell)
            except (CheckpointDeletedError, IncompleteCheckpointError) as error:
                failed[found] = error
        damaged = {
            path: error
            for path, error in failed.items()
            if isinstance(error, IncompleteCheckpointError)
        }
        if not damaged or isinstance(found, HandBack):
            return found
        return self._damaged(claim, damaged)

    def _damaged(self, claim: Claim, damaged: Mapping[Path, IncompleteCheckpointError]) -> Outcome:
        """Wait for a young file; call the content unloadable where all have been quiet for long.

        That is no result: the fingerprint says what was written, so a copy elsewhere may be sound.
        """
        for path, error in damaged.items():
            if waits := self._not_whole(path, error):
                return waits
        reason = "; ".join(str(error) for error in damaged.values())
        unloadable = Close(state=JobState.UNLOADABLE, reason=reason)
        return self._unless_changed(claim, next(iter(damaged)), unloadable)

    def _find(self, claim: Claim, failed: Collection[Path] = ()) -> Path | Outcome:
        """The first of the claim's paths that still holds its content, or why none does.

        Args:
            failed: paths that were tried in vain.
        """
        outcome: Outcome = GONE
        for path in map(Path, claim.paths):
            if path in failed:
                continue
            try:
                if fingerprint(path) == claim.fingerprint:
                    return path
                outcome = OVERWRITTEN
            except CheckpointDeletedError:
                continue
            except CheckpointError as error:
                outcome = self._not_read(claim, path, error)
        return self._gone(claim) if outcome is GONE and claim.paths else outcome

    def _gone(self, claim: Claim) -> Outcome:
        """Call the claim's files deleted only where this host would see them if they were there."""
        if reason := self._sight.unseen(claim):
            return HandBack(event="not_seen_here", reason=reason)
        if self._sight.is_late(claim, self._clock()):
            reason = self._sight.not_yet(claim)
            return HandBack(
                event="not_seen_yet", reason=reason, delay_seconds=NOT_WHOLE_DELAY_SECONDS
            )
        return GONE

    def _not_read(self, claim: Claim, path: Path, error: CheckpointError) -> Outcome:
        """Say what it means that a file's content cannot be told."""
        if isinstance(error.__cause__, OSError):  # not the file's fault: rights, a broken mount
            reason = self._sight.unreadable(claim, error)
            return HandBack(event="not_readable_here", reason=reason)
        return self._not_whole(path, error) or OVERWRITTEN

    def _measure(self, claim: Claim, path: Path, tell: Callable[[WorkerState], None]) -> Outcome:
        """Measure one file.

        Raises:
            CheckpointDeletedError, IncompleteCheckpointError: another file may give the content.
        """
        tell(WorkerState.LOADING)
        base = self._base_revision(claim)
        if not isinstance(base, str):
            return base
        tell(WorkerState.BUSY)
        known = self._queue.known_result(claim, base_revision=base)
        if known is not None:
            return StoreKnown(result_id=known)
        started = time.monotonic()
        try:
            outcome: Outcome = Store(measured=self._diagnoser.measure(claim, path))
        except (CheckpointDeletedError, IncompleteCheckpointError):
            raise  # of this file, not of its content
        except CheckpointChangedError as error:
            return self._changed(error)
        except (
            BaseModelError,
            ConfigError,
        ) as error:  # late, still not its fault
            return self._no_base(claim, error)
        except (OutOfMemoryError, MemoryError) as error:
            return self._out_of_memory(error)
        except CheckpointError as error:
            outcome = refused(
                error,
                base_revision=base,
                duration_seconds=time.monotonic() - started,
                measured_at=self._clock(),
            )
        self._memory.reset()
        self._backoff(claim).reset()
        self._surprises = 0
        return self._unless_changed(claim, path, outcome)

    def _base_revision(self, claim: Claim) -> str | Outcome:
        try:
            revision = self._diagnoser.base_revision(claim)
        except (BaseModelError, ConfigError) as error:
            return self._no_base(claim, error)
        except (OutOfMemoryError, MemoryError) as error:
            return self._out_of_memory(error)
        except GpuBusyError as error:
            return self._device_busy(error)
        except DeviceError as error:  # before the checkpoint was touched: not its fault
            self.exit_code = error.exit_code
            return HandBack(event="device_failed", reason=str(error))
        self._busy.reset()
        return revision

    def _no_base(self, claim: Claim, error: NptwatchError) -> HandBack:
        delay_seconds = self._backoff(claim).delay()
        return HandBack(
            event="base_model_unavailable", reason=str(error), delay_seconds=delay_seconds
        )

    def _backoff(self, claim: Claim) -> Backoff:
        """The pause that all jobs of one base share while it is not to be had."""
        return self._bases.setdefault(
            claim.base_model,
            Backoff(BASE_MODEL_DELAY_SECONDS, LONGEST_DELAY_SECONDS, time.monotonic),
        )

    def _unless_changed(self, claim: Claim, path: Path, outcome: Outcome) -> Outcome:
        """Throw an outcome away when the file is not what was claimed any more."""
        try:
            if fingerprint(path) == claim.fingerprint:
                return outcome
        except CheckpointDeletedError:
            # Deleting does not change what was read; a twin proves that the content is real.
            other = self._find(claim)
            return outcome if isinstance(other, Path) else other
        except CheckpointError:
            pass  # it is being rewritten
        return self._find_other(claim, path)

    def _find_other(self, claim: Claim, path: Path) -> Outcome:
        """What was read cannot be used: try again from another path, if there is one."""
        other = self._find(claim)
        if not isinstance(other, Path):
            return other
        return HandBack(
            event="result_discarded", reason=f"{path} changed or went while it was measured"
        )

    def _not_whole(self, path: Path, error: CheckpointError) -> HandBack | None:
        """Wait for a file that may still be written; None where it has been quiet for long."""
        try:
            modified_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except OSError:
            return None  # gone meanwhile: the next look says so
        age_seconds = (self._clock() - modified_at).total_seconds()
        left_seconds = self._unloadable_after_seconds - age_seconds
        if left_seconds <= 0:
            return None
        delay_seconds = min(max(left_seconds, LEAST_DELAY_SECONDS), NOT_WHOLE_DELAY_SECONDS)
        return HandBack(
            event="checkpoint_not_whole", reason=str(error), delay_seconds=delay_seconds
        )

    def _changed(self, error: CheckpointChangedError) -> HandBack:
        return HandBack(
            event="checkpoint_changed", reason=str(error), delay_seconds=LEAST_DELAY_SECONDS
        )

    def _out_of_memory(self, error: Exception) -> HandBack:
        return HandBack(
            event="out_of_memory",
            reason=f"out of memory: {error}",
            delay_seconds=self._memory.delay(),
        )

    def _device_busy(self, error: GpuBusyError) -> HandBack:
        if error.is_spent:  # in good order: a fresh process touches the device only when it is free
            self.exit_code = 0
        return HandBack(event="gpu_busy", reason=str(error), delay_seconds=self._busy.delay())

    def _device_fault(self, error: DeviceError) -> Fault:
        self.exit_code = error.exit_code
        return Fault(cause="device", error=str(error))

    def _surprised(self, error: Exception) -> Fault:
        """Count an error that nobody foresaw; after two in a row the fault may be ours.

        A driver error, for one, makes every later job of the process fail.
        """
        self._surprises += 1
        if self._surprises >= SURPRISES_IN_A_ROW:
            self.exit_code = NptwatchError.exit_code
        return Fault(cause="error", error=f"{type(error).__name__}: {error}")
