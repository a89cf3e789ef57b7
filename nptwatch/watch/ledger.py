"""The tracked files, when each is due for its next look, and those that nobody finds."""

from __future__ import annotations

import heapq
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from nptwatch.npt.files import step_of_folder
from nptwatch.store.records import FileState
from nptwatch.watch.readiness import Track

if TYPE_CHECKING:
    from nptwatch.store.records import KnownFile, SeenFile


class Ledger:
    """Tracks by path, with their deadlines in a heap; an outdated deadline is skipped.

    Attributes:
        tracks: by real path.
        unseen: root by real path, of files that the database knows and no scan has come by.
    """

    def __init__(self) -> None:
        self.tracks: dict[str, Track] = {}
        self.unseen: dict[str, str] = {}
        self._deadlines: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._newest_whole: dict[str, int] = {}

    def saw(
        self, file: SeenFile, *, now: float, heard: bool, known: KnownFile | None = None
    ) -> Track | None:
        """Take a sighting.

        Args:
            now: monotonic seconds.
            heard: an event led to it, not a scan.
            known: what the database knows of a file that is not tracked.

        Returns:
            The track, where the file is new or has changed; None where nothing is to be done.
        """
        track = self.tracks.get(file.path)
        if track is None:
            return self._begin(file, known, now=now, heard=heard)
        track.heard = track.heard or heard
        if track.file.signature == file.signature:
            if heard and track.state is FileState.SETTLING:
                self.schedule(track, now)
            return None
        if track.state is not FileState.SETTLING:
            track.state, track.heard = FileState.SETTLING, heard
        self.schedule(track, now)
        return track

    def schedule(self, track: Track, due: float | None) -> None:
        """Set when a file is looked at next; None: when it changes."""
        track.due = due
        if due is not None:
            heapq.heappush(self._deadlines, (due, next(self._order), track.file.path))

    def next_due(self) -> Track | None:
        """Return the open file whose look is due first."""
        while self._deadlines:
            due, _, path = self._deadlines[0]
            track = self.tracks.get(path)
            if track is not None and track.due == due:
                return track
            heapq.heappop(self._deadlines)
        return None

    def became_whole(self, track: Track) -> None:
        """Note the step of a whole file for its run."""
        step = step_of_folder(Path(track.file.path))
        run = track.file.run_path
        if step is not None:
            self._newest_whole[run] = max(step, self._newest_whole.get(run, step))

    def newest_step(self, run_path: str) -> int | None:
        """Return the highest numbered step of a run that is whole."""
        return self._newest_whole.get(run_path)

    def forget(self, path: str) -> None:
        """Drop a file that is gone."""
        self.tracks.pop(path, None)
        self.unseen.pop(path, None)

    def settled(self) -> list[Track]:
        """Return the whole files that nothing is waited for."""
        return [t for t in self.tracks.values() if t.state is FileState.WHOLE and t.due is None]

    @property
    def unsettled(self) -> int:
        """Number of files that are not whole yet."""
        return sum(t.state is FileState.SETTLING for t in self.tracks.values())

    def let_rest(self, path: str) -> None:
        """Drop a whole file: should it change, it is as good as new."""
        del self.tracks[path]

    def paths(self) -> dict[str, str]:
        """Return the root of every path that is tracked or looked for."""
        return self.unseen | {path: track.file.root for path, track in self.tracks.items()}

    def _begin(
        self, file: SeenFile, known: KnownFile | None, *, now: float, heard: bool
    ) -> Track | None:
        track = Track(file=file, heard=heard)
        self.tracks[file.path] = track
        self.unseen.pop(file.path, None)
        if known is not None:
            track.noted = (known.state, known.reason or "")
            settled = known.state is not FileState.SETTLING and known.signature == file.signature
            if settled:  # it has not changed since: it is not even opened
                track.state, track.fingerprint = known.state, known.fingerprint
                if known.state is FileState.WHOLE:
                    self.became_whole(track)
                return track
        self.schedule(track, now)
        return track
