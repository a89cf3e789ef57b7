"""What people believe of a run, from what they were told, and when that has to change. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nptwatch.diagnostics.grading import Grade, at_least

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nptwatch.store.news import Told

REACHED = {Grade.EXCELLENT: "reached_excellent", Grade.GOOD: "reached_good"}
"""The levels that people are told of, the highest first."""

REGRESSED = "regressed"

_LEVELS = {*REACHED.values(), REGRESSED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Steadiness:
    """How often the newest checkpoints must say something before it is believed."""

    needs: int
    of: int

    def above(self, grades: Iterable[str], bound: Grade) -> bool:
        """Whether the newest sound ones are at least this good."""
        return self._enough([at_least(grade, bound) for grade in _sound(grades)])

    def below(self, grades: Iterable[str], bound: Grade) -> bool:
        """Whether the newest sound ones are not so good."""
        return self._enough([not at_least(grade, bound) for grade in _sound(grades)])

    def sound(self, grades: Sequence[str]) -> bool:
        """Whether the newest ones are without NaN."""
        return self._enough([grade != Grade.INVALID for grade in grades])

    def _enough(self, said: Sequence[bool]) -> bool:
        return sum(said[: self.of]) >= self.needs


def _sound(grades: Iterable[str]) -> list[str]:
    """Leave NaN out, of which people are told apart."""
    return [grade for grade in grades if grade != Grade.INVALID]


def believed_of(told: Sequence[Told]) -> Told | None:
    """Give what people were told last of the run's level: its `new` is what they believe."""
    levels = [each for each in told if each.kind in _LEVELS and (each.confirmed or not each.late)]
    return levels[-1] if levels else None


def level_of(told: Sequence[Told]) -> str | None:
    """Give the grade at which people believe the run to be; None: they were told of none."""
    believed = believed_of(told)
    return None if believed is None else believed.new


def ever_told(told: Iterable[Told], grade: Grade, *, late: bool) -> bool:
    """Whether people were told once that the run is at least this good.

    Args:
        late: what was told late counts too.
    """
    return any(
        at_least(each.new, grade)
        for each in told
        if each.kind in REACHED.values() and (late or each.confirmed or not each.late)
    )


def open_trouble(told: Iterable[Told], kind: str) -> Told | None:
    """Give what was told of a trouble that is not over."""
    return next((each for each in told if each.kind == kind and not each.over), None)
