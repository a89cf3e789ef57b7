"""What an alert says to people: a title, and what happened and what to do next. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_FINDINGS = 5
LONGEST_FINDING = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A title of one line, and a body."""

    title: str
    body: str


def built_in(event: Mapping[str, Any]) -> Text:  # Any: free JSON
    """Put an event into words; what it does not say is left out."""
    lines = [
        *(["This is a test: nothing happened."] if event.get("test") else []),
        f"{_happened(event)}.",
        *_numbers(event),
        *_forecast(event.get("forecast")),
        *_findings(event.get("findings") or ()),
        *([f"Checkpoint: {event['path']}"] if event.get("path") else []),
        f"Next: {_next(event)}",
    ]
    if event.get("event_id"):
        lines.append(f"Event: {event['event_id']}")
    return Text(title=f"[nptwatch] {_title(event)}", body="\n".join(lines))


def _title(event: Mapping[str, Any]) -> str:
    test = "(test) " if event.get("test") else ""
    run = f"{event['run']}: " if event.get("run") else ""
    title = f"{test}{run}{_short(event)}{_at_step(event)}{_late(event)}"
    return " ".join(title.split())  # a folder's name may hold a line break


def _happened(event: Mapping[str, Any]) -> str:
    where = f" on {event['host']}" if event.get("host") else ""
    subject = f"Run {event['run']}" if event.get("run") else f"nptwatch{where}"
    was = f" (was {event['old']})" if event.get("old") else ""
    return f"{subject}: {_short(event)}{_at_step(event)}{was}{_late(event)}"


_SHORT = {
    "reached_good": "reached {new}",
    "reached_excellent": "reached {new}",
    "regressed": "fell back to {new}",
    "invalid": "NaN or infinity: {new}",
    "new_best": "new best checkpoint",
    "stalled": "no better for a while",
    "silent": "no new checkpoint for a while",
    "recovered": "recovered",
    "diagnosis_failing": "checkpoints cannot be measured",
    "chore_failing": "a chore of the daemon keeps failing",
    "digest": "the last day",
    "test": "this is a test",
}
"""What happened, by kind; `{new}` is the new grade."""


def _short(event: Mapping[str, Any]) -> str:
    kind = str(event.get("kind", "alert"))
    return _SHORT.get(kind, kind.replace("_", " ")).format(new=event.get("new") or "another grade")


_NEXT = {
    "reached_good": "try it, or train on: `nptwatch show {path}`",
    "reached_excellent": "try it; training may stop: `nptwatch show {path}`",
    "regressed": "look at learning rate and data since the best step: `nptwatch history {run}`",
    "invalid": "find where training produced it; an earlier checkpoint may be sound: "
    "`nptwatch show {path}`",
    "new_best": "`nptwatch best {run}`",
    "stalled": "see whether it levels off: `nptwatch forecast {run}`",
    "silent": "see whether training still runs; `nptwatch history {run}` has its last steps",
    "recovered": "nothing; `nptwatch history {run}`",
    "diagnosis_failing": "see why, and try again: `nptwatch jobs list`, `nptwatch jobs retry`",
    "chore_failing": "look into the daemon's log and `nptwatch status`",
    "digest": "`nptwatch runs`",
    "test": "nothing: this channel works",
}
"""What to do, by kind."""


def _next(event: Mapping[str, Any]) -> str:
    words = _NEXT.get(str(event.get("kind")), "`nptwatch status`")
    for name in ("path", "run"):
        words = words.replace(f"{{{name}}}", str(event.get(name) or "").strip())
    return words


def _at_step(event: Mapping[str, Any]) -> str:
    return "" if event.get("step") is None else f" at step {event['step']}"


def _late(event: Mapping[str, Any]) -> str:
    return ", measured late (a newer step is known)" if event.get("late") else ""


def _numbers(event: Mapping[str, Any]) -> list[str]:
    known = [
        f"{label} {event[name]:.4g}{_change(event[name], event.get(f'previous_{name}'))}"
        for label, name in (("MSE", "mse"), ("cosine", "cosine"))
        if event.get(name) is not None
    ]
    return [f"{', '.join(known)}."] if known else []


def _change(now: float, before: float | None) -> str:
    return "" if before is None else f" (was {before:.4g}, {now - before:+.2g})"


def _forecast(forecast: Any) -> list[str]:  # noqa: ANN401 - free JSON
    return [f"Forecast: {forecast}"] if isinstance(forecast, str) and forecast else []


def _findings(findings: Sequence[Any]) -> list[str]:  # Any: free JSON
    texts = [str(f.get("text", f) if isinstance(f, dict) else f) for f in findings]
    lines = [f"- {text[:LONGEST_FINDING]}" for text in texts[:MOST_FINDINGS]]
    if len(texts) > MOST_FINDINGS:
        lines.append(f"- and {len(texts) - MOST_FINDINGS} more")
    return ["Findings:", *lines] if lines else []
