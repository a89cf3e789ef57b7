"""Numbers and reports as both engines can store them: no NaN, no infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:  # noqa: ANN401 - a column's value in and out
    """Replace NaN and infinity by None: SQLite would do so silently, Postgres not at all."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_of(value: Any) -> Any:  # noqa: ANN401 - free JSON in and out
    """Copy a report with what JSON has: no NaN, no infinity.

    Raises:
        TypeError: something in it is not JSON, which is a bug of whoever made it.
    """
    if isinstance(value, Mapping):
        return {str(key): json_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_of(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return finite(value)
    raise TypeError(f"a report holds text, numbers, lists and objects, not {value!r}")
