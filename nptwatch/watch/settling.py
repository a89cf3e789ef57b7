"""Looks at files until each is whole and stored, or given up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from nptwatch.errors import CheckpointDeletedError, DatabaseError
from nptwatch.store.records import FileState
from nptwatch.watch.readiness import decide, look_at, patience_of
from nptwatch.watch.registrar import BATCH

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from datetime import datetime

    from nptwatch.settings import WatchSettings
    from nptwatch.watch.ledger import Ledger
    from nptwatch.watch.readiness import Look, Track
    from nptwatch.watch.registrar import Registrar

log = structlog.get_logger(__name__)


class Settling:
    """The files that are looked at again and again, each when it is due.

    Every method may raise DatabaseError; what could not be stored is due once more then.

    Args:
        clock: wall-clock time.
        on_missing: called with path and root of a file that is not there.
        on_whole: called after a file was stored.
        on_progress: called at each look.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        registrar: Registrar,
        settings: WatchSettings,
        clock: Callable[[], datetime],
        on_missing: Callable[[str, str], None],
        on_whole: Callable[[Track, Look], None],
        on_progress: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._registrar = registrar
        self._settings = settings
        self._patience = patience_of(settings)
        self._clock = clock
        self._on_missing = on_missing
        self._on_whole = on_whole
        self._on_progress = on_progress
        self._whole: list[tuple[Track, Look]] = []

    def look_at_all(self) -> None:
        """Look at every file that is not whole, whether due or not, the newest first."""
        tracks = [t for t in self._ledger.tracks.values() if t.state is FileState.SETTLING]
        for track in sorted(tracks, key=lambda t: t.file.mtime_ns, reverse=True):
            self._look(track)
        self._flush_whole()

    def work(self, stop: threading.Event, *, seconds: float) -> None:
        """Look at what is due, for so long; then confirm what was known at start.

        What was found whole is stored before anything is heard of it again: looks that could not
        be are due once more.
        """
        try:
            self._look_for(stop, seconds)
            self._flush_whole()
        except DatabaseError:
            for track, _ in self._whole:
                self._ledger.schedule(track, time.monotonic())
            self._whole.clear()
            raise

    def _look_for(self, stop: threading.Event, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until and not stop.is_set():
            track = self._ledger.next_due()
            if track is not None and track.due is not None and track.due <= now:
                self._look(track)
            elif self._whole:
                self._flush_whole()
            elif self._registrar.to_confirm:
                self._registrar.confirm_next()
            else:
                return

    def _look(self, track: Track) -> None:
        self._on_progress()
        now = time.monotonic()
        try:
            look = look_at(
                track.file, self._settings.markers, at=now, wall=self._clock().timestamp()
            )
        except CheckpointDeletedError:
            self._ledger.schedule(track, now + self._settings.rescan_seconds)
            self._on_missing(track.file.path, track.file.root)
            return
        same_seconds = track.take(look)
        newest = self._ledger.newest_step(look.file.run_path)
        decision = decide(look, same_seconds, newest, self._patience)
        if decision.state is FileState.WHOLE and look.fingerprint is not None:
            if decision.reason:
                log.warning("marker_ignored", path=look.file.path, reason=decision.reason)
            self._whole.append((track, look))
            self._ledger.schedule(track, None)
            if len(self._whole) >= BATCH:
                self._flush_whole()
            return
        if look.fault is not None:  # else complete, to be looked at once more: not worth a row
            self._registrar.note(track, decision)  # on failure the look stays due and is repeated
        track.state = decision.state
        recheck = decision.recheck_seconds
        self._ledger.schedule(track, None if recheck is None else now + recheck)

    def _flush_whole(self) -> None:
        """Store the files that were found whole."""
        self._registrar.admit([(track, str(look.fingerprint)) for track, look in self._whole])
        for track, look in self._whole:
            track.state = FileState.WHOLE
            self._ledger.became_whole(track)
            self._on_whole(track, look)
        self._whole.clear()
