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
"""Characters of others' words that are kept."""


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
        why: in words of our own.
        theirs: in words of others, which may hold secrets.
        retry_after_seconds: how long it wants to be left alone.
    """

    def __init__(self, why: str, theirs: str = "", *, retry_after_seconds: float = 0.0) -> None:
        self.why = why
        self.theirs = theirs
        self.retry_after_seconds = retry_after_seconds
        super().__init__(why)


def speak(send: Callable[[Question], None]) -> int:
    """Read the question, send, and answer: the `main` of a sending process."""
    question = Question(**json.loads(sys.stdin.buffer.read()))
    refused = None
    try:
        send(question)
    except RefusedError as error:
        refused = error
    except Exception as error:  # noqa: BLE001 - outermost: whatever a library raises is an answer
        refused = RefusedError(type(error).__name__, str(error))
    answer = {
        "error": None if refused is None else _told(refused, question.secrets),
        "retry_after_seconds": 0.0 if refused is None else refused.retry_after_seconds,
    }
    json.dump(answer, sys.stdout)
    return 0


def _told(refused: RefusedError, secrets: Mapping[str, str]) -> str:
    """One line, without control characters; others' words cut after the secrets are gone."""
    theirs = redacted(refused.theirs, secrets.values())
    theirs = re.sub(r"[\x00-\x1f\x7f-\x9f\s]+", " ", theirs).strip()
    if len(theirs) > LONGEST_WORDS:
        theirs = f"{theirs[:LONGEST_WORDS]}..."
    return f"{refused.why}: {theirs}" if theirs else refused.why
