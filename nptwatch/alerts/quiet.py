"""Quiet hours: when nobody wants to be told. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """Hours of each day, by local time; they may go over midnight.

    Attributes:
        begin, end: of the day; equal: the whole day would be quiet, which is taken as never.
        zone: whose time; None: this machine's.
    """

    begin: time
    end: time
    zone: tzinfo | None

    @classmethod
    def of(cls, hours: str, zone: tzinfo | None) -> Self | None:
        """Read "22:00-07:00"; None: there are none."""
        if not hours:
            return None
        begin, _, end = hours.partition("-")
        return cls(begin=time.fromisoformat(begin), end=time.fromisoformat(end), zone=zone)

    def over_at(self, now: datetime) -> datetime | None:
        """Say when the quiet hours end in which `now` lies; None: it lies in none."""
        local = now.astimezone(self.zone)
        clock = local.time()
        if self.begin <= self.end:
            if not self.begin <= clock < self.end:
                return None
            day = local.date()
        elif clock >= self.begin:
            day = local.date() + timedelta(days=1)
        elif clock < self.end:
            day = local.date()
        else:
            return None
        # without a zone a time is this machine's, by its rules of that day
        return datetime.combine(day, self.end, tzinfo=self.zone).astimezone(UTC)
