"""The tables [channels.NAME]: each problem told without a value, secrets named and never held."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nptwatch.alerts.channels import require_secrets
from nptwatch.alerts.secrets import redacted
from nptwatch.channel_settings import WebhookChannelSettings
from nptwatch.errors import ConfigError
from nptwatch.service.handover import dump_settings, parse_settings
from nptwatch.settings import load, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

HOOK = '[channels.hook]\ntype = "webhook"\nurl_env = "HOOK"\nkey_file = "keys/hook"\n'


def refusal(tmp_path: Path, text: str) -> str:
    """Give the message with which a settings file is refused; it never quotes a value."""
    file = tmp_path / "nptwatch.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(file, env={})
    assert "hunter2" not in str(caught.value)
    return str(caught.value).replace(f" (from {file})", "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[channels.a]\ntype = "apprise"\nurl = "slack://hunter2"\n',
         "channels.a.url: no such setting, did you mean url_env?"),
        ('[channels.a]\ntype = "webhook"\nurl_env = "X"\nkey = "hunter2"\nkey_env = "Y"\n',
         "channels.a.key: no such setting, did you mean key_env?"),
        ('[channels.a]\ntype = "apprise"\nurl_env = "https://hunter2/x"\n',
         "channels.a.url_env: String should match"),
        ('[channels.a]\ntype = "apprise"\n', "channels.a: needs url_env (a variable) or url_file"),
        ('[channels.a]\ntype = "apprise"\nurl_env = "A"\nurl_file = "b"\n', "one of the two"),
        ('[channels.a]\ntype = "webhook"\nurl_env = "X"\n', "channels.a: needs key_env"),
        ('[channels.a]\ntype = "slack"\nurl_env = "X"\n',
         'channels.a: needs type = "apprise" or "webhook" or "command"'),
        ('[channels.a]\nurl_env = "X"\n', 'channels.a: needs type = "apprise"'),
        ('[channels.a]\ntype = "command"\ncommand = []\n', "channels.a.command: Tuple should have"),
        ('[channels.a]\ntype = "command"\ncommand = ["x"]\ntimeout = 3\n',
         "channels.a.timeout: no such setting, did you mean timeout_seconds?"),
        ('[channels.a]\ntype = "command"\ncommand = ["x"]\ntimeout_seconds = 0\n',
         "channels.a.timeout_seconds: should be greater than 0"),
        ('[channels.log]\ntype = "command"\ncommand = ["x"]\n', "'log' is no name"),
        ('[channels."A b"]\ntype = "command"\ncommand = ["x"]\n', "'A b' is no name"),
        ('[channels]\nslack = "hunter2"\n', "channels.slack: "),
        ('channels = "hunter2"\n', "channels: should be a valid dictionary"),
    ],
)  # fmt: skip
def test_a_wrong_channel_is_told_by_its_place(tmp_path: Path, text: str, told: str) -> None:
    """Table and key, what is expected, a hint; never the value, which may be a secret."""
    assert told in refusal(tmp_path, text)


def test_files_of_secrets_are_relative_to_the_settings_file(tmp_path: Path) -> None:
    """And nothing that is handed to a worker or printed holds a secret."""
    file = tmp_path / "nptwatch.toml"
    file.write_text(HOOK)
    env = {"HOOK": "https://hunter2/"}
    settings = load(file, env=env, cwd=Path("/elsewhere")).settings
    assert settings.channels["hook"] == WebhookChannelSettings(
        type="webhook", url_env="HOOK", key_file=tmp_path / "keys/hook"
    )
    assert parse_settings(dump_settings(settings)) == settings
    assert "hunter2" not in f"{settings!r} {dump_settings(settings)!r}"


def test_channels_from_the_environment() -> None:
    """One variable with all of them, as JSON; a variable for a secret is no setting."""
    channels = {"note": {"type": "command", "command": ["tee", "x"]}}
    env = {"NPTWATCH_CHANNELS": json.dumps(channels), "NPTWATCH_SECRET_X": "hunter2"}
    assert list(load_settings(None, env=env).channels) == ["note"]


@pytest.mark.parametrize(
    ("env", "key", "told"),
    [
        ({}, "whsec_x", "channels.hook.url_env: environment variable HOOK is not set or empty"),
        ({"HOOK": "  "}, "whsec_x", "variable HOOK is not set or empty"),
        ({"HOOK": "https://a"}, None, "cannot be read: No such file"),
        ({"HOOK": "https://a"}, b"\xff\xfe", "is no UTF-8 text"),
        ({"HOOK": "https://a"}, "one\ntwo", "has more than one line"),
        ({"HOOK": "https://a"}, "\n", "is not set or empty"),
    ],
)
def test_a_secret_that_is_not_there_is_told_by_its_setting(
    tmp_path: Path, env: Mapping[str, str], key: str | bytes | None, told: str
) -> None:
    """With variable or file; all of them at once, at the daemon's start."""
    file = tmp_path / "nptwatch.toml"
    file.write_text(HOOK)
    (tmp_path / "keys").mkdir()
    if key is not None:
        (tmp_path / "keys/hook").write_bytes(key if isinstance(key, bytes) else key.encode())
    with pytest.raises(ConfigError) as caught:
        require_secrets(load_settings(file, env={}).channels, env=env)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("slack://T0KEN-a/T0KENb/T0KENc/#chan", "Failed to post to T0KEN-a, T0KENb: T0KENc"),
        ("mailtos://me:p%40ssword@example.org", "535 wrong password 'p@ssword' for me"),
        ("https://h.example.org/x?code=a%2Fbcd%3D", "no /x?code=a/bcd= or a%2Fbcd%3D here"),
        ("https://u:hunter2@h.example.org/", "https://u:hunter2@h.example.org/ is down"),
        ("whsec_c2VjcmV0/+c2VjcmV0", "bad key c2VjcmV0/+c2VjcmV0"),
    ],
)
def test_words_of_others_are_freed_of_secrets(secret: str, words: str) -> None:
    """The whole, and each part of a URL, encoded or not."""
    safe = redacted(words, [secret])
    assert "***" in safe
    for part in ("T0KEN", "p%40ss", "p@ss", "bcd", "hunter2", "c2VjcmV0"):
        assert part not in safe


@given(
    st.text("abcXYZ019-_~.", min_size=4, max_size=30),
    st.text("abcXYZ019-_~.", min_size=4, max_size=30),
    st.text(max_size=20),
)
def test_no_part_of_a_url_survives(token: str, other: str, around: str) -> None:
    """Wherever it stands in the words."""
    url = f"https://example.org/{token}/x?key={other}"
    safe = redacted(f"{around}{url} {token} {around} {other}", [url])
    for part in (token, other):
        assert part not in safe.replace("***", "") or part in around
