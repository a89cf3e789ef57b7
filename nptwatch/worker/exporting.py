"""A copy of a kept checkpoint where a person wants it: whole or not at all, over nothing."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from nptwatch.errors import CheckpointDeletedError, ConfigError
from nptwatch.worker.cards import CARD, CONFIG
from nptwatch.worker.pins import Pinner

if TYPE_CHECKING:
    from collections.abc import Sequence


def export(weights: Path, content: str, folder: Path, roots: Sequence[Path]) -> list[Path]:
    """Copy a kept checkpoint's weights, card and base model's name into a new folder.

    Args:
        weights: the kept file.
        content: fingerprint that it must have.
        folder: is made; may be there if it is empty.
        roots: watched directories, into which nothing is written.

    Returns:
        The files, the weights first.

    Raises:
        ConfigError: the folder holds something, or cannot be written; nothing is left there.
        CheckpointError: the kept file is gone or is not what was kept.
    """
    folder = Path(os.path.realpath(folder))
    _require_outside(folder, roots)
    making = folder.with_name(f".{folder.name}.{uuid.uuid4()}")
    try:
        making.mkdir(parents=True)
        source = Path(os.path.realpath(weights))
        pinner = Pinner(reserve_bytes=0, stopping=lambda: False)
        pinner.pin(source, making / source.name, content=content, may_link=False)
        others = [source.parents[1] / CARD, source.parent / CONFIG]
        for path in others:
            if path.exists():
                shutil.copyfile(path, making / path.name)
        making.rename(folder)
    except OSError as exc:
        if exc.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise ConfigError(f"{folder} is not empty: name a new folder") from exc
        raise ConfigError(f"{folder} cannot be written: {exc.strerror or exc}") from exc
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return [folder / name for name in (source.name, CARD, CONFIG) if (folder / name).exists()]


def require_here(weights: Path, host: str) -> None:
    """Hold that a kept file can be read from here.

    Raises:
        CheckpointDeletedError: it cannot; names the host that has it.
    """
    if not weights.is_file():
        raise CheckpointDeletedError(
            f"{weights} is not here: it was kept by host {host}; run this there"
        )


def _require_outside(folder: Path, roots: Sequence[Path]) -> None:
    for root in roots:
        if folder.is_relative_to(os.path.realpath(root)):
            raise ConfigError(
                f"{folder} lies below the watched root {root}, where it would be a new checkpoint:"
                " name a folder elsewhere"
            )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty: name a new folder")
