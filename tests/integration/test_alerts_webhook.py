"""The signed webhook, sent by its real process to real servers on loopback."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from receivers import Answer, Got, certificates, die, die_early, drip, hang, serving
from watching import until

from nptwatch.alerts import remote
from nptwatch.alerts.channels import make_channels
from nptwatch.channel_settings import WebhookChannelSettings
from nptwatch.errors import ConfigError, DeliveryError
from nptwatch.store.records import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nptwatch.alerts.channels import Channel

KEY = "whsec_c2lnbmluZy1rZXktb2YtdGhpcnR5LXR3by1ieXRlcyE="
SECRETS = ("s3cr3t-path-token", "s3cr3t-query", "c2lnbmluZy1rZXktb2Yt", "s3cr3t-user")
PAGE = Path(__file__).parents[2] / "docs/alerts.md"


def delivery(event_id: str = "e-1") -> Delivery:
    """A message as a channel gets it."""
    payload = {"kind": "reached_good", "run": "rün", "title": "T", "text": "one\ntwo", "mse": 0.08}
    return Delivery(
        outbox_id=1,
        event_id=event_id,
        channel="hook",
        kind="reached_good",
        payload=payload,
        attempts=1,
    )


def hook(url: str, *, key: str = KEY, **settings: Any) -> Channel:
    """A webhook channel as the settings make it; its secrets are in an environment."""
    given = {"type": "webhook", "url_env": "URL", "key_env": "KEY", "timeout_seconds": 10.0}
    made = make_channels(
        {"hook": WebhookChannelSettings.model_validate(given | settings)},
        env=os.environ | {"URL": url, "KEY": key},
    )
    return made[1]


def refusal(channel: Channel) -> DeliveryError:
    """Give the error with which a delivery fails; it must tell no secret."""
    with pytest.raises(DeliveryError) as caught:
        channel.send(delivery())
    assert not [secret for secret in SECRETS if secret in str(caught.value)]
    return caught.value


def documented() -> Callable[[str, Mapping[str, str], bytes], bool]:
    """Give the function that docs/alerts.md tells a receiver to verify with."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102 - our own page
    verified: Callable[[str, Mapping[str, str], bytes], bool] = names["verified"]
    return verified


def test_the_event_arrives_as_json_and_the_documented_receiver_verifies_it() -> None:
    """Id, time and body are signed; the page's own function says so."""
    with serving() as server:
        hook(server.url()).send(delivery())

    (got,) = server.got
    assert got.path == "/hook/s3cr3t-path-token?code=s3cr3t-query"
    assert json.loads(got.body) == {"event_id": "e-1", **delivery().payload}
    assert (got.event_id, got.headers["content-type"]) == ("e-1", "application/json")
    assert documented()(KEY, got.headers, got.body)


@pytest.mark.parametrize(
    "forge",
    [
        lambda got: (KEY, got.headers, got.body.replace(b"0.08", b"0.01")),
        lambda got: (KEY, {**got.headers, "webhook-id": "e-2"}, got.body),
        lambda got: (
            KEY,
            {**got.headers, "webhook-timestamp": str(int(got.headers["webhook-timestamp"]) + 1)},
            got.body,
        ),
        lambda got: (KEY, {**got.headers, "webhook-timestamp": "1600000000"}, got.body),
        lambda got: (KEY.replace("c2ln", "c2lo"), got.headers, got.body),
    ],
    ids=["body", "id", "time", "an old one", "key"],
)
def test_what_was_changed_on_the_way_is_not_verified(
    forge: Callable[[Got], tuple[str, dict[str, str], bytes]],
) -> None:
    """Nobody without the key can alter or send an event, or send an old one again."""
    with serving() as server:
        hook(server.url()).send(delivery())

    assert not documented()(*forge(server.got[0]))


def test_a_second_try_has_the_same_id() -> None:
    """So that a receiver which honours it takes the event once; the time of sending is new."""
    with serving(Answer(status=500)) as server:
        channel = hook(server.url())
        refusal(channel)
        channel.send(delivery())

    assert [got.event_id for got in server.got] == ["e-1", "e-1"]


def test_a_servers_error_is_told_with_what_it_said_and_no_secret() -> None:
    """Status and the beginning of the answer, in one line without control characters."""
    body = b"no such thing:\n/hook/s3cr3t-path-token \x1b[31m" + b"x" * 100_000
    with serving(Answer(status=500, body=body)) as server:
        error = refusal(hook(server.url()))

    words = str(error)
    assert words.startswith("HTTP 500: Internal Server Error, no such thing: /***/*** [31mxxx")
    assert (len(words) < 320, "\x1b" in words, error.retry_after_seconds) == (True, False, 0.0)


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("77", 77, 77),
        ("in ten minutes", 500, 600),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0),
        ("1e9", 0, 0),
        ("99999999", 86400, 86400),
        ("soon", 0, 0),
    ],
)
def test_retry_after_is_understood(value: str, low: float, high: float) -> None:
    """Seconds or a date, at most a day; nonsense asks for nothing."""
    if value == "in ten minutes":
        value = formatdate(time.time() + 600, usegmt=True)
    with serving(Answer(status=429, headers={"Retry-After": value})) as server:
        error = refusal(hook(server.url()))

    assert str(error).startswith("HTTP 429: Too Many Requests")
    assert low <= error.retry_after_seconds <= high


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    """What was signed for one receiver reaches no other."""
    with serving() as other:
        there = Answer(status=status, headers={"Location": other.url("/elsewhere")})
        with serving(there) as server:
            error = refusal(hook(server.url()))

    assert f"HTTP {status}" in str(error)
    assert "redirects are not followed" in str(error)
    assert other.got == []


def test_a_receiver_that_hangs_is_given_up_in_time() -> None:
    """After `timeout_seconds`, in words."""
    with serving(Answer(act=hang)) as server:
        begun = time.monotonic()
        error = refusal(hook(server.url(), timeout_seconds=0.5))

    assert str(error) == "no answer within 0.5 s"
    assert time.monotonic() - begun < 5


def test_a_receiver_that_drips_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps no socket from timing out, but the process is killed."""
    monkeypatch.setattr(remote, "GRACE_SECONDS", 1.0)
    with serving(Answer(act=drip)) as server:
        error = refusal(hook(server.url(), timeout_seconds=0.5))

    assert str(error) == "the sending process was killed after 1.5 s"


@pytest.mark.parametrize("act", [die, die_early])
def test_a_receiver_that_dies_in_mid_request_did_not_take_it(act: Callable[[Any], None]) -> None:
    """Before it has read the request, or in the middle of its answer: tried again later."""
    with serving(Answer(act=act)) as server:
        channel = hook(server.url())
        assert re.search("connection", str(refusal(channel)))
        channel.send(delivery())

    assert server.got[-1].event_id == "e-1"


def test_nobody_listens() -> None:
    """A refused connection is told as that."""
    with serving() as server:
        url = server.url()
    assert str(refusal(hook(url))) == "no connection: Connection refused"


def test_a_certificate_that_nobody_signed_is_refused_unless_it_is_named(tmp_path: Path) -> None:
    """Not a byte of the event goes to a server that cannot prove its name."""
    made = certificates(tmp_path)
    with serving(tls=made.server) as server:
        error = refusal(hook(server.url()))
        assert str(error).startswith("TLS: the certificate is not trusted")
        assert server.got == []

        hook(server.url(), ca_file=made.ca_file).send(delivery())
        assert len(server.got) == 1

        elsewhere = server.url().replace("localhost", "127.0.0.1")
        assert "certificate" in str(refusal(hook(elsewhere, ca_file=made.ca_file)))


def test_user_and_password_of_the_url_are_sent_as_such() -> None:
    """And are no part of what is asked for."""
    with serving() as server:
        hook(server.url().replace("//", "//s3cr3t-user:p%40ss@")).send(delivery())

    (got,) = server.got
    assert got.headers["authorization"] == "Basic czNjcjN0LXVzZXI6cEBzcw=="
    assert "@" not in got.headers["host"]


@pytest.mark.parametrize(
    ("url", "key", "told"),
    [
        ("ftp://example.org/s3cr3t-path-token", KEY, "must be https://HOST/"),
        ("https://", KEY, "must be https://HOST/"),
        ("s3cr3t-path-token", KEY, "must be https://HOST/"),
        ("https://example.org:port/s3cr3t-path-token", KEY, "must be https://HOST/"),
        ("https://example.org/", "whsec_c2hvcnQ=", "at least 24 bytes"),
        ("https://example.org/", "s3cr3t-query, not Base64", "Base64 of at least 24 bytes"),
        ("", KEY, "environment variable URL is not set or empty"),
        ("https://a/s3cr3t-path-token\nhttps://b/", KEY, "more than one line"),
    ],
)
def test_secrets_that_cannot_be_used_are_told_without_them(url: str, key: str, told: str) -> None:
    """By `config check`, and as a failed delivery; neither says what they are."""
    assert told in str(refusal(hook(url, key=key)))
    with pytest.raises(ConfigError, match=r"channels\.hook") as caught:
        hook(url, key=key).check()
    assert told in str(caught.value)
    assert not [secret for secret in SECRETS if secret in str(caught.value)]


def test_check_sends_nothing() -> None:
    """Secrets that can be used pass in silence."""
    with serving() as server:
        hook(server.url()).check()
    assert server.got == []


def test_a_file_of_a_secret_may_be_replaced(tmp_path: Path) -> None:
    """It is read for each delivery; one that is missing fails that delivery only."""
    file = tmp_path / "url"
    with serving() as server:
        channel = hook("", url_env=None, url_file=file)
        assert f"{file} cannot be read: No such file" in str(refusal(channel))
        file.write_text(server.url("/new\n"))
        channel.send(delivery())

    assert [got.path for got in server.got] == ["/new"]


def test_close_breaks_off_a_delivery() -> None:
    """A stopping daemon waits for no receiver."""
    errors: list[str] = []
    with serving(Answer(act=hang)) as server:
        channel = hook(server.url(), timeout_seconds=60.0)
        thread = threading.Thread(target=lambda: errors.append(str(refusal(channel))))
        thread.start()
        until(lambda: server.got)
        channel.close()
        thread.join(10)

    assert errors == ["the sending process ended with exit code -9"]
    assert "the daemon stops" in str(refusal(channel))
