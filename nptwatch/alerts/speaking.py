"""What the sending processes share: the question on standard input, the answer on standard output.

The question holds secrets; the answer goes into logs and the database, so everything that a
receiver or a library said is redacted and cut here.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nptwatch.alerts.secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LONGEST_WORDS = 300
"""Characters of an error that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be sent, and where.

    Attributes:
        event: the event; None: only look whether the secrets can be used.
    """

    secrets: Mapping[str, str]
    event: Mapping[str, Any] | None  # Any: free JSON
    timeout_seconds: float
    ca_file: str | None = None


class RefusedError(Exception):
    """The receiver did not take it.

    Args:
        why: may hold secrets still.
        retry_after_seconds: how long it wants to be left alone.
    """

    def __init__(self, why: str, *, retry_after_seconds: float = 0.0) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(why)


def speak(send: Callable[[Question], None]) -> int:
    """Read the question, send, and answer: the `main` of a sending process."""
    question = Question(**json.loads(sys.stdin.buffer.read()))
    error, retry_after_seconds = None, 0.0
    try:
        send(question)
    except RefusedError as refused:
        error, retry_after_seconds = str(refused), refused.retry_after_seconds
    except Exception as exc:  # noqa: BLE001 - outermost: whatever a library raises is an answer
        error = f"{type(exc).__name__}: {exc}"
    if error is not None:
        error = _told(error, question.secrets)
    json.dump({"error": error, "retry_after_seconds": retry_after_seconds}, sys.stdout)
    return 0


def _told(error: str, secrets: Mapping[str, str]) -> str:
    """One line, without control characters and secrets, cut after the secrets are gone."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\s]+", " ", redacted(error, secrets.values())).strip()
    return line if len(line) <= LONGEST_WORDS else f"{line[:LONGEST_WORDS]}..."
