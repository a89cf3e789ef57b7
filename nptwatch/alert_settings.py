"""The table [alerts]: who is told what, and when; by run in [[alerts.rules]]."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Literal, TypeAlias, get_args
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator

from nptwatch.sections import PositiveSeconds, Seconds, Section

Kind: TypeAlias = Literal[
    "new_best",
    "recovered",
    "stalled",
    "silent",
    "regressed",
    "diagnosis_failing",
    "chore_failing",
    "reached_good",
    "reached_excellent",
    "invalid",
]

KINDS: tuple[Kind, ...] = get_args(Kind)
"""All kinds that can be switched on and off; a later one breaks through an earlier one's gap."""

MOST_RECENT = 50
"""No rule looks at more checkpoints of a run than so many."""

QuietHours = Annotated[
    str,
    StringConstraints(
        pattern=r"^$|^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$", strip_whitespace=True
    ),
]


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError) as exc:
        raise ValueError(f"no time zone {name!r}: expected a name such as Europe/Berlin") from exc
    return name


class AlertRule(Section):
    """What differs for runs whose name matches; what is left out is as in [alerts]."""

    runs: str
    """Glob on the run's name (its path below the watched root)."""
    kinds: tuple[Kind, ...] | None = None
    channels: tuple[str, ...] | None = None
    min_gap_seconds: Seconds | None = None
    quiet_hours: QuietHours | None = None
    confirm: bool | None = None


class AlertSettings(Section):
    """Who is told what of runs, and when."""

    kinds: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind != "new_best")
    """What people are told; all else is only listed."""
    channels: tuple[str, ...] | None = None
    """Who is told, beside the log; unset: every channel."""
    min_gap_seconds: Seconds = 0.0
    """Nobody is told twice of a run within so long, unless the second is of a higher kind."""
    quiet_hours: QuietHours = ""
    """Local time, "22:00-07:00": what is raised then is sent when they end."""
    time_zone: Annotated[str, AfterValidator(_known_zone)] | None = None
    """Of the quiet hours; unset: this machine's."""
    confirm: bool = False
    """GOOD and EXCELLENT are told only after the full diagnostic, asked for by this, agrees."""
    regressed_needs: Annotated[int, Field(ge=1, le=MOST_RECENT)] = 3
    """A run has fallen back, or is good again, or recovered, when so many ..."""
    regressed_of: Annotated[int, Field(ge=1, le=MOST_RECENT)] = 4
    """... of its newest so many measured checkpoints say so."""
    new_best_from: Literal["EXCELLENT", "GOOD", "FAIR", "POOR"] = "GOOD"
    """A new best is told from this grade on ..."""
    new_best_by: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """... if its MSE is lower by this share than what was told last."""
    stalled_after: Annotated[int, Field(ge=0)] = 20
    """A run has stalled when so many checkpoints in a row were no better; 0: never."""
    silent_after: Annotated[float, Field(ge=0)] = 3.0
    """A run is silent when no checkpoint came for so many times its usual gap; 0: never."""
    silent_at_least_seconds: Seconds = 900.0
    """No run is silent before."""
    failing_after: Annotated[int, Field(ge=0, le=MOST_RECENT)] = 3
    """A run's diagnosis fails when so many measurements in a row could not be made; 0: never."""
    history_seconds: Seconds = 86400.0
    """Checkpoints that were this old when their run was first seen are history: nobody is told."""
    rules: tuple[AlertRule, ...] = ()
    """Exceptions for some runs; the first that matches counts."""
    templates: Path | None = None
    """Folder of texts in one's own words: KIND.txt or default.txt, in Jinja2."""
    max_attempts: Annotated[int, Field(ge=1)] = 10
    """Deliveries are given up after so many tries."""
    retry_delay_seconds: PositiveSeconds = 10.0
    """Pause after the first failed delivery; doubles each time, at most an hour, and up to a
    quarter more by chance."""

    @field_validator("regressed_of")
    @classmethod
    def _cannot_swing(cls, of: int, info: ValidationInfo) -> int:
        """Refuse what a run that alternates around a bound would satisfy both ways."""
        needs = info.data.get("regressed_needs", of)
        if needs > of or (of > 1 and 2 * needs <= of + 1):
            raise ValueError(
                f"regressed_needs = {needs} does not go with it: it must be more than half and at"
                " most all, or a run that swings is told at every swing: 3 of 4, 4 of 5, 1 of 1"
            )
        return of
