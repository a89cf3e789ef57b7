"""Files that nptwatch writes for others to read: told apart from what people wrote or changed."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from enum import StrEnum
from pathlib import Path

from nptwatch.errors import ConfigError

_HEAD = "# Written by `nptwatch service install`, "
_SIGNED = re.compile(re.escape(_HEAD) + r"sum ([0-9a-f]{16})\n")
ASIDE = ".before"
"""Added to the name of a file that gives way to another."""


class Found(StrEnum):
    """What stands where a file of ours goes."""

    MISSING = "missing"
    """Nothing."""
    SAME = "same"
    """What would be written."""
    OURS = "ours"
    """What was written before, by other settings or another version."""
    EDITED = "edited"
    """The same, changed since."""
    FOREIGN = "foreign"
    """What somebody else put there."""


def signed(text: str) -> str:
    """Put a line above a text by which `found` knows it again."""
    return f"{_HEAD}sum {_sum(text)}\n{text}"


def found(path: Path, wanted: str) -> Found:
    """Say what stands at a path.

    Args:
        wanted: what would be written, signed.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return Found.MISSING
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if text == wanted:
        return Found.SAME
    sign = _SIGNED.match(text)
    if sign is None:
        return Found.FOREIGN
    return Found.OURS if sign[1] == _sum(text[sign.end() :]) else Found.EDITED


def write_whole(path: Path, text: str, *, mode: int = 0o644, keeps_old: bool = False) -> None:
    """Write a file with the folders above it: all of it, or nothing.

    Args:
        keeps_old: what stands there is renamed first.

    Raises:
        ConfigError: that cannot be done.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                os.fchmod(file.fileno(), mode)
            if keeps_old:
                set_aside(path)
            Path(draft).replace(path)
        except BaseException:
            Path(draft).unlink()
            raise
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def set_aside(path: Path) -> Path:
    """Rename a file that gives way; one that was set aside before it is lost.

    Returns:
        What it is called now.
    """
    aside = path.with_name(path.name + ASIDE)
    try:
        return path.replace(aside)
    except OSError as error:
        raise ConfigError(f"cannot rename {path} to {aside}: {error.strerror}") from error


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
