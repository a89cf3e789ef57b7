"""Columns that hold paths: the database's names inside, this host's outside (nptwatch/paths.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, TypeDecorator

from nptwatch.paths import PathMap

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from sqlalchemy.engine import Connection, Dialect

    Report: TypeAlias = dict[str, Any]  # Any: free JSON

_PATHS = "nptwatch_paths"
_SAME = PathMap()


class HostPath(TypeDecorator[str]):
    """A path, or a base model's name, translated on its way in and out of a statement.

    SQL compares and sorts the database's names; parts of paths, and plain SQL, are not translated.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Give the database's name; NUL, which Postgres cannot store, is replaced (AnyText)."""
        return None if value is None else paths_of(dialect).stored(value).replace("\0", "\ufffd")

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:  # noqa: ANN401 - as declared
        """Give what turns a value into this host's name; None: nothing needs to be called."""
        return super().result_processor(dialect, coltype) if paths_of(dialect) else None

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Give this host's name."""
        return None if value is None else paths_of(dialect).here(value)


def translate_by(dialect: Dialect, paths: PathMap) -> None:
    """Say what the paths of an engine's statements are translated by; before its first one."""
    setattr(dialect, _PATHS, paths)


def paths_of(dialect: Dialect) -> PathMap:
    """Give what they are translated by."""
    found: PathMap = getattr(dialect, _PATHS, _SAME)
    return found


_CHECKPOINT = "checkpoint"
"""What of a report is a path."""


def report_stored(connection: Connection, report: Report) -> Report:
    """Give a report as it is stored."""
    return _renamed(report, paths_of(connection.dialect).stored)


def report_here(connection: Connection, report: Report) -> Report:
    """Give a stored report as this host shows it."""
    return _renamed(report, paths_of(connection.dialect).here)


def _renamed(report: Report, name: Callable[[str], str]) -> Report:
    if _CHECKPOINT not in report:
        return report
    return report | {_CHECKPOINT: name(report[_CHECKPOINT])}
