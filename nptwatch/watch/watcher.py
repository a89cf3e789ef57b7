"""The watcher: sees files, waits until they are whole, admits them to the catalog.

Scans are the truth and events only wake it. Nothing is remembered as done before the database
has it, so that a lost database is retried and nothing is forgotten.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import structlog

from nptwatch.errors import DatabaseError
from nptwatch.store.records import Admission, FileState
from nptwatch.watch.absences import Absences
from nptwatch.watch.discovery import Finder, everything, nothing
from nptwatch.watch.ledger import Ledger
from nptwatch.watch.mailbox import Mailbox
from nptwatch.watch.registrar import Registrar, no_minimum
from nptwatch.watch.settling import Settling
from nptwatch.watch.survey import Action, Verdict, survey
from nptwatch.watch.waking import make_waking

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from nptwatch.settings import WatchSettings
    from nptwatch.store.catalog import Catalog
    from nptwatch.store.records import KnownFile, Request, SeenFile
    from nptwatch.watch.readiness import Look, Track
    from nptwatch.watch.sweep import Sweep

__all__ = ["Action", "ScanReport", "Verdict", "Watcher", "survey"]

_SLICE_SECONDS: Final = 0.25
"""Longest sleep, and longest work, before the stop event is looked at."""
_SECOND_LOOK_SECONDS: Final = 1.0
"""A new folder is listed again after so long: events race with watches being added to it."""
_LATE_EVENT_SECONDS: Final = 2.0
"""An event that has not come so long after a change is missing."""
_UNASKED: Final = 1.25
"""A scan that nobody asked for is due after so many `rescan_seconds`. The daemon's chore asks every
`rescan_seconds`; the watcher does not rely on it, and does not scan twice either."""
PORTION: Final = 2_500
"""So many new files are taken in at a time, that a tree of a group's last years fits in memory."""
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """How a scan of all roots went.

    Attributes:
        ended_at: Unix time.
        files: weights files that were seen.
    """

    ended_at: float
    seconds: float
    files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanReport:
    """What `scan_once` did, in numbers of files; `waiting` are left for the next scan."""

    queued: int
    twins: int
    known: int
    waiting: int
    unloadable: int
    abandoned: int
    gone: int
    unreachable_roots: tuple[str, ...]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Watcher:
    """Watches the roots and keeps the catalog true to them.

    Args:
        catalog: where files and jobs are kept.
        request: what is to be measured of each checkpoint.
        canary_dir: folder of nptwatch's own; nothing is ever written below the roots.
        on_queued: called after a job was queued.
        clock: wall-clock time.
        is_named: whether the database has a name for a real path of this host.
        min_gpu_mib: GPU memory that jobs of a run (its name) and base need.
        on_progress: called all the while, from whichever thread works; silence means that it hangs.

    Attributes:
        last_scan: how the last scan went; None: there was none yet.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        request: Request,
        settings: WatchSettings,
        canary_dir: Path,
        on_queued: Callable[[], None] = nothing,
        clock: Callable[[], datetime] = _utc_now,
        is_named: Callable[[str], bool] = everything,
        min_gpu_mib: Callable[[str, str | None], int | None] = no_minimum,
        on_progress: Callable[[], None] = nothing,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._registrar = Registrar(
            catalog=catalog,
            request=request,
            name_seconds=settings.unloadable_after_seconds,
            on_queued=on_queued,
            min_gpu_mib=min_gpu_mib,
        )
        self._on_progress = on_progress
        self._finder = Finder(settings, is_named, on_progress)
        self.last_scan: Scan | None = None
        self._mailbox = Mailbox()
        self._waking = make_waking(
            settings,
            mailbox=self._mailbox,
            canary_dir=canary_dir,
            is_of_interest=self._finder.is_of_interest,
        )
        self._ledger = Ledger()
        self._absences = Absences(self._ledger, self._registrar, self._finder)
        self._second_looks: dict[str, float] = {}
        self._tops: tuple[str, ...] = ()
        self._folders: tuple[str, ...] = ()
        self._unreachable: dict[str, str] = {}
        self._unstorable: dict[str, str] = {}
        self._next_scan = 0.0
        self._is_partial = False
        self._all_heard_at: float | None = None
        self._settling = Settling(
            ledger=self._ledger,
            registrar=self._registrar,
            settings=settings,
            clock=clock,
            on_missing=self._absences.suspect,
            on_whole=self._doubt_observer,
            on_progress=on_progress,
        )

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set. A lost database is retried; a wrong schema is raised."""
        pause_seconds = _FIRST_PAUSE_SECONDS
        self._tops = self._folders = self._finder.roots()
        self._waking.start(self._tops)
        log.info("watcher_started", roots=self._tops, observer=self._settings.observer)
        try:
            while not stop.is_set():
                self._on_progress()
                try:
                    self._turn(stop)
                except DatabaseError as exc:
                    if not exc.retryable:
                        raise
                    log.warning("database_unavailable", error=str(exc), retry_in=pause_seconds)
                    stop.wait(pause_seconds)
                    pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
                else:
                    pause_seconds = _FIRST_PAUSE_SECONDS
                    self._mailbox.wait(self._sleep_seconds())
        finally:
            self._waking.stop()
            log.info("watcher_stopped")

    def rescan(self) -> None:
        """Have everything read again soon; may be called from any thread."""
        self._mailbox.ask_rescan()

    def scan_once(self) -> ScanReport:
        """Look at everything twice, `settle_seconds` apart; admit what is whole."""
        counts = self._registrar.counts
        counts.clear()
        self._scan()
        self._absences.compare(self._unreachable)
        for seconds in (0.0, self._settings.settle_seconds):
            threading.Event().wait(seconds)
            self._settling.look_at_all()
        self._absences.store()
        while self._registrar.to_confirm:
            self._registrar.confirm_next()
        states = Counter(track.state for track in self._ledger.tracks.values())
        return ScanReport(
            queued=counts[Admission.QUEUED],
            twins=counts[Admission.TWIN],
            known=counts[Admission.KNOWN],
            waiting=states[FileState.SETTLING],
            unloadable=states[FileState.UNLOADABLE],
            abandoned=states[FileState.ABANDONED],
            gone=counts["gone"],
            unreachable_roots=tuple(self._unreachable),
        )

    # -- one turn of the loop ------------------------------------------------------------------

    def _turn(self, stop: threading.Event) -> None:
        self._take_hints()
        if time.monotonic() >= self._next_scan or self._wants_more():
            self._scan(at_most=PORTION)
            self._waking.scanned()
        if not self._is_partial:
            self._absences.compare(self._unreachable)
        self._waking.poll(self._poll)
        self._absences.store()
        self._settling.work(stop, seconds=_SLICE_SECONDS)
        self._absences.store()
        self._hear()
        if self._all_heard_at is None and not self._is_partial:
            self._all_heard_at = self._clock().timestamp()

    def _wants_more(self) -> bool:
        """Say whether files of which a scan did not tell can be taken in by now."""
        return self._is_partial and (
            self._ledger.unsettled + self._registrar.to_confirm < PORTION // 2
        )

    def _hear(self) -> None:
        """See that events come; look into folders of which none came until now."""
        heard = self._waking.check(self._tops, self._folders)
        known = frozenset(self._folders if heard else ())
        for folder in heard:
            if folder in self._tops:  # it was not there before
                self._mailbox.ask_rescan()
            elif not self._finder.is_resting(folder):
                sweep = self._finder.look_in(folder, deep=False)
                known_files = self._known_at_start(sweep)
                for file in sweep.files.values():
                    self._saw(file, heard=False, known=known_files.get(file.path))
                if not self._is_partial and not known.issuperset(sweep.below):
                    self._mailbox.ask_rescan()  # one came after the walk and before the watch

    def _sleep_seconds(self) -> float:
        now = time.monotonic()
        track = self._ledger.next_due()
        deadlines = [now + _SLICE_SECONDS, self._next_scan, *self._second_looks.values()]
        if track is not None and track.due is not None:
            deadlines.append(track.due)
        if (poll := self._waking.next_poll()) is not None:
            deadlines.append(poll)
        return 0.0 if self._registrar.to_confirm else max(0.0, min(deadlines) - now)

    def _take_hints(self) -> None:
        now = time.monotonic()
        hints = self._mailbox.take()
        if hints.rescan:
            self._next_scan = now
        again = {folder: True for folder, due in self._second_looks.items() if due <= now}
        for folder in again:
            del self._second_looks[folder]
        for folder, deep in (again | hints.folders).items():
            if deep and folder not in again:
                self._second_looks[folder] = now + _SECOND_LOOK_SECONDS
            self._look_in(folder, deep=deep, heard=True)

    def _poll(self, folder: str) -> int:
        return self._look_in(folder, deep=True, heard=False).state

    def _look_in(self, folder: str, *, deep: bool, heard: bool) -> Sweep:
        sweep = self._finder.look_in(folder, deep=deep)
        known = self._known_at_start(sweep)
        for file in sweep.files.values():
            is_heard = heard or sweep.is_unchanged(file)
            self._saw(file, heard=is_heard, known=known.get(file.path))
        prefix = folder.rstrip("/") + "/"
        tracks = self._ledger.tracks
        for path in [p for p in tracks if p.startswith(prefix) and p not in sweep.files]:
            self._absences.suspect(path, tracks[path].file.root)
        for path in sweep.missing:
            self._absences.suspect(path, sweep.root)
        return sweep

    def _known_at_start(self, sweep: Sweep) -> dict[str, KnownFile]:
        """Ask of files that the first walk has not come to: they are no news to the database."""
        if self._all_heard_at is not None:
            return {}
        return self._registrar.known_among([p for p in sweep.files if p not in self._ledger.tracks])

    # -- scanning ------------------------------------------------------------------------------

    def _scan(self, *, at_most: float = math.inf) -> None:
        """Walk all roots.

        Args:
            at_most: so many new files; others are left for when these are stored.
        """
        began = time.monotonic()
        goes_on = self._is_partial and began < self._next_scan
        sweeps = self._finder.sweep(at_most=at_most, tracked=self._ledger.tracks, goes_on=goes_on)
        self._is_partial = any(sweep.is_partial for sweep in sweeps)
        for sweep in sweeps:
            self._log_reachability(sweep)
            newest_first = sorted(sweep.files.values(), key=lambda f: f.mtime_ns, reverse=True)
            new = [file.path for file in newest_first if file.path not in self._ledger.tracks]
            known = self._registrar.known_among(new)
            for file in newest_first:
                heard = sweep.is_unchanged(file)
                self._saw(file, heard=heard, known=known.get(file.path))
            for path in sweep.missing:
                self._absences.suspect(path, sweep.root)
        files = sum(len(sweep.files) for sweep in sweeps) + self._finder.resting
        if not self._is_partial:
            self._absences.look_for(sweeps)
        self._watch_folders(sweeps)
        self._let_rest()
        self._registrar.retry_nameless(self._ledger.tracks)
        self._retry_renamed()
        if not goes_on:
            self._next_scan = time.monotonic() + _UNASKED * self._settings.rescan_seconds
        self.last_scan = Scan(
            ended_at=self._clock().timestamp(),
            seconds=time.monotonic() - began,
            files=files,
        )
        log.debug("scan_finished", files=files, folders=sum(s.folders for s in sweeps))

    def _let_rest(self) -> None:
        """Forget of stored files what only one that changes needs."""
        for track in self._ledger.settled():
            if not self._registrar.awaits(track.file.path) and self._finder.rest(track.file):
                self._ledger.let_rest(track.file.path)

    def _watch_folders(self, sweeps: Sequence[Sweep]) -> None:
        """Note of which folders events are wanted; after a part of a walk, of more than before."""
        links = [real for sweep in sweeps for real in sweep.links]
        mounts = [real for sweep in sweeps for real in sweep.mounts if self._waking.is_polled(real)]
        listed = [real for sweep in sweeps for real in sweep.listed]
        tops, before = self._finder.roots(), list[str]()
        if self._is_partial:
            tops = self._tops
            before = [folder for folder in self._folders if not self._finder.is_resting(folder)]
        self._tops = tuple(dict.fromkeys([*tops, *links, *mounts]))
        self._folders = tuple(dict.fromkeys([*self._tops, *before, *listed]))

    def _retry_renamed(self) -> None:
        """Confirm the files of runs whose config.json changed: it may name another base."""
        renamed = self._registrar.take_renamed()
        if not renamed:
            return
        for track in self._ledger.settled():
            if track.file.run_path in renamed:
                self._registrar.confirm_later(track)
        for run in renamed:
            self._finder.wake(run)
        self._mailbox.ask_rescan()

    def _log_reachability(self, sweep: Sweep) -> None:
        if sweep.unreachable is None:
            if self._unreachable.pop(sweep.root, None) is not None:
                log.info("root_reachable", root=sweep.root)
        elif sweep.root not in self._unreachable:
            self._unreachable[sweep.root] = sweep.unreachable
            log.warning("root_unreachable", root=sweep.root, reason=sweep.unreachable)
        for folder in sweep.unlisted:
            log.debug("folder_not_listed", folder=folder)
        for path, reason in sweep.unstorable.items():
            if path not in self._unstorable:
                log.warning("checkpoint_left_out", path=path, reason=reason)
        self._unstorable.update(sweep.unstorable)

    def _saw(self, file: SeenFile, *, heard: bool, known: KnownFile | None = None) -> None:
        self._absences.clear(file.path)
        track = self._ledger.saw(file, now=time.monotonic(), heard=heard, known=known)
        if track is not None and track.state is FileState.WHOLE:
            self._registrar.confirm_later(track)

    def _doubt_observer(self, track: Track, look: Look) -> None:
        """Where a checkpoint came without any event, the observer may be deaf."""
        changed_at = self._clock().timestamp() - look.age_seconds
        if track.heard or self._all_heard_at is None or changed_at < self._all_heard_at:
            return
        if look.age_seconds >= _LATE_EVENT_SECONDS:
            self._waking.missed(look.file.path, changed_at, _LATE_EVENT_SECONDS)
