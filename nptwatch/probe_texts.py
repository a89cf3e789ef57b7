"""Reads texts of one's own that checkpoints are measured on (`diagnostic.probes`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nptwatch.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MAX_TEXTS_BYTES = 1024 * 1024


def read_texts(path: Path) -> tuple[str, ...]:
    """Read probe texts: one a line, or of a .jsonl file each line's "text"; empty lines are none.

    Raises:
        ConfigError: it cannot be read, holds no text, or is no probe file; names the line.
    """
    try:
        if path.stat().st_size > MAX_TEXTS_BYTES:
            raise ConfigError(f"{path}: more than a MiB is no list of short texts")
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"probe texts {path} cannot be read: {exc}") from exc
    texts = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not texts:
        raise ConfigError(f"{path}: no text in it; write one a line")
    if path.suffix == ".jsonl":
        return tuple(_json_text(path, number, line) for number, line in texts)
    return tuple(text for _, text in texts)


def _json_text(path: Path, number: int, line: str) -> str:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{path}, line {number}: no JSON ({exc})") from exc
    text = entry.get("text") if isinstance(entry, dict) else entry
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f'{path}, line {number}: expected a text, or an object with a "text"')
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(f"{path}, line {number}: half a character (a lone surrogate)")
    return text
