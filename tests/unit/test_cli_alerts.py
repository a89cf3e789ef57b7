"""`nptwatch alerts` for people and programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from telling import Training

from nptwatch.cli.main import main
from nptwatch.store.outbox import Outbox

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import FakeClock

    from nptwatch.store.engine import Database


@pytest.fixture
def training(
    database: Database, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Training:
    """Give a run that got good and met NaN, in the database that the command reads."""
    config = tmp_path / "nptwatch.toml"
    config.write_text(
        f'state_dir = "{tmp_path}"\n[channels.mail]\ntype = "command"\ncommand = ["true"]\n'
    )
    monkeypatch.setenv("NPTWATCH_CONFIG", str(config))
    told = Training(database, clock)
    told.train("FAIR", "GOOD", "INVALID")
    return told


def ids(training: Training) -> list[str]:
    """Give the ids, the first one first."""
    return [each.event_id for each in training.events()]


def test_list_and_show_are_json_on_request(
    training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same facts as the store has, ids and times whole."""
    assert main(["alerts", "list", "--json"]) == 0
    invalid, good = json.loads(capsys.readouterr().out)
    assert [good["event_id"], invalid["event_id"]] == ids(training)
    assert (good["kind"], good["run"], good["payload"]["step"]) == ("reached_good", "a", 2)
    assert (good["late"], good["acked_at"], good["at"]) == (False, None, "2026-11-20T12:02:00.000Z")
    assert [way["channel"] for way in good["messages"]] == ["log", "mail", "pager"]
    assert main(["alerts", "show", good["event_id"][:6], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == good
    assert main(["alerts", "list", "--json", "--kind", "invalid", "--run", "a"]) == 0
    assert json.loads(capsys.readouterr().out) == [invalid]


def test_the_table_says_what_became_of_each(
    training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line an event; channels apart where they differ."""
    delivery = training.outbox.claim(lease_seconds=30)
    assert delivery is not None
    training.outbox.delivered(delivery.outbox_id)
    assert main(["alerts", "list"]) == 0
    title, invalid, good = capsys.readouterr().out.splitlines()
    assert title.split() == ["EVENT", "WHEN", "KIND", "RUN", "STEP", "GRADE", "SENT", "SEEN", "BY"]
    assert invalid.split()[2:] == ["invalid", "a", "3", "INVALID", "pending", "-"]
    assert good.endswith("log delivered, mail pending, pager pending  -")
    assert good.startswith(ids(training)[0][:8])


def test_show_is_for_people(training: Training, capsys: pytest.CaptureFixture[str]) -> None:
    """All numbers, and each message with its tries."""
    assert main(["alerts", "show", ids(training)[0]]) == 0
    out = capsys.readouterr().out
    assert "kind             reached_good\n" in out
    assert "previous_mse     0.3\n" in out
    assert "mail     pending      0  2026-11-20T12:02:00Z  -" in out


def test_acknowledged_ones_are_left_out(
    training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    """One by one or all; what is wrong is told and changes nothing."""
    assert main(["alerts", "ack", ids(training)[0][:8], "--by", "ann"]) == 0
    assert capsys.readouterr().out == "1 event acknowledged\n"
    assert main(["alerts", "list", "--unacked", "--json"]) == 0
    assert [each["kind"] for each in json.loads(capsys.readouterr().out)] == ["invalid"]
    assert training.events()[0].acked_by == "ann"
    assert main(["alerts", "ack"]) == 2
    assert main(["alerts", "ack", "no-such-event"]) == 2
    assert "names no event: see `nptwatch alerts list`" in capsys.readouterr().err
    assert main(["alerts", "ack", "--all"]) == 0
    assert capsys.readouterr().out == "1 event acknowledged\n"
    assert main(["alerts", "list", "--unacked"]) == 0
    assert capsys.readouterr() == ("", "no such alerts\n")


def test_replay_sends_again(training: Training, capsys: pytest.CaptureFixture[str]) -> None:
    """To those to whom it went, or to named ones that are configured."""
    first = ids(training)[0]
    assert main(["alerts", "replay", first]) == 0
    assert capsys.readouterr().out == "goes out again to log, mail, pager\n"
    assert main(["alerts", "replay", first, "--channel", "mail"]) == 0
    assert capsys.readouterr().out == "goes out again to mail\n"
    assert main(["alerts", "replay", first, "--channel", "slack"]) == 2
    assert "no channel 'slack': there are log, mail" in capsys.readouterr().err
    outbox = Outbox(training.database)  # by this machine's clock, as the command's
    while outbox.claim(lease_seconds=300) is not None:
        pass
    assert main(["alerts", "replay", first]) == 1
    assert "nothing to send" in capsys.readouterr().err
