"""What an alert says to people: a title, and what happened and what to do next. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_FINDINGS = 5
MOST_RUNS = 20
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
        *([f"Why: {event['detail']}."] if event.get("detail") else []),
        *_numbers(event),
        *_day(event),
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
    changed = event.get("old") and event["old"] != event.get("new")
    was = f" (was {event['old']})" if changed else ""
    return f"{subject}: {_short(event)}{_at_step(event)}{was}{_late(event)}"


_SHORT = {
    "reached_good": "reached {new}",
    "reached_excellent": "reached {new}",
    "regressed": "fell back to {new}",
    "invalid": "NaN or infinity: {new}",
    "new_best": "new best checkpoint",
    "stalled": "no better for a while",
    "silent": "no new checkpoint for a while",
    "recovered": "{over} is over",
    "diagnosis_failing": "checkpoints cannot be measured",
    "chore_failing": "a chore of the daemon keeps failing",
    "digest": "the day before {day}",
    "test": "this is a test",
}
"""What happened, by kind; `{new}` is the new grade, `{day}` a digest's, `{over}` what a
recovery ends."""


def _short(event: Mapping[str, Any]) -> str:
    kind = str(event.get("kind", "alert"))
    return _SHORT.get(kind, kind.replace("_", " ")).format(
        new=event.get("new") or "another grade",
        day=event.get("day") or "today",
        over=_OVER.get(str(event.get("of")), "a trouble"),
    )


_OVER = {
    "silent": "the silence",
    "stalled": "the standstill",
    "invalid": "NaN or infinity",
    "diagnosis_failing": "that checkpoints could not be measured",
    "chore_failing": "that a chore of the daemon failed",
}
"""What a recovery ends, by kind."""

_STATUS = "`nptwatch status`"

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


_LASTING = frozenset({"stalled", "silent"})
"""Kinds of what has not happened since a step."""


def _next(event: Mapping[str, Any]) -> str:
    words = _NEXT.get(str(event.get("kind")), _STATUS)
    for name in ("path", "run"):
        if f"{{{name}}}" in words and not event.get(name):
            return _STATUS
        words = words.replace(f"{{{name}}}", shlex.quote(str(event.get(name))))
    return words


def _at_step(event: Mapping[str, Any]) -> str:
    if event.get("step") is None:
        return ""
    return f" {'since' if event.get('kind') in _LASTING else 'at'} step {event['step']}"


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


def _day(event: Mapping[str, Any]) -> list[str]:
    """Sum a day up, for a digest."""
    if "runs" not in event:
        return []
    runs = event["runs"]
    lines = [
        f"Measured: {_count(sum(run['measured'] for run in runs), 'checkpoint')} of "
        f"{_count(len(runs), 'run')}; {_count(event['quiet_runs'], 'run')} had none.",
        f"Now: {_count(event['waiting'], 'checkpoint')} waiting, {event['failed']} failed, "
        f"{_count(event['given_up'], 'message')} given up.",
        *(f"- {_run_of_the_day(run)}" for run in runs[:MOST_RUNS]),
    ]
    if len(runs) > MOST_RUNS:
        lines.append(f"- and {len(runs) - MOST_RUNS} more")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _run_of_the_day(run: Mapping[str, Any]) -> str:
    was = f" (was {run['was'] or 'not measured'})" if run["was"] != run["status"] else ""
    best = ""
    if run["best_mse"] is not None:
        best = f"; best MSE {run['best_mse']:.4g}{_at_step({'step': run['best_step']})}"
    numbers = "".join(f", {line.rstrip('.')}" for line in _numbers(run))
    status = run["status"] or "not measured"
    return f"{run['run']}: {status}{was}{_at_step(run)}{numbers}{best}; {run['measured']} measured"
