"""Apprise, in its real process, to a real mail server and a real HTTP server on loopback."""

from __future__ import annotations

import email
import json
import os
import subprocess
import sys
from email.policy import default
from typing import TYPE_CHECKING, Any

import pytest
from receivers import Answer, certificates, die, die_early, hang, receiving_mail, serving

from nptwatch.alerts.channels import make_channels
from nptwatch.channel_settings import AppriseChannelSettings
from nptwatch.errors import ConfigError, DeliveryError
from nptwatch.store.records import Delivery

if TYPE_CHECKING:
    from pathlib import Path

    from nptwatch.alerts.channels import Channel

PASSWORD = "s3cr3t-password"  # noqa: S105 - of a test


def delivery(kind: str = "reached_good") -> Delivery:
    """A message as a channel gets it."""
    payload = {"kind": kind, "title": "[nptwatch] rün: reached GOOD", "text": "one\n<b>two</b>"}
    return Delivery(
        outbox_id=1, event_id="e-1", channel="a", kind=kind, payload=payload, attempts=1
    )


def channel(url: str, timeout_seconds: float = 10.0) -> Channel:
    """An Apprise channel as the settings make it."""
    settings = AppriseChannelSettings(
        type="apprise", url_env="URL", timeout_seconds=timeout_seconds
    )
    return make_channels({"a": settings}, env=os.environ | {"URL": url})[1]


def mailto(port: int, scheme: str = "mailto", mode: str = "insecure") -> str:
    """The Apprise URL of a mail server."""
    who = "from=nptwatch@example.org&to=me@example.org"
    return f"{scheme}://localhost:{port}?{who}&mode={mode}"


def refusal(made: Channel) -> DeliveryError:
    """Give the error with which a delivery fails; it must tell no secret."""
    with pytest.raises(DeliveryError) as caught:
        made.send(delivery())
    assert PASSWORD not in str(caught.value)
    return caught.value


def test_a_mail_arrives_with_title_and_text() -> None:
    """The title is the subject; the text is text, whatever looks like HTML in it."""
    with receiving_mail() as (port, mailbox):
        channel(mailto(port)).send(delivery())

    (message,) = (email.message_from_string(raw, policy=default) for raw in mailbox.messages)
    assert message["Subject"] == "[nptwatch] rün: reached GOOD"
    assert message["To"] == "me@example.org"
    assert message.get_content_type() == "text/plain"
    assert message.get_content().splitlines() == ["one", "<b>two</b>"]


def test_a_mail_server_that_refuses_is_told_in_its_words() -> None:
    """And the next try may go better."""
    with receiving_mail("550 mailbox is full") as (port, mailbox):
        made = channel(mailto(port))
        assert "mailbox is full" in str(refusal(made))
        made.send(delivery())

    assert len(mailbox.messages) == 1


def test_a_mail_server_with_a_certificate_of_its_own_making_gets_nothing(tmp_path: Path) -> None:
    """TLS is verified for mail, too."""
    with receiving_mail(tls=certificates(tmp_path).server) as (port, mailbox):
        assert "certificate verify failed" in str(refusal(channel(mailto(port, "mailtos", "ssl"))))

    assert mailbox.messages == []


@pytest.mark.parametrize(
    ("kind", "loudness"),
    [
        ("reached_good", "success"),
        ("regressed", "warning"),
        ("invalid", "failure"),
        ("test", "info"),
    ],
)
def test_a_service_is_told_how_loud_a_kind_is(kind: str, loudness: str) -> None:
    """What services colour by."""
    with serving() as server:
        channel(f"json://127.0.0.1:{server.port}/x").send(delivery(kind))

    got = json.loads(server.got[0].body)
    assert (got["title"], got["type"]) == ("[nptwatch] rün: reached GOOD", loudness)


def test_a_service_that_wants_a_pause_gets_it() -> None:
    """Retry-After is honoured, though Apprise itself does not tell."""
    answer = Answer(status=429, headers={"Retry-After": "77"})
    with serving(answer) as server:
        error = refusal(channel(f"json://u:{PASSWORD}@127.0.0.1:{server.port}/x"))

    assert (error.retry_after_seconds, "error=429" in str(error)) == (77.0, True)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(status=500), "error=500"),
        (Answer(status=302, headers={"Location": "/elsewhere"}), "error=302"),
        (Answer(act=hang), "Connection error"),
        (Answer(act=die), "Connection error"),
        (Answer(act=die_early), "Connection error"),
    ],
    ids=["500", "302", "hang", "die", "die early"],
)
def test_a_service_that_fails_is_told_without_its_secrets(answer: Answer, told: str) -> None:
    """An error, a redirect, silence, death: each a failed delivery."""
    with serving(answer) as server:
        url = f"json://user:{PASSWORD}@127.0.0.1:{server.port}/{PASSWORD}?-x={PASSWORD}"
        assert told in str(refusal(channel(url, timeout_seconds=1.0)))

    assert len(server.got) <= 1


def test_a_service_with_a_certificate_of_its_own_making_gets_nothing(tmp_path: Path) -> None:
    """TLS is verified."""
    with serving(tls=certificates(tmp_path).server) as server:
        error = refusal(channel(f"jsons://localhost:{server.port}/{PASSWORD}"))

    assert "certificate verify failed" in str(error)
    assert server.got == []


@pytest.mark.parametrize(
    "url",
    [
        f"slakc://{PASSWORD}",
        f"slack://{PASSWORD}",
        PASSWORD,
        f"json://a/{PASSWORD} json://b/{PASSWORD}",
    ],
    ids=["no such service", "too little", "no URL", "two"],
)
def test_a_url_that_apprise_does_not_know_is_told_without_it(url: str) -> None:
    """By `config check`, and as a failed delivery."""
    assert "one URL of a service that it knows" in str(refusal(channel(url)))
    with pytest.raises(ConfigError, match=r"^channels\.a: Apprise needs one URL") as caught:
        channel(url).check()
    assert PASSWORD not in str(caught.value)


def test_check_sends_nothing() -> None:
    """A URL that is known passes in silence."""
    with serving() as server:
        channel(f"json://127.0.0.1:{server.port}/x").check()
    assert server.got == []


def test_nobody_but_its_process_loads_apprise() -> None:
    """Neither the daemon's modules nor a verb pays for it."""
    program = (
        "import sys, nptwatch.service.crew, nptwatch.cli.config, nptwatch.alerts.remote\n"
        "print([name for name in ('apprise', 'requests', 'ssl') if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    loaded: list[Any] = [name for name in ("apprise", "requests") if name in said]
    assert loaded == []


def test_close_refuses_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that stops sends nothing more."""
    made = channel("json://127.0.0.1:1/x")
    made.close()
    assert str(refusal(made)) == "the daemon stops"
