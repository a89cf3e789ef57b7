"""`--since`: a step, a time, or how long ago, told apart by how they are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from nptwatch.errors import ConfigError

_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE = re.compile(rf"(\d+(?:\.\d+)?)\s*({'|'.join(_UNITS)})")
_LARGEST_STEP = 10**15


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """Where a history begins; one of the two, or none for all of it."""

    step: int | None = None
    at: datetime | None = None


def parse_since(text: str | None, *, now: datetime) -> Since:
    """Understand `--since`.

    Args:
        text: `500` a step; `90min`, `3h`, `2d` how long ago; `2026-11-22` or `2026-11-22T18:30` a
            time, in UTC unless it names its offset.
        now: what ages are counted from.

    Raises:
        ConfigError: it is none of these.
    """
    if text is None:
        return Since()
    text = text.strip()
    if text.isdecimal() and int(text) < _LARGEST_STEP:
        return Since(step=int(text))
    try:
        if match := _AGE.fullmatch(text):
            return Since(at=now - timedelta(**{_UNITS[match[2]]: float(match[1])}))
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as exc:
        raise ConfigError(
            f"--since takes a step (500), an age (90min, 3h, 2d) or a time (2026-11-22T18:30), "
            f"got {text!r}"
        ) from exc
    return Since(at=at if at.tzinfo else at.replace(tzinfo=UTC))
