"""Which checkpoints get the full diagnostic after the quick one, and which are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nptwatch.diagnostics.grading import Grade, at_least
from nptwatch.globs import PathGlobs
from nptwatch.store.records import Demand

if TYPE_CHECKING:
    from nptwatch.settings import FromGrade, FullSettings, KeptSettings
    from nptwatch.store.records import Facts, Request

NEVER = "never"
REACHED = "reached"
TEENS = range(11, 14)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The policy for one run, as in the settings."""

    every: int
    on_grade: FromGrade
    on_new_best: FromGrade


class FullPolicy:
    """Decides, right after a quick result and in its transaction, whether a full one follows.

    Args:
        settings: the policy, with exceptions for some runs.
        request: the full diagnostic by the settings in force.
    """

    def __init__(self, settings: FullSettings, request: Request) -> None:
        self._request = request
        self._rule = Rule(
            every=settings.every, on_grade=settings.on_grade, on_new_best=settings.on_new_best
        )
        self._exceptions = [
            (
                PathGlobs([run.run]),
                Rule(
                    every=settings.every if run.every is None else run.every,
                    on_grade=run.on_grade or settings.on_grade,
                    on_new_best=run.on_new_best or settings.on_new_best,
                ),
            )
            for run in settings.runs
        ]

    def follow(self, facts: Facts) -> Demand | None:
        """Say whether a full diagnostic is wanted, and why."""
        because = self._because(facts)
        return None if because is None else Demand(request=self._request, because=because)

    def _because(self, facts: Facts) -> str | None:
        rule = self._rule_of(facts.run_name)
        if facts.asked_before - {self._request.settings_hash}:
            return "asked before, with other settings"
        if _reached(facts, rule.on_grade):
            return f"reached {facts.status}"
        if _new_best(facts, rule.on_new_best):
            return "new best"
        if rule.every and facts.nth % rule.every == 0:
            nth = "" if rule.every == 1 else f"{_ordinal(rule.every)} "
            return f"every {nth}checkpoint"
        return None

    def _rule_of(self, run_name: str) -> Rule:
        return next((rule for globs, rule in self._exceptions if globs.match(run_name)), self._rule)


def _reached(facts: Facts, wanted: FromGrade) -> bool:
    """The run's status rose to the wanted grade or above, from below it."""
    if wanted == NEVER or facts.late:
        return False
    grade = Grade(wanted)
    return at_least(facts.status, grade) and not at_least(facts.old, grade)


def _new_best(facts: Facts, wanted: FromGrade) -> bool:
    """No other checkpoint of the run has so low an MSE; a run's first is not compared."""
    if wanted == NEVER or facts.mse is None or facts.best_mse_before is None:
        return False
    return at_least(facts.grade, Grade(wanted)) and facts.mse < facts.best_mse_before


class KeepPolicy:
    """Decides, in a result's transaction, whether the checkpoint is kept."""

    def __init__(self, settings: KeptSettings) -> None:
        self._settings = settings

    def why(self, facts: Facts) -> str | None:
        """Say why a checkpoint is to be kept; None: it is not.

        Of a backlog the newest is measured first and may be the best for good, so that a run's
        first counts as its best.
        """
        if not self._settings.max_bytes:
            return None
        first = facts.best_mse_before is None
        best = replace(facts, best_mse_before=math.inf) if first else facts
        whys = []
        if _rose(facts, self._settings.on_grade):
            whys.append(f"{REACHED} {facts.status}")
        if _new_best(best, self._settings.on_new_best):
            whys.append("new best")
        return ", ".join(whys) or None


def _rose(facts: Facts, wanted: FromGrade) -> bool:
    """The run's status rose to a grade that is the wanted one or above: to GOOD, to EXCELLENT."""
    if wanted == NEVER or facts.late or not at_least(facts.status, Grade(wanted)):
        return False
    return not at_least(facts.old, Grade(facts.grade))


def _ordinal(number: int) -> str:
    last = 0 if number % 100 in TEENS else number % 10
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(last, "th")
    return f"{number}{suffix}"
