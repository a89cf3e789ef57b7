"""A first settings file from a few answers: its text, what it leaves out, and what it comes to."""

from __future__ import annotations

import os
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nptwatch.errors import ConfigError
from nptwatch.settings import Settings, load_settings, masked_url
from nptwatch.setup.config_text import config_text
from nptwatch.setup.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE: Final = "config.example.toml"
URL_VARIABLE: Final = "NPTWATCH_DATABASE__URL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a person answered; None or nothing: the default.

    Attributes:
        roots: directories to watch.
        channel: name of a channel through Apprise.
        alert_command: program, with its arguments, that is told of alerts.
    """

    roots: tuple[str, ...] = ()
    base_model: str | None = None
    state_dir: Path | None = None
    database_url: str | None = None
    channel: str | None = None
    alert_command: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstSettings:
    """A settings file that is not written yet.

    Attributes:
        settings: what it comes to.
        secrets: lines for the environment's file, each below a comment on what is still to be put.
    """

    text: str
    settings: Settings
    secrets: tuple[str, ...]


def first_settings(choices: Choices, *, home: Path) -> FirstSettings:
    """Make the text, and load it as the daemon will.

    Args:
        home: the home folder; ~ is written out.

    Raises:
        ConfigError: there is nothing to watch, or an answer makes no setting.
    """
    if not choices.roots:
        raise ConfigError("no directory to watch: name one (`nptwatch init ~/experiments`)")
    text = config_text(shipped(EXAMPLE), _values(choices, home), _channels(choices))
    return FirstSettings(text=text, settings=_loaded(text, home), secrets=tuple(_secrets(choices)))


def secret_of(channel: str) -> str:
    """Name the variable for a channel's URL."""
    letters = (letter if letter.isalnum() else "_" for letter in channel.upper())
    return f"NPTWATCH_SECRET_{''.join(letters)}"


def words_of(answer: str) -> list[str]:
    """Split an answer as a shell does.

    Raises:
        ConfigError: a quote is not closed.
    """
    try:
        return shlex.split(answer)
    except ValueError as error:
        raise ConfigError(f"{answer}: {error}") from error


def _values(choices: Choices, home: Path) -> dict[str, object]:
    values: dict[str, object] = {
        "watch.roots": [str(_absolute(root, home)) for root in choices.roots]
    }
    if choices.base_model:
        folder = _absolute(choices.base_model, home)
        # a hub's name stays one unless a folder is called so
        is_folder = folder.is_dir() or choices.base_model[0] in "./~"
        values["base.model"] = str(folder) if is_folder else choices.base_model
    if choices.state_dir is not None:
        values["state_dir"] = str(_absolute(str(choices.state_dir), home))
    if choices.database_url and not _is_secret(choices.database_url):
        values["database.url"] = choices.database_url
    return values


def _channels(choices: Choices) -> dict[str, dict[str, object]]:
    channels: dict[str, dict[str, object]] = {}
    if choices.channel:
        channels[choices.channel] = {"type": "apprise", "url_env": secret_of(choices.channel)}
    if choices.alert_command:
        command = words_of(choices.alert_command)
        channels["command"] = {"type": "command", "command": command}
    return channels


def _secrets(choices: Choices) -> Iterator[str]:
    if choices.database_url and _is_secret(choices.database_url):
        yield "# with the password for ***"
        yield f"{URL_VARIABLE}={masked_url(choices.database_url)}"
    if choices.channel:
        yield "# an Apprise URL, as ntfy://TOPIC or slack://TOKEN/TOKEN/TOKEN"
        yield f"{secret_of(choices.channel)}=..."


def _is_secret(url: str) -> bool:
    return masked_url(url) != url


def _absolute(path: str, home: Path) -> Path:
    parts = Path(path).parts
    if parts[:1] == ("~",):
        return home.joinpath(*parts[1:])
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links


def _loaded(text: str, home: Path) -> Settings:
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "config.toml"
        try:
            draft.write_text(text, encoding="utf-8")
            return load_settings(draft, env={"HOME": str(home)})
        except (ConfigError, UnicodeEncodeError) as error:
            said = str(error).replace(f" (from {draft})", "")
            raise ConfigError(f"this would make no settings: {said}") from error
