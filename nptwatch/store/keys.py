"""Where a page of a list ends and the next begins: the sort key of its last row, as text.

Pages go by key, not by number: what is added or deleted meanwhile neither repeats nor skips a row,
and a far page costs no more than the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from nptwatch.errors import ConfigError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNKNOWN = "-"
_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryKey:
    """Place of a checkpoint in its run's history."""

    step: int | None
    first_seen_at: datetime
    path: str

    def __str__(self) -> str:
        """Give it as people hand it back: `400@1763640000000000@/exp/...`."""
        step = _UNKNOWN if self.step is None else self.step
        return f"{step}@{_number(self.first_seen_at)}@{self.path}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one.

        Raises:
            ConfigError: it is none.
        """
        parts = text.split("@", 2)
        try:
            step = None if parts[0] == _UNKNOWN else int(parts[0])
            if abs(step or 0) > _LARGEST:
                raise _no_key(text, "history")
            return cls(step=step, first_seen_at=_time(parts[1]), path=parts[2])
        except (IndexError, ValueError, OverflowError) as exc:
            raise _no_key(text, "history") from exc

    @property
    def place(self) -> tuple[bool, int, datetime, str]:
        """Sort by step, unknown ones last, then by when it was first seen."""
        return (self.step is None, self.step or 0, self.first_seen_at, self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKey:
    """Place of a job in the list of jobs."""

    updated_at: datetime
    job_id: int

    def __str__(self) -> str:
        """Give it as people hand it back: `1763640000000000@17`."""
        return f"{_number(self.updated_at)}@{self.job_id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one.

        Raises:
            ConfigError: it is none.
        """
        parts = text.split("@", 1)
        try:
            return cls(updated_at=_time(parts[0]), job_id=min(int(parts[1]), _LARGEST))
        except (IndexError, ValueError, OverflowError) as exc:
            raise _no_key(text, "jobs") from exc


def _number(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _time(text: str) -> datetime:
    return _EPOCH + int(text) * _MICROSECOND


def _no_key(text: str, verb: str) -> ConfigError:
    return ConfigError(f"{text!r} is no key: take the `key` of a row of `nptwatch {verb} --json`")
