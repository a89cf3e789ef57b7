"""Whether a kept file still is what was kept, and its card."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

from nptwatch.errors import CheckpointError
from nptwatch.npt.files import check_crc, fingerprint
from nptwatch.worker.cards import CARD, card_of, numbers_of, write_json
from nptwatch.worker.pins import How, Pinned, signature_of

if TYPE_CHECKING:
    from pathlib import Path

    from nptwatch.store.records import KeptRow
    from nptwatch.worker.pins import Pinner


def fault_of(row: KeptRow, weights: Path) -> str | None:
    """Say what is wrong with a kept file, if anything is; it is read only where it was touched.

    Raises:
        OSError: that cannot be told now: the disk's fault, or that of somebody's rights.
    """
    try:
        about = weights.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return f"{weights} is gone"
    if not stat.S_ISREG(about.st_mode):
        return f"{weights} is no file any more"
    if row.file is not None and signature_of(about) == row.file.signature:
        return None
    try:
        if fingerprint(weights) != row.fingerprint:
            return "the trainer rewrote its file in place, and so this other name of it"
        check_crc(weights)
    except CheckpointError as error:
        if isinstance(error.__cause__, OSError):
            raise OSError(str(error)) from error
        return str(error)
    return None


def holds(row: KeptRow, weights: Path) -> bool:
    """Tell whether a file has a checkpoint's content, to the last bit."""
    try:
        check_crc(weights)
        return fingerprint(weights) == row.fingerprint
    except CheckpointError:
        return False


def inspected(weights: Path, pinner: Pinner) -> Pinned:
    """Say of a kept file what was said when it was made."""
    about = weights.lstat()
    return Pinned(
        how=How.LINK if about.st_nlink > 1 else How.COPY,
        size_bytes=about.st_size,
        sha256=pinner.digest(weights),
        signature=signature_of(about),
    )


def refresh_card(row: KeptRow, weights: Path, pinner: Pinner, host: str) -> None:
    """Let the card have the newest numbers: the full diagnostic comes later."""
    path = weights.parents[1] / CARD
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))  # Any: free JSON
    except (OSError, ValueError):
        card = card_of(row, inspected(weights, pinner), row.original, host)
    write_json(path, card | numbers_of(row))
