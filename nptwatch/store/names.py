"""Which of several paths with the same content names it best."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING

from sqlalchemy import exists, select, update

from nptwatch.store.records import FileState, KeptState
from nptwatch.store.tables import Checkpoint, File, KeptCheckpoint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import InstrumentedAttribute

_NUMBERED = re.compile(r"checkpoint-(\d{1,15})")


def numbered_step(path: str) -> int | None:
    """Give n of a weights file in a folder `checkpoint-<n>`: the step nobody disputes."""
    match = _NUMBERED.fullmatch(PurePath(path).parent.name)
    return int(match[1]) if match else None


def best_first(paths: Iterable[str]) -> list[str]:
    """Sort paths of one content: numbered ones first, then by name (best/ before final/)."""
    return sorted(paths, key=lambda path: (numbered_step(path) is None, path))


def held(checkpoint_id: InstrumentedAttribute[int] | int) -> ColumnElement[bool]:
    """Whether any file has a checkpoint's content: the trainer's, or one that is kept."""
    whole = exists().where(File.checkpoint_id == checkpoint_id, File.state == FileState.WHOLE)
    kept = exists().where(
        KeptCheckpoint.checkpoint_id == checkpoint_id, KeptCheckpoint.state == KeptState.KEPT
    )
    return whole | kept


def rename(connection: Connection, checkpoint_id: int) -> None:
    """Let a checkpoint's `path` be its best name: still whole before gone, numbered before others.

    Where no file has its content any more the last name stays.
    """
    files = connection.execute(
        select(File.path, File.state).where(File.checkpoint_id == checkpoint_id)
    ).all()
    whole = [row.path for row in files if row.state is FileState.WHOLE]
    names = best_first(whole or [row.path for row in files])
    if names:
        connection.execute(
            update(Checkpoint)
            .where(Checkpoint.id == checkpoint_id, Checkpoint.path != names[0])
            .values(path=names[0])
        )
