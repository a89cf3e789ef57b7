"""`nptwatch scan --dry-run`: what the watcher would do with each file, and why not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from nptwatch.errors import CheckpointDeletedError
from nptwatch.npt.files import step_of, step_of_folder
from nptwatch.store.records import FileState
from nptwatch.watch.discovery import Finder, everything
from nptwatch.watch.readiness import decide, look_at, patience_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nptwatch.settings import WatchSettings
    from nptwatch.store.records import KnownFile, SeenFile
    from nptwatch.watch.readiness import Look


class Action(StrEnum):
    """What would be done with a file."""

    QUEUE = "queue"  # whole: queued if it looks the same after `settle_seconds`
    KNOWN = "known"  # the database has it and it has not changed
    WAIT = "wait"  # not whole yet
    UNLOADABLE = "unloadable"  # not whole, and unchanged for long
    ABANDONED = "abandoned"  # not whole, and its run went on
    SKIP = "skip"  # left out by settings, or not to be reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What would be done with one file.

    Attributes:
        path: of the weights file; of the folder or root where that is left out.
        run: the run's name; "" where the path was left out.
    """

    path: str
    run: str
    step: int | None
    action: Action
    reason: str
    size_bytes: int | None = None
    fingerprint: str | None = None


_ACTIONS = {
    FileState.WHOLE: Action.QUEUE,
    FileState.SETTLING: Action.WAIT,
    FileState.UNLOADABLE: Action.UNLOADABLE,
    FileState.ABANDONED: Action.ABANDONED,
}


def survey(
    settings: WatchSettings,
    known: Callable[[str], dict[str, KnownFile]] | None = None,
    is_named: Callable[[str], bool] = everything,
) -> list[Verdict]:
    """Look at everything once; write nothing.

    Args:
        known: what the database knows below a root (`Catalog.known_files`); None: nothing.
        is_named: whether the database has a name for a real path of this host.
    """
    verdicts: list[Verdict] = []
    for sweep in Finder(settings, is_named).sweep():
        if sweep.unreachable is not None:
            verdicts.append(_skipped(sweep.root, f"root cannot be listed: {sweep.unreachable}"))
        verdicts.extend(_skipped(path, why) for path, why in sweep.skipped.items())
        remembered = known(sweep.root) if known is not None else {}
        unknown = []
        for file in sweep.files.values():
            if _is_known(file, remembered):
                verdicts.append(_of_known(file, remembered[file.path]))
            else:
                unknown.append(file)
        verdicts.extend(_looked_at(unknown, settings))
    return sorted(verdicts, key=lambda v: (v.run, v.step is None, v.step or 0, v.path))


def _is_known(file: SeenFile, known: dict[str, KnownFile]) -> bool:
    row = known.get(file.path)
    if row is None or row.state is FileState.SETTLING:
        return False
    return row.signature == file.signature


def _of_known(file: SeenFile, row: KnownFile) -> Verdict:
    action = Action.KNOWN if row.state is FileState.WHOLE else _ACTIONS[row.state]
    return Verdict(
        path=file.path,
        run=file.run_name,
        step=step_of(Path(file.path)),
        action=action,
        reason=row.reason or "unchanged since it was taken in",
        size_bytes=file.size_bytes,
        fingerprint=row.fingerprint,
    )


def _looked_at(files: Iterable[SeenFile], settings: WatchSettings) -> list[Verdict]:
    looks = [look for file in files if (look := _look(file, settings)) is not None]
    newest: dict[str, int] = {}
    for look in looks:
        step = step_of_folder(Path(look.file.path))
        if look.fault is None and step is not None:
            run = look.file.run_path
            newest[run] = max(step, newest.get(run, step))
    return [_of_look(look, newest.get(look.file.run_path), settings) for look in looks]


def _look(file: SeenFile, settings: WatchSettings) -> Look | None:
    try:
        return look_at(file, settings.markers, at=time.monotonic(), wall=time.time())
    except CheckpointDeletedError:  # between the walk and the look
        return None


def _of_look(look: Look, newest: int | None, settings: WatchSettings) -> Verdict:
    """Judge as if the file had looked like this for as long as it takes to settle."""
    patience = patience_of(settings)
    decision = decide(look, patience.settle_seconds, newest, patience)
    whole = f"whole; queued if it looks the same after {patience.settle_seconds:g} s"
    return Verdict(
        path=look.file.path,
        run=look.file.run_name,
        step=step_of(Path(look.file.path)),
        action=_ACTIONS[decision.state],
        reason=decision.reason or whole,
        size_bytes=look.file.size_bytes,
        fingerprint=look.fingerprint,
    )


def _skipped(path: str, reason: str) -> Verdict:
    return Verdict(path=path, run="", step=None, action=Action.SKIP, reason=reason)
