"""A process that sends one event through Apprise.

Run as `python -m nptwatch.alerts.apprising`; see remote.py. Nothing else imports Apprise.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import apprise
import requests

from nptwatch.alerts.posting import retry_after
from nptwatch.alerts.speaking import Question, RefusedError, speak

if TYPE_CHECKING:
    from collections.abc import Callable

LOUDNESS = {
    "regressed": "warning",
    "stalled": "warning",
    "silent": "warning",
    "invalid": "failure",
    "diagnosis_failing": "failure",
    "chore_failing": "failure",
    "reached_good": "success",
    "reached_excellent": "success",
    "new_best": "success",
    "recovered": "success",
}
"""As what a service shows a kind (colour, icon); others are "info"."""


class Words(logging.Handler):
    """Keeps what Apprise says of a failure, and what broke, which it says at debug level only."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        # of what `requests` says, the cause tells something
        words = record.getMessage().rpartition("(Caused by ")[2]
        if record.levelno >= logging.WARNING or "Exception:" in record.msg:
            self.said.append(words)


class Pauses:
    """Notes the longest Retry-After of any answer: Apprise itself does not tell."""

    def __init__(self) -> None:
        self.longest_seconds = 0.0

    def watch(self) -> None:
        """Look at every answer that `requests` gets in this process from now on."""
        send: Callable[..., requests.Response] = requests.Session.send

        def noted(*arguments: Any, **options: Any) -> requests.Response:  # noqa: ANN401 - send's own
            answer = send(*arguments, **options)
            if not answer.ok:
                seconds = retry_after(answer.headers.get("Retry-After"))
                self.longest_seconds = max(self.longest_seconds, seconds)
            return answer

        requests.Session.send = noted  # the process is ours alone


def notify(question: Question) -> None:
    """Send the event's title and text.

    Raises:
        RefusedError: a service did not take it, or Apprise knows none by this URL.
    """
    words, pauses = Words(), Pauses()
    apprise.logger.addHandler(words)
    apprise.logger.setLevel(logging.DEBUG)
    apprise.logger.propagate = False
    pauses.watch()
    # what a URL does not set itself
    apprise.URLBase.socket_connect_timeout = question.timeout_seconds
    apprise.URLBase.socket_read_timeout = question.timeout_seconds
    asset = apprise.AppriseAsset(
        app_id="nptwatch",
        async_mode=False,
        http_redirects=False,
        service_timeout=question.timeout_seconds,
        storage_mode=apprise.PersistentStoreMode.MEMORY,
    )
    services = apprise.Apprise(asset=asset)
    if not services.add(question.secrets["url"]) or len(services) != 1:
        raise RefusedError(
            "Apprise needs one URL of a service that it knows", "; ".join(words.said[-1:])
        )
    if question.event is None:
        return
    sent = services.notify(
        title=question.event["title"],
        body=question.event["text"],
        body_format=apprise.NotifyFormat.TEXT,
        notify_type=LOUDNESS.get(question.event["kind"], "info"),
    )
    if not sent:
        raise RefusedError(
            f"not delivered ({sent.status.name.lower()})",
            "; ".join(words.said),
            retry_after_seconds=pauses.longest_seconds,
        )


if __name__ == "__main__":
    sys.exit(speak(notify))
