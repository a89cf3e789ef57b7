"""What the doctor says of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mark(StrEnum):
    """How bad it is."""

    OK = "OK"
    """As it should be."""
    WARN = "WARN"
    """The daemon runs, but slower, later or less safely than it could."""
    FAIL = "FAIL"
    """The daemon, or what depends on this, does not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report.

    Attributes:
        check: what was looked at.
        text: what was found.
        fix: what to do; None where there is nothing to do.
    """

    check: str
    mark: Mark
    text: str
    fix: str | None = None


def ok(check: str, text: str) -> Finding:
    """Say that something is as it should be."""
    return Finding(check=check, mark=Mark.OK, text=text)


def warn(check: str, text: str, fix: str) -> Finding:
    """Say that something could be better."""
    return Finding(check=check, mark=Mark.WARN, text=text, fix=fix)


def fail(check: str, text: str, fix: str) -> Finding:
    """Say that something does not work."""
    return Finding(check=check, mark=Mark.FAIL, text=text, fix=fix)
