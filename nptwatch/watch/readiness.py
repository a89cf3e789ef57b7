"""When a weights file is whole, and what it is called when it never becomes so.

Whole: its archive is complete, signature and fingerprint were the same on two looks
`settle_seconds` apart, and no marker beside it is older than it. A writer that stalls keeps its
size, so that time alone proves nothing; an in-place rewrite leaves the old marker beside the new
half file, so that its mere existence proves nothing either.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nptwatch.errors import CheckpointDeletedError, CheckpointError
from nptwatch.npt.archive import opened_archive
from nptwatch.npt.files import (
    TRAINING_STATE,
    base_model_of,
    fingerprint,
    step_of_folder,
)
from nptwatch.store.records import FileState, SeenFile
from nptwatch.watch.fresh import renew, stat_now
from nptwatch.watch.sighting import seen_again

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.settings import WatchSettings

_QUICK_LOOK_SECONDS: Final = 0.5
"""A file that has just changed is looked at this often: with `settle_seconds` it is the delay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long things may take.

    Attributes:
        settle_seconds: between the two looks that must agree.
        abandon_after_seconds: unchanged for so long, a partial file whose run went on is given up.
        unloadable_after_seconds: the same for any other.
        rescan_seconds: at least this often every open file is looked at.
    """

    settle_seconds: float
    unloadable_after_seconds: float
    rescan_seconds: float

    @property
    def abandon_after_seconds(self) -> float:
        """Ten times as long as a file takes to settle, so that a slow writer is not given up."""
        return min(self.unloadable_after_seconds, max(10 * self.settle_seconds, 1.0))


def patience_of(settings: WatchSettings) -> Patience:
    """Return the times that the settings allow."""
    return Patience(
        settle_seconds=settings.settle_seconds,
        unloadable_after_seconds=settings.unloadable_after_seconds,
        rescan_seconds=settings.rescan_seconds,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A file at one moment.

    Attributes:
        at: monotonic seconds.
        age_seconds: since its last change, by the clock on the wall.
        fingerprint: None while it is not whole.
        fault: why it is not whole, or why its markers say that it may still change.
        readable: False where the operating system refuses it: that says nothing of the file.
    """

    file: SeenFile
    at: float
    age_seconds: float
    fingerprint: str | None
    fault: str | None
    readable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a look means.

    Attributes:
        recheck_seconds: until the next look; None where only a change of the file can tell more.
    """

    state: FileState
    reason: str
    recheck_seconds: float | None = None


@dataclass(slots=True, kw_only=True)
class Track:
    """All that is known of one file between looks.

    Attributes:
        same_since: monotonic; the first look with the present signature and fingerprint.
        due: monotonic time of the next look; None when only a change can bring one.
        heard: an event spoke of it since it began to settle.
        noted: the state and reason that the database has.
    """

    file: SeenFile
    state: FileState = FileState.SETTLING
    fingerprint: str | None = None
    same_since: float | None = None
    due: float | None = None
    heard: bool = False
    noted: tuple[FileState, str] | None = None

    def take(self, look: Look) -> float:
        """Remember a look; return for how long the file has looked like this (seconds)."""
        same = look.file.signature == self.file.signature and look.fingerprint == self.fingerprint
        if not same or self.same_since is None:
            self.same_since = look.at
        self.file, self.fingerprint = look.file, look.fingerprint
        return look.at - self.same_since


def look_at(file: SeenFile, markers: Sequence[str], *, at: float, wall: float) -> Look:
    """Look at a file and its markers; opens the file.

    Args:
        markers: names of files beside it that must not be older.
        at: monotonic seconds.
        wall: seconds since the epoch.

    Raises:
        CheckpointDeletedError: it is gone.
    """
    path = Path(file.path)
    renew(path.parent)
    try:
        file, found = seen_again(file)
    except (FileNotFoundError, NotADirectoryError) as exc:
        message = f"{path} is gone from disk"
        raise CheckpointDeletedError(message) from exc
    except OSError as exc:
        fault = f"{path} cannot be reached: {exc.strerror}"
        return Look(file=file, at=at, age_seconds=0, fingerprint=None, fault=fault, readable=False)
    age_seconds = wall - max(found.st_mtime, found.st_ctime)
    look = Look(file=file, at=at, age_seconds=age_seconds, fingerprint=None, fault=None)
    try:
        return replace(look, fingerprint=fingerprint(path), fault=_marker_fault(file, markers))
    except CheckpointDeletedError:
        raise
    except CheckpointError as exc:
        fault = str(exc).removeprefix(f"{path} ")
        return replace(look, fault=fault, readable=not isinstance(exc.__cause__, OSError))


def decide(look: Look, same_seconds: float, newest_step: int | None, wait: Patience) -> Decision:
    """Judge a look.

    Args:
        same_seconds: for how long the file has looked like this.
        newest_step: the highest step of its run that is whole.
    """
    if same_seconds < wait.settle_seconds:
        recheck = wait.settle_seconds - same_seconds
        if look.fingerprint is None:
            recheck = min(recheck, _QUICK_LOOK_SECONDS)
        reason = look.fault or "looked at once; must look the same again"
        return Decision(state=FileState.SETTLING, reason=reason, recheck_seconds=recheck)
    if look.fault is None:
        return Decision(state=FileState.WHOLE, reason="")
    quiet_seconds = max(same_seconds, look.age_seconds)
    if look.fingerprint is not None:
        return _despite_marker(look.fault, quiet_seconds, same_seconds, wait)
    if not look.readable:
        return _wait(look.fault, same_seconds, wait)
    if quiet_seconds >= wait.unloadable_after_seconds:
        reason = f"{look.fault}; unchanged for {quiet_seconds:.0f} s"
        return Decision(state=FileState.UNLOADABLE, reason=reason)
    step = step_of_folder(Path(look.file.path))
    behind = newest_step is not None and step is not None and step < newest_step
    if behind and quiet_seconds >= wait.abandon_after_seconds:
        reason = (
            f"{look.fault}; unchanged for {quiet_seconds:.0f} s while step {newest_step} is whole"
        )
        return Decision(state=FileState.ABANDONED, reason=reason)
    return _wait(look.fault, same_seconds, wait)


def _despite_marker(fault: str, quiet: float, same_seconds: float, wait: Patience) -> Decision:
    """Take a complete file whose marker stays behind: its trainer died, or it was copied so."""
    if quiet >= wait.unloadable_after_seconds:
        reason = f"taken although {fault}: unchanged for {quiet:.0f} s"
        return Decision(state=FileState.WHOLE, reason=reason)
    return _wait(fault, same_seconds, wait)


def _wait(fault: str, same_seconds: float, wait: Patience) -> Decision:
    """Look again soon after a change, and ever more rarely at a file that does not move."""
    longest = min(wait.rescan_seconds, wait.unloadable_after_seconds, wait.abandon_after_seconds)
    recheck = min(max(same_seconds / 4, _QUICK_LOOK_SECONDS), max(longest, _QUICK_LOOK_SECONDS))
    return Decision(state=FileState.SETTLING, reason=fault, recheck_seconds=recheck)


def _marker_fault(file: SeenFile, markers: Sequence[str]) -> str | None:
    folder = Path(file.path).parent
    for name in markers:
        try:
            marker = stat_now(folder / name)
        except OSError:  # no such marker: it is not asked for
            continue
        if marker.st_mtime_ns < file.mtime_ns:
            return f"{name} beside it is older"
    if TRAINING_STATE in markers and _must_ask_training_state(file):
        return _half_written(folder / TRAINING_STATE)
    return None


def _must_ask_training_state(file: SeenFile) -> bool:
    path = Path(file.path)
    return step_of_folder(path) is None or base_model_of(path, Path(file.run_path)) is None


def _half_written(state: Path) -> str | None:
    """Why a training state whose facts are needed cannot give them yet."""
    try:
        with opened_archive(state):
            return None
    except CheckpointDeletedError:
        return None
    except CheckpointError:
        return f"{state.name} beside it, which is to give step or base model, is not whole"
