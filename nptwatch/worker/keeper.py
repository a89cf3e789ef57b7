"""Keeps good checkpoints: what the database says is wanted is made, what is released is removed.

Everybody may take a turn, the worker right after a result and the daemon every few seconds. A turn
does whatever is left to do, so that it does not matter where the one before was killed.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from nptwatch.errors import CheckpointDeletedError, CheckpointError
from nptwatch.store.names import numbered_step
from nptwatch.store.records import KeptFile, KeptState
from nptwatch.worker.cards import best_good, card_of, numbers_of, pointer_of
from nptwatch.worker.looking import fault_of, holds, inspected, refresh_card
from nptwatch.worker.pins import Pinner, StoppedError, signature_of
from nptwatch.worker.room import to_release

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nptwatch.settings import KeptSettings
    from nptwatch.store.kept import Kept
    from nptwatch.store.records import KeptRow
    from nptwatch.worker.pins import Pinned
    from nptwatch.worker.shelf import Shelf

NO_ROOM = "no room: kept.max_gib is filled by what is better or newer"
TOO_SMALL = (
    "no room: kept.max_gib is filled by what is never released (each run's best and newest GOOD);"
    " raise it, or see `nptwatch kept release`"
)

log = structlog.get_logger()


class Keeper:
    """Minds one folder `kept/`.

    Args:
        stopping: asked between pieces of a copy.
    """

    def __init__(
        self,
        *,
        store: Kept,
        shelf: Shelf,
        settings: KeptSettings,
        stopping: Callable[[], bool],
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._max_bytes = settings.max_bytes
        self._pinner = Pinner(reserve_bytes=settings.reserve_bytes, stopping=stopping)
        self._stopping = stopping
        self._host = socket.gethostname()
        self._told: dict[int | None, str] = {}
        self._written: dict[int, dict[str, Any]] = {}  # Any: free JSON
        """Numbers that cards were seen to have."""

    def turn(self, *, wait: bool = False) -> bool:
        """Do all that is to be done; what the disk refuses is noted and logged, never raised.

        Args:
            wait: for a turn that somebody else has; else leave it to them.

        Returns:
            False: somebody else has the turn.

        Raises:
            DatabaseError: the database cannot be used.
        """
        wanted = self._store.wanted()
        if not wanted and not self._shelf.exists():
            return True  # a folder that nobody needs is not made
        try:
            with self._shelf.turn(wait=wait) as free:
                if free:
                    self._do()
                    self._told.pop(None, None)
                return free
        except StoppedError:
            return True
        except OSError as error:
            self._tell(None, error)
            for row in wanted:
                self._store.failed(row.kept_id, f"{self._shelf.folder}: {error}")
            return True

    def tidy(self) -> bool:
        """Remove what was released, and make nothing.

        Returns:
            False: it could not be done now; the daemon will.
        """
        if not self._shelf.exists():
            return True
        try:
            with self._shelf.turn(wait=False) as free:
                if free:
                    self._tidied()
                return free
        except OSError as error:
            self._tell(None, error)
            return False

    def _do(self) -> None:
        place, kept = self._tidied()
        if not self._max_bytes:
            return
        wanted = self._store.wanted()
        for row in wanted:
            self._keep(row, place)
        self._release(to_release(self._kept(place) if wanted else kept, self._max_bytes) or ())

    def _tidied(self) -> tuple[str, list[KeptRow]]:
        """Bring what is there in line with the database; give whose folder it is, and what is kept.

        Where nothing happened that is one question to the database: turns are taken often.
        """
        place = self._shelf.place()
        self._shelf.sweep()
        rows = self._store.rows(place=place)
        kept = [row for row in rows if row.state is KeptState.KEPT]
        self._point(kept)  # first: nothing that was released is pointed at any more
        changed = [self._mind_safely(row, place) for row in rows]
        if any(changed):
            kept = self._kept(place)
            self._point(kept)
        return place, kept

    def _kept(self, place: str) -> list[KeptRow]:
        rows = self._store.rows(place=place)
        return [row for row in rows if row.state is KeptState.KEPT]

    # -- what is there -------------------------------------------------------------------------

    def _mind_safely(self, row: KeptRow, place: str) -> bool:
        """Let one file that cannot be read or removed hold up no other; told once."""
        try:
            changed = self._mind(row, place)
        except OSError as error:
            self._tell(row, error)
            return False
        self._told.pop(row.kept_id, None)
        return changed

    def _tell(self, row: KeptRow | None, error: OSError) -> None:
        """Log what is wrong with a kept file, or with the folder, once while it is so."""
        key = None if row is None else row.kept_id
        if self._told.get(key) == str(error):
            return
        self._told[key] = str(error)
        if row is None:
            log.error("keeping_failed", folder=str(self._shelf.folder), error=str(error))
        else:
            log.error("kept_file_unusable", run=row.run, step=row.step, error=str(error))

    def _mind(self, row: KeptRow, place: str) -> bool:
        """Hold that a kept file is what was kept, remove one that was released; true: changed."""
        assert row.file is not None, "it was asked for by its place"  # noqa: S101
        weights = self._shelf.located(row.file.path)
        if row.state is KeptState.RELEASED:
            self._clear(row)
            return True
        fault = fault_of(row, weights)
        if fault is not None:
            self._shelf.take_away(weights.parents[1])
            if self._store.spoiled(row.kept_id, place, fault):
                log.error("kept_file_lost", run=row.run, step=row.step, reason=fault)
            return True
        signature = signature_of(weights.lstat())
        now = KeptFile(
            place=place,
            host=self._host,
            path=str(weights),
            how=row.file.how,
            size_bytes=row.file.size_bytes,
            signature=signature,
        )
        changed = now != row.file
        if changed:
            self._store.seen(row.kept_id, now)
        numbers = numbers_of(row)
        if self._written.get(row.kept_id) != numbers:
            refresh_card(row, weights, self._pinner, self._host)
            self._written[row.kept_id] = numbers
        return changed

    # -- what is to come -----------------------------------------------------------------------

    def _keep(self, row: KeptRow, place: str) -> None:
        if self._stopping():
            raise StoppedError
        found = self._shelf.found(row)
        if found is None and not row.sources:
            return  # lost, or another host's
        losers = to_release([*self._kept(place), row], self._max_bytes)
        if losers is None:
            self._failed(row, TOO_SMALL)
        elif row in losers:
            self._store.release([row.kept_id], NO_ROOM)
            log.info("not_kept", run=row.run, step=row.step, reason=NO_ROOM)
        elif (file := self._adopted(row, found, place) or self._made(row, place)) is not None:
            if self._store.made(row.kept_id, file):
                log.info(
                    "kept", run=row.run, step=row.step, because=row.because, how=file.how,
                    path=file.path,
                )  # fmt: skip
                self._release(losers)
                self._point(self._kept(place))
            else:  # another host has it, or it was released meanwhile
                self._shelf.take_away(Path(file.path).parents[1])

    def _adopted(self, row: KeptRow, found: Path | None, place: str) -> KeptFile | None:
        """Take what was put there by a process that was killed before it could say so."""
        if found is None:
            return None
        if not holds(row, found):
            return None
        return self._file(found, inspected(found, self._pinner), place)

    def _made(self, row: KeptRow, place: str) -> KeptFile | None:
        """Make the file of the first of the trainer's that still has the content."""
        error: Exception | None = None
        for source in row.sources:
            try:
                return self._made_of(row, source, place)
            except CheckpointDeletedError:
                continue  # or never was on this host
            except (CheckpointError, OSError) as problem:
                error = problem
        if error is not None:
            self._failed(row, str(error))
        return None

    def _made_of(self, row: KeptRow, source: str, place: str) -> KeptFile:
        pins: list[Pinned] = []

        def make(target: Path) -> dict[str, Any]:  # Any: free JSON
            pins.append(
                self._pinner.pin(
                    Path(source),
                    target,
                    content=row.fingerprint,
                    may_link=numbered_step(source) is not None,
                )
            )
            return card_of(row, pins[0], source, self._host)

        weights = self._shelf.put(row, Path(source).name, make)
        return self._file(weights, pins[0], place)

    def _file(self, weights: Path, pinned: Pinned, place: str) -> KeptFile:
        return KeptFile(
            place=place,
            host=self._host,
            path=str(weights),
            how=str(pinned.how),
            size_bytes=pinned.size_bytes,
            signature=pinned.signature,
        )

    def _failed(self, row: KeptRow, error: str) -> None:
        """Note why something is not kept, and log it once; it is tried again at each turn."""
        if self._store.failed(row.kept_id, error):
            log.error("keep_failed", run=row.run, step=row.step, error=error)

    # -- what goes -----------------------------------------------------------------------------

    def _release(self, losers: Sequence[KeptRow]) -> None:
        for row in losers:
            if self._store.release([row.kept_id], "released to make room (kept.max_gib)"):
                log.info("kept_released", run=row.run, step=row.step, reason="to make room")
                self._clear(row)

    def _clear(self, row: KeptRow) -> None:
        if row.file is not None:
            self._shelf.take_away(self._shelf.located(row.file.path).parents[1])
            self._store.cleared(row.kept_id)

    def _point(self, kept: Sequence[KeptRow]) -> None:
        """Let each run's GOOD.json name its best GOOD checkpoint that is kept."""
        runs: dict[Path, list[KeptRow]] = {}
        for row in kept:
            assert row.file is not None, "kept has a file"  # noqa: S101
            runs.setdefault(self._shelf.located(row.file.path).parents[2], []).append(row)
        best = {folder: best_good(rows) for folder, rows in runs.items()}
        self._shelf.point(
            {folder: pointer_of(row) for folder, row in best.items() if row is not None}
        )
