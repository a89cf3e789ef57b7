"""The tables [channels.NAME]: where alerts go. Secrets are named here, never held.

A URL that holds a token, and a key, stand in a variable of the environment (`..._env` names it) or
in a file of their own (`..._file`), so that the settings can be shown, logged and handed around.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from nptwatch.sections import PositiveSeconds, Section

if TYPE_CHECKING:
    from typing import Self

LOG = "log"
"""The channel that is always there."""

Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class ChannelSection(Section):
    """What every channel has."""

    timeout_seconds: PositiveSeconds = 30.0
    """A delivery that takes longer is broken off and tried again."""

    @model_validator(mode="after")
    def _names_each_secret_once(self) -> Self:
        for field in type(self).model_fields:
            name, _, how = field.rpartition("_")
            if how == "env" and (getattr(self, field) is None) == (
                getattr(self, f"{name}_file") is None
            ):
                raise ValueError(
                    f"needs {name}_env (a variable) or {name}_file (a file), one of the two"
                )
        return self


class AppriseChannelSettings(ChannelSection):
    """Slack, Discord, e-mail, Telegram, ntfy, PagerDuty and what else Apprise knows."""

    type: Literal["apprise"]
    url_env: Variable | None = None
    """Environment variable with the Apprise URL."""
    url_file: Path | None = None
    """File with the Apprise URL."""


class WebhookChannelSettings(ChannelSection):
    """The event as signed JSON, by POST."""

    type: Literal["webhook"]
    url_env: Variable | None = None
    """Environment variable with the URL."""
    url_file: Path | None = None
    """File with the URL."""
    key_env: Variable | None = None
    """Environment variable with the key that signs."""
    key_file: Path | None = None
    """File with the key that signs."""
    ca_file: Path | None = None
    """Certificates that the receiver's must be signed by; unset: the system's."""


class CommandChannelSettings(ChannelSection):
    """A program that gets the event as one JSON object on standard input."""

    type: Literal["command"]
    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """Program and arguments."""


ChannelSettings: TypeAlias = Annotated[
    AppriseChannelSettings | WebhookChannelSettings | CommandChannelSettings,
    Field(discriminator="type"),
]


class DigestSettings(Section):
    """A summary of the last day."""

    at: Annotated[str, StringConstraints(pattern=r"^(([01]\d|2[0-3]):[0-5]\d)?$")] = ""
    """Local time, "08:00", at which it is sent; "": never."""
    channels: tuple[str, ...] = ()
    """Names of the channels that get it; none: every one."""


def _free(name: str) -> str:
    if name == LOG:
        raise ValueError("log is the name of the channel that is always there; choose another")
    return name


ChannelName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$"), AfterValidator(_free)
]
