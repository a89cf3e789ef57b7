"""What the watcher tells the database: files seen, contents found, jobs that follow from them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from nptwatch.store.admitting import (
    CHUNK,
    admit_all,
    close_orphan,
    left_path,
    put_file,
    put_runs,
    remembered,
)
from nptwatch.store.engine import utc_now
from nptwatch.store.names import rename
from nptwatch.store.postgres import lock_runs
from nptwatch.store.records import FileState, JobState, KnownFile
from nptwatch.store.tables import Checkpoint, File

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection

    from nptwatch.store.engine import Database
    from nptwatch.store.records import Admission, Clock, Request, SeenFile, WholeFile

_AT_A_TIME = 1_000
"""Rows that are fetched at once where there may be 100,000."""

_WITHOUT_CONTENT = frozenset({FileState.SETTLING, FileState.UNLOADABLE, FileState.ABANDONED})


class Catalog:
    """Files and their contents. Every method is one transaction.

    Raises (every method):
        DatabaseError: the database cannot be used.
    """

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    def known_files(self, root: str) -> dict[str, KnownFile]:
        """Give what is remembered of the files below a root, by path; deleted ones left out."""
        return self._known([File.root == root])

    def known_among(self, paths: Collection[str]) -> dict[str, KnownFile]:
        """Give what is remembered of some files, by path; deleted and unknown ones left out."""
        return self._known([File.path.in_(chunk) for chunk in _chunks(paths)])

    def _known(self, which: Sequence[ColumnElement[bool]]) -> dict[str, KnownFile]:
        query = (
            select(
                File.path,
                File.state,
                File.signature,
                Checkpoint.fingerprint,
                File.reason,
            )
            .outerjoin(Checkpoint, Checkpoint.id == File.checkpoint_id)
            .where(File.state != FileState.DELETED)
        )
        known = {}
        with self._database.read() as connection:
            for these in which:
                rows = connection.execute(query.where(these)).mappings()
                known.update({row["path"]: KnownFile(**row) for row in rows})
        return known

    def unseen(self, root: str, is_seen: Callable[[str], bool]) -> list[str]:
        """Give the paths below a root that somebody has not seen; deleted ones left out."""
        query = select(File.path).where(File.root == root, File.state != FileState.DELETED)
        with self._database.read() as connection:
            paths = connection.scalars(query, execution_options={"yield_per": _AT_A_TIME})
            return [path for path in paths if not is_seen(path)]

    def note(self, file: SeenFile, state: FileState, reason: str) -> None:
        """Remember a file that is not whole.

        What the path held before is no longer there: a queued job for it is superseded, unless
        another file has the same content. Should the content prove unchanged, `admit` revives it.
        Where another watcher has admitted a later version of the file meanwhile, nothing is noted.

        Args:
            file: what was seen.
            state: SETTLING, UNLOADABLE or ABANDONED.
            reason: why, for people.
        """
        if state not in _WITHOUT_CONTENT:
            raise ValueError(f"note takes one of {sorted(_WITHOUT_CONTENT)}, got {state}")
        now = self._clock()
        with self._database.begin() as connection:
            run_id = put_runs(connection, [file], now)[file.run_path]  # first: it locks the run
            if _is_outdated(connection, file):
                return
            before, _ = remembered(connection, file.path)
            put_file(connection, file, run_id, now, state=state, reason=reason, checkpoint_id=None)
            if before is not None:
                left_path(connection, before, file.path, now)

    def admit(self, whole: WholeFile, request: Request) -> Admission:
        """Take in a whole file: its run, path, content and the job that is asked of it.

        A job that was closed because its content was gone is queued again, one whose files were
        all damaged only for a file that is new or rewritten; so is the job of its full diagnostic.
        Content that the path held before and no other file holds is superseded while it is only
        queued, and so is a job that asks for the same profile with other settings.
        """
        return self.admit_all([whole], request)[0]

    def admit_all(self, wholes: Sequence[WholeFile], request: Request) -> list[Admission]:
        """Take in many whole files, each as `admit` would; a backlog needs few statements."""
        named = [replace(whole, base_model=self._named(whole.base_model)) for whole in wholes]
        with self._database.begin() as connection:
            return admit_all(connection, named, request, self._clock())

    def _named(self, base_model: str | None) -> str | None:
        """Give the name that a base would be read with: others of the same folder are no other."""
        paths = self._database.paths
        return None if base_model is None else paths.here(paths.stored(base_model))

    def gone(self, paths: Collection[str]) -> int:
        """Mark files as deleted and close queued jobs whose content no file holds any more.

        Returns:
            How many jobs were closed.
        """
        now = self._clock()
        chunks = _chunks(paths)
        closed = 0
        with self._database.begin() as connection:
            runs = [select(File.run_id).where(File.path.in_(chunk)) for chunk in chunks]
            lock_runs(connection, {run for each in runs for run in connection.scalars(each)})
            for chunk in chunks:
                left = connection.scalars(
                    update(File)
                    .where(
                        File.path.in_(chunk),
                        File.state != FileState.DELETED,
                    )
                    .values(state=FileState.DELETED, reason="gone from disk", updated_at=now)
                    .returning(File.checkpoint_id)
                ).all()
                for checkpoint_id in {content for content in left if content is not None}:
                    rename(connection, checkpoint_id)
                    reason = "deleted from disk before it was measured"
                    closed += close_orphan(connection, checkpoint_id, JobState.DELETED, reason, now)
        return closed


def _is_outdated(connection: Connection, file: SeenFile) -> bool:
    """Say if the path is known to be whole, by a look that came after this one."""
    known = select(File.mtime_ns, File.size_bytes).where(
        File.path == file.path, File.state == FileState.WHOLE
    )
    found = connection.execute(known).one_or_none()
    return found is not None and (found.mtime_ns, found.size_bytes) > (
        file.mtime_ns,
        file.size_bytes,
    )


def _chunks(paths: Collection[str]) -> list[list[str]]:
    """Part paths into as many as one statement takes."""
    every = list(paths)
    return [every[start : start + CHUNK] for start in range(0, len(every), CHUNK)]
