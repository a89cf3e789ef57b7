"""The real daemon and its channels: each by itself, and no secret where it could be read."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from receivers import Answer, hang, receiving_mail, serving
from serving import DaemonProcess, Place
from watching import until

from nptwatch.store.records import OutboxState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LONG = 60.0
KEY = "whsec_c2lnbmluZy1rZXktb2YtdGhpcnR5LXR3by1ieXRlcyE="
SECRETS = ("s3cr3t", "c2lnbmluZy1rZXkt")
NOTE = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read())"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A fresh place."""
    place = Place(tmp_path)
    yield place
    place.close()


@pytest.fixture
def start(place: Place) -> Iterator[Callable[..., DaemonProcess]]:
    """Starts daemons in that place and ends them after the test."""
    daemons: list[DaemonProcess] = []

    def start(**channels: dict[str, Any]) -> DaemonProcess:
        settings = place.settings(channels=channels, worker={"shutdown_seconds": 0.5})
        daemons.append(DaemonProcess(place, settings))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.close()


def files_with_secrets(folder: Path) -> list[str]:
    """Name the files below a folder in which a secret can be read."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [
        f"{secret} in {file}"
        for file in files
        for secret in SECRETS
        if secret.encode() in file.read_bytes()
    ]


def test_every_channel_is_told_and_no_secret_is_left_behind(
    place: Place,
    start: Callable[..., DaemonProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Webhook, mail and command get the same event, after errors that quote their URLs."""
    place.checkpoint(100, mse=0.08)
    echo = Answer(status=500, body=b"no hook at /hook/s3cr3t-path-token?code=s3cr3t-query")
    with serving(echo) as server, receiving_mail("550 not for s3cr3t-pass") as (port, mailbox):
        monkeypatch.setenv("NPTWATCH_SECRET_URL", server.url())
        monkeypatch.setenv("NPTWATCH_SECRET_KEY", KEY)
        monkeypatch.setenv(
            "MAIL", f"mailto://localhost:{port}?from=s3cr3t-pass@a.org&to=b@a.org&mode=insecure"
        )
        note = [sys.executable, "-S", "-c", NOTE, str(tmp_path / "told")]
        daemon = start(
            hook={
                "type": "webhook",
                "url_env": "NPTWATCH_SECRET_URL",
                "key_env": "NPTWATCH_SECRET_KEY",
            },
            mail={"type": "apprise", "url_env": "MAIL"},
            note={"type": "command", "command": note},
        )
        delivered = ("hook", "mail", "note", "log")
        until(
            lambda: (
                place.stores.outbox.counts()
                == {(channel, OutboxState.DELIVERED): 1 for channel in delivered}
            ),
            seconds=LONG,
        )
        assert daemon.stop() == 0

    told = json.loads((tmp_path / "told").read_text())
    assert {got.event_id for got in server.got} == {told["event_id"]}
    assert len(server.got) == 2
    (mail,) = mailbox.messages
    assert told["event_id"] in mail
    assert {entry["channel"] for entry in daemon.log("alert_failed")} == {"hook", "mail"}
    assert "HTTP 500: Internal Server Error, no ***" in daemon.text()
    assert files_with_secrets(tmp_path) == []


def test_a_receiver_that_hangs_delays_no_other_and_no_stop(
    place: Place,
    start: Callable[..., DaemonProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other channels have theirs meanwhile; the daemon's stop breaks the slow one off."""
    with serving(Answer(act=hang)) as server:
        monkeypatch.setenv("NPTWATCH_SECRET_URL", f"json://127.0.0.1:{server.port}/s3cr3t")
        note = [sys.executable, "-S", "-c", NOTE, str(tmp_path / "told")]
        daemon = start(
            slow={"type": "apprise", "url_env": "NPTWATCH_SECRET_URL", "timeout_seconds": 500.0},
            note={"type": "command", "command": note},
        )
        place.checkpoint(100, mse=0.08)
        until(lambda: server.got and (tmp_path / "told").exists(), seconds=LONG)
        assert place.stores.outbox.counts()["slow", OutboxState.SENDING] == 1
        assert daemon.stop() == 0

    assert place.stores.outbox.counts()["slow", OutboxState.PENDING] == 1


def test_a_secret_that_is_missing_ends_the_start(
    place: Place, start: Callable[..., DaemonProcess]
) -> None:
    """With the name of the variable or the file; better now than at the first alert."""
    daemon = start(
        hook={"type": "webhook", "url_env": "NPTWATCH_SECRET_NO", "key_file": "/no/such/key"}
    )
    assert daemon.process.wait(LONG) == 2
    assert "channels.hook.url_env: environment variable NPTWATCH_SECRET_NO is not set" in (
        daemon.text()
    )
    assert "channels.hook.key_file: /no/such/key cannot be read" in daemon.text()


def test_a_digest_is_sent_once_by_the_daemons_of_a_day(place: Place, tmp_path: Path) -> None:
    """On a quiet day too; a restart sends no second one."""
    note = [sys.executable, "-S", "-c", NOTE, str(tmp_path / "told")]
    settings = place.settings(
        channels={"note": {"type": "command", "command": note}},
        digest={"at": "00:00", "channels": ["note"]},
    )
    for _ in range(2):
        daemon = DaemonProcess(place, settings)
        daemon.wait_for("worker_ready")
        until(
            lambda: place.stores.outbox.counts() == {("note", OutboxState.DELIVERED): 1},
            seconds=LONG,
        )
        assert daemon.stop() == 0

    told = json.loads((tmp_path / "told").read_text())
    assert (told["kind"], told["runs"]) == ("digest", [])
    assert "Measured: 0 checkpoints of 0 runs" in told["text"]
