"""Reading a report that anybody may have written: a field is there, or it is None. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def number_at(report: object, *keys: str) -> float | None:
    """Look a finite number up below these keys; None where it is not."""
    value = at(report, *keys)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def word_at(report: object, *keys: str) -> str | None:
    """Look a word or whole number up below these keys; None where it is not."""
    value = at(report, *keys)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def list_at(report: object, key: str) -> list[Any]:  # Any: free JSON
    """Look a list up; empty where there is none."""
    value = at(report, key)
    return value if isinstance(value, list) else []


def at(report: object, *keys: str) -> Any:  # noqa: ANN401 - free JSON
    """Walk down these keys; None where one is missing."""
    for key in keys:
        if not isinstance(report, Mapping):
            return None
        report = report.get(key)
    return report
