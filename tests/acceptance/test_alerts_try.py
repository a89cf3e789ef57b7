"""`nptwatch alerts test`, `config check` and `config show` with channels: the real command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, TypeAlias

import pytest
from receivers import Answer, receiving_mail, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Command: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"

KEY = "whsec_c2lnbmluZy1rZXktb2YtdGhpcnR5LXR3by1ieXRlcyE="
SECRETS = ("s3cr3t", "c2lnbmluZy1rZXkt")
CONFIG = """
state_dir = "state"
[channels.hook]
type = "webhook"
url_env = "NPTWATCH_SECRET_URL"
key_file = "key"
[channels.mail]
type = "apprise"
url_env = "NPTWATCH_SECRET_MAIL"
[channels.note]
type = "command"
command = ["tee", "told.json"]
"""


@pytest.fixture
def nptwatch(tmp_path: Path) -> Command:
    """Runs the command with these channels; checks that it tells no secret."""
    (tmp_path / "nptwatch.toml").write_text(CONFIG)
    (tmp_path / "key").write_text(KEY)

    def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [sys.executable, "-m", "nptwatch", *words],
            cwd=tmp_path,
            env=os.environ | {f"NPTWATCH_SECRET_{name}": value for name, value in env.items()},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert not [secret for secret in SECRETS if secret in ended.stdout + ended.stderr]
        return ended

    return run


def test_a_message_is_sent_and_told(nptwatch: Command) -> None:
    """To a webhook, by mail, to a command, to the log; marked as a test."""
    with serving() as server, receiving_mail() as (port, mailbox):
        mail = f"mailto://localhost:{port}?from=s3cr3t@a.org&to=b@a.org&mode=insecure"
        for channel in ("hook", "mail", "note", "log"):
            ended = nptwatch("alerts", "test", channel, URL=server.url(), MAIL=mail)
            assert ended.returncode == 0, ended.stderr
            assert ended.stdout.startswith(f"delivered to {channel} in ")

    event = json.loads(server.got[0].body)
    assert (event["kind"], event["test"], len(event["event_id"])) == ("test", True, 36)
    assert "This is a test: nothing happened." in mailbox.messages[0]
    assert "alert_raised" in ended.stderr


def test_a_kind_can_be_previewed(nptwatch: Command, tmp_path: Path) -> None:
    """As the templates word it."""
    ended = nptwatch("alerts", "test", "note", "--kind", "regressed", "--json")
    assert json.loads(ended.stdout)["delivered"] is True
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["title"] == "[nptwatch] (test) example: fell back to FAIR at step 1000"


def test_what_went_wrong_is_told(nptwatch: Command) -> None:
    """Exit code 1 and the reason, in JSON too."""
    echo = Answer(status=403, body=b"who is s3cr3t-path-token?")
    with serving(echo, echo) as server:
        ended = nptwatch("alerts", "test", "hook", URL=server.url())
        as_json = nptwatch("alerts", "test", "hook", "--json", URL=server.url())

    assert ended.returncode == 1
    assert "error: hook did not take it (after " in ended.stderr
    assert ended.stderr.endswith("HTTP 403: Forbidden, who is ***?\n")
    answer = json.loads(as_json.stdout)
    assert (as_json.returncode, answer["delivered"]) == (1, False)
    assert answer["error"] == "HTTP 403: Forbidden, who is ***?"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["hok"], "no channel 'hok', did you mean hook?"),
        (["x"], "no channel 'x'; there are: log, hook, mail, note"),
        (["note", "--kind", "reached_god"], "no kind 'reached_god', did you mean reached_good?"),
    ],
)
def test_a_wrong_name_gets_the_right_one(nptwatch: Command, words: list[str], told: str) -> None:
    """Exit code 2."""
    ended = nptwatch("alerts", "test", *words)
    assert (ended.returncode, ended.stderr) == (2, f"error: {told}\n")


def test_config_check_tells_of_channels_that_cannot_work_here(nptwatch: Command) -> None:
    """Notes, as the daemon's environment may be another; nothing is sent."""
    ended = nptwatch("config", "check", MAIL="slakc://s3cr3t")
    assert ended.returncode == 0
    assert "channels.hook.url_env: environment variable NPTWATCH_SECRET_URL is not set" in (
        ended.stderr
    )
    assert "channels.mail: Apprise needs one URL of a service that it knows" in ended.stderr
    with serving() as server:
        ended = nptwatch("config", "check", MAIL="mailto://u:s3cr3t@example.org", URL=server.url())
    assert "channels" not in ended.stderr
    assert server.got == []


def test_config_check_tells_what_exports_lack(nptwatch: Command, tmp_path: Path) -> None:
    """A key that is not in this environment; the settings themselves are right."""
    config = tmp_path / "exports.toml"
    config.write_text('[exports.wandb]\non = true\nkey_env = "NPTWATCH_SECRET_NOT_SET"\n')
    ran = nptwatch("config", "check", "--config", str(config))
    assert ran.returncode == 0
    assert "note: exports.wandb.key_env: environment variable" in ran.stderr


def test_config_check_refuses_templates_that_do_not_work(nptwatch: Command, tmp_path: Path) -> None:
    """They stand in files, not in an environment that may differ: exit code 2."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/default.txt").write_text("{{ nonsense }}")
    with (tmp_path / "nptwatch.toml").open("a") as config:
        config.write('[alerts]\ntemplates = "texts"\n')
    ended = nptwatch("config", "check")
    assert ended.returncode == 2
    assert "texts/default.txt: UndefinedError: 'nonsense' is undefined" in ended.stderr


def test_config_show_has_the_channels_and_no_secret(nptwatch: Command, tmp_path: Path) -> None:
    """As TOML that could be used as it is, with where it comes from."""
    shown = nptwatch("config", "show", URL="https://s3cr3t/", MAIL="slack://s3cr3t").stdout
    channels = tomllib.loads(shown)["channels"]
    assert channels["hook"] == {
        "timeout_seconds": 30.0,
        "type": "webhook",
        "url_env": "NPTWATCH_SECRET_URL",
        "key_file": str(tmp_path / "key"),
    }
    assert f"[channels.note]  # {tmp_path}/nptwatch.toml" in shown
