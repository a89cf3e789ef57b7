"""Which status changes raise which alerts, and what an alert says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nptwatch.diagnostics.grading import Grade, at_least
from nptwatch.store.records import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nptwatch.settings import AlertSettings
    from nptwatch.store.records import StatusChange

CROSSINGS = (("reached_excellent", Grade.EXCELLENT), ("reached_good", Grade.GOOD))
"""Kind and the grade that is reached from below; the highest first."""


def make_rules(
    settings: AlertSettings, channels: Sequence[str]
) -> Callable[[StatusChange], Sequence[Message]]:
    """Build the function that the store calls inside the transaction of a status change.

    Args:
        settings: which kinds are wanted.
        channels: names of the channels that every alert goes to.
    """

    def rules(change: StatusChange) -> Sequence[Message]:
        kind = _highest_kind(change, settings.kinds)
        if kind is None:
            return ()
        payload = _payload(kind, change)
        return [Message(kind=kind, channel=channel, payload=payload) for channel in channels]

    return rules


def _highest_kind(change: StatusChange, wanted: Sequence[str]) -> str | None:
    for kind, grade in CROSSINGS:
        crossed = at_least(change.new, grade) and not at_least(change.old, grade)
        if crossed and kind in wanted:
            return kind
    return None


def _payload(kind: str, change: StatusChange) -> dict[str, Any]:  # Any: free JSON
    return {
        "kind": kind,
        "run": change.run_name,
        "run_path": change.run_path,
        "step": change.step,
        "path": change.checkpoint_path,
        "fingerprint": change.fingerprint,
        "old": change.old,
        "new": change.new,
        "mse": change.mse,
        "cosine": change.cosine,
        "previous_mse": change.previous_mse,
        "previous_cosine": change.previous_cosine,
        "at": change.at.isoformat(),
        "text": _sentence(change),
    }


def _sentence(change: StatusChange) -> str:
    """Say in one line what happened and what to do next."""
    where = "" if change.step is None else f" at step {change.step}"
    before = "first measurement"
    if change.old is not None:
        before = f"was {change.old}{_numbers(change.previous_mse, change.previous_cosine)}"
    return (
        f"Run {change.run_name} reached {change.new}{where}"
        f"{_numbers(change.mse, change.cosine)}, {before}. "
        f"Next: `nptwatch history {change.run_name}`; the checkpoint is {change.checkpoint_path}"
    )


def _numbers(mse: float | None, cosine: float | None) -> str:
    known = [
        f"{name} {value:.4g}"
        for name, value in (("MSE", mse), ("cosine", cosine))
        if value is not None
    ]
    return f" ({', '.join(known)})" if known else ""
