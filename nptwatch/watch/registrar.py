"""Tells the database what became of each file."""

from __future__ import annotations

import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from nptwatch.errors import DatabaseError
from nptwatch.npt.files import CONFIG, base_model_of, step_of
from nptwatch.store.records import Admission, FileState, WholeFile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from nptwatch.store.catalog import Catalog
    from nptwatch.store.records import KnownFile, Request, SeenFile
    from nptwatch.watch.readiness import Decision, Track

BATCH = 100
"""So many whole files are stored in one transaction."""

log = structlog.get_logger(__name__)


def no_minimum(_run_name: str, _base_model: str | None) -> None:
    """Let jobs need no GPU memory."""


class Registrar:
    """Writes notes, admissions and deletions; every method may raise DatabaseError.

    Args:
        name_seconds: for how long a new checkpoint whose base nobody names is asked for it again.
        on_queued: called after a job was queued.
        min_gpu_mib: GPU memory that jobs of a run (its name) and base need.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        request: Request,
        name_seconds: float,
        on_queued: Callable[[], None],
        min_gpu_mib: Callable[[str, str | None], int | None] = no_minimum,
    ) -> None:
        self._catalog = catalog
        self._request = request
        self._name_seconds = name_seconds
        self._on_queued = on_queued
        self._min_gpu_mib = min_gpu_mib
        self._nameless: dict[str, float] = {}
        self._again: dict[str, Track] = {}
        self._configs: dict[str, str] = {}
        self._renamed: set[str] = set()
        self.counts: Counter[str] = Counter()

    def known_among(self, paths: Collection[str]) -> dict[str, KnownFile]:
        """Return what the database knows of some files, by path.

        Where it cannot be asked now it is nothing: admission will tell that they were known.
        """
        try:
            return self._catalog.known_among(paths) if paths else {}
        except DatabaseError as exc:
            if not exc.retryable:
                raise
            return {}

    def unseen(self, root: str, is_seen: Callable[[str], bool]) -> list[str]:
        """Return the paths that the database knows below a root and somebody has not seen."""
        return self._catalog.unseen(root, is_seen)

    def note(self, track: Track, decision: Decision) -> None:
        """Store a state other than whole, unless only a number in its reason is new."""
        noted = (decision.state, decision.reason)
        if track.noted is not None and _without_numbers(track.noted) == _without_numbers(noted):
            return
        self._catalog.note(track.file, decision.state, decision.reason)
        track.noted = noted
        tell = log.debug if decision.state is FileState.SETTLING else log.warning
        tell(f"checkpoint_{decision.state}", path=track.file.path, reason=decision.reason)

    def admit(self, found: Sequence[tuple[Track, str]]) -> None:
        """Store whole files and queue their jobs where they have none.

        Args:
            found: tracks with the fingerprints of their files.
        """
        wholes = [self._whole(track, fingerprint) for track, fingerprint in found]
        if not wholes:
            return
        admissions = self._catalog.admit_all(wholes, self._request)
        for (track, _), whole, admission in zip(found, wholes, admissions, strict=True):
            file = whole.file
            track.noted = (FileState.WHOLE, "")
            self.counts[admission] += 1
            self._remember_nameless(file, whole.base_model)
            tell = log.debug if admission is Admission.KNOWN else log.info
            tell(f"checkpoint_{admission}", run=file.run_name, step=whole.step, path=file.path)
        if Admission.QUEUED in admissions:
            self._on_queued()

    def _whole(self, track: Track, fingerprint: str) -> WholeFile:
        """Read beside a file what its step and base are."""
        file = track.file
        path = Path(file.path)
        self._note_config(file.run_path)
        base_model = base_model_of(path, Path(file.run_path))
        return WholeFile(
            file=file,
            fingerprint=fingerprint,
            step=step_of(path),
            base_model=base_model,
            min_gpu_mib=self._min_gpu_mib(file.run_name, base_model),
        )

    def gone(self, paths: Collection[str]) -> None:
        """Store that files were deleted."""
        closed = self._catalog.gone(paths)
        for path in paths:
            self._again.pop(path, None)
        self.counts["gone"] += len(paths)
        log.info("checkpoints_deleted", files=len(paths), jobs_closed=closed, first=min(paths))

    def confirm_later(self, track: Track) -> None:
        """Have a file that is known as whole admitted again: the request may be another now."""
        self._again[track.file.path] = track

    @property
    def to_confirm(self) -> int:
        """How many files `confirm_next` has to admit."""
        return len(self._again)

    def awaits(self, path: str) -> bool:
        """Say whether a file that is known as whole is not done with yet."""
        return path in self._again or path in self._nameless

    def confirm_next(self) -> None:
        """Admit the next files to confirm, a batch of them."""
        batch = list(islice(self._again.values(), BATCH))
        self.admit(
            [
                (track, track.fingerprint)
                for track in batch
                if track.state is FileState.WHOLE and track.fingerprint is not None
            ]
        )
        for track in batch:
            self._again.pop(track.file.path, None)

    def retry_nameless(self, tracks: dict[str, Track]) -> None:
        """Confirm checkpoints whose base is named by now: trainers write config.json last."""
        now = time.monotonic()
        for path, until in list(self._nameless.items()):
            track = tracks.get(path)
            if track is None or now > until:
                del self._nameless[path]
            elif base_model_of(Path(path), Path(track.file.run_path)) is not None:
                self.confirm_later(track)

    def take_renamed(self) -> set[str]:
        """Give the runs whose config.json changed since a file was admitted, once.

        It may name another base by now, for all their files.
        """
        for run in list(self._configs):
            self._note_config(run)
            if not self._configs[run] and not Path(run).exists():
                del self._configs[run]
        renamed, self._renamed = self._renamed, set()
        return renamed

    def _note_config(self, run: str) -> None:
        stamp = config_stamp(run)
        if self._configs.setdefault(run, stamp) != stamp:
            self._configs[run] = stamp
            self._renamed.add(run)

    def _remember_nameless(self, file: SeenFile, base_model: str | None) -> None:
        age_seconds = time.time() - file.mtime_ns / 1e9
        if base_model is None and age_seconds < self._name_seconds:
            self._nameless.setdefault(file.path, time.monotonic() + self._name_seconds)
        else:
            self._nameless.pop(file.path, None)


def config_stamp(run_path: str) -> str:
    """Give what changes when a run's config.json does; empty where it has none."""
    try:
        found = (Path(run_path) / CONFIG).stat()
    except OSError:
        return ""
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ino}"


def _without_numbers(noted: tuple[FileState, str]) -> tuple[FileState, str]:
    """Sizes and ages in a reason change at every look; they are not worth a write each."""
    state, reason = noted
    return state, "".join(c for c in reason if not c.isdigit())
