"""Which kept checkpoints make room for others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nptwatch.worker.cards import is_good, mse_of
from nptwatch.worker.policy import REACHED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.store.records import KeptRow


def released_first(rows: Sequence[KeptRow]) -> list[KeptRow]:
    """Sort what may be released: former bests, then others, the oldest first.

    Never of any run: its best, and its newest that is GOOD.
    """
    never = {row.kept_id for run in _by_run(rows) for row in _never(run)}
    return sorted(
        (row for row in rows if row.kept_id not in never),
        key=lambda row: (REACHED in row.because, row.kept_id),
    )


def to_release(rows: Sequence[KeptRow], max_bytes: int) -> list[KeptRow] | None:
    """Say which to release so that the rest fits; None: it does not even then.

    Args:
        rows: what is kept, and what is to be.
    """
    excess = sum(_bytes(row) for row in rows) - max_bytes
    losers = []
    for row in released_first(rows):
        if excess <= 0:
            break
        losers.append(row)
        excess -= _bytes(row)
    return losers if excess <= 0 else None


def _by_run(rows: Sequence[KeptRow]) -> list[list[KeptRow]]:
    runs: dict[str, list[KeptRow]] = {}
    for row in rows:
        runs.setdefault(row.run_path, []).append(row)
    return list(runs.values())


def _never(run: Sequence[KeptRow]) -> list[KeptRow]:
    best = min(run, key=lambda row: (mse_of(row), row.kept_id))
    good = [row for row in run if is_good(row)]
    newest = max(good, key=lambda row: (row.step or -1, row.kept_id), default=best)
    return [best, newest]


def _bytes(row: KeptRow) -> int:
    return row.size_bytes if row.file is None else row.file.size_bytes
