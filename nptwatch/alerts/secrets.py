"""Secrets: found in the environment or in a file when they are needed, and never kept or shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from nptwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Self

    from nptwatch.channel_settings import ChannelSettings

LONGEST_BYTES = 64 * 1024

SHORTEST_PIECE = 4
"""Shorter pieces of a URL (`yes`, `587`) tell nothing, and hiding them would garble every error."""

SEPARATORS = (r"[^\w.~%+=-]+", r"[^\w.~%+-]+", r"[^\w~%-]+")
"""What stands between the pieces of a URL: as it is, with queries apart, with names apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Where a secret is found; read anew each time, so that a file may be replaced.

    Attributes:
        label: the setting that names it, for messages: "channels.slack.url_env".
    """

    label: str
    variable: str | None
    file: Path | None
    env: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, channel: str, settings: ChannelSettings, name: str, env: Mapping[str, str]) -> Self:
        """Find out where a channel's secret is: its `name_env` or `name_file`."""
        variable = getattr(settings, f"{name}_env")
        how = "env" if variable is not None else "file"
        return cls(
            label=f"channels.{channel}.{name}_{how}",
            variable=variable,
            file=getattr(settings, f"{name}_file"),
            env=env,
        )

    def read(self) -> str:
        """Give the secret.

        Raises:
            ConfigError: it is not there, empty, or more than one line.
        """
        if self.file is not None:
            where, text = f"file {self.file}", self._from(self.file).strip()
        else:
            where = f"environment variable {self.variable}"
            text = self.env.get(str(self.variable), "").strip()
        if not text:
            raise ConfigError(f"{self.label}: {where} is not set or empty")
        if len(text.splitlines()) > 1:
            raise ConfigError(f"{self.label}: {where} has more than one line; expected one secret")
        return text

    def _from(self, file: Path) -> str:
        try:
            with file.open("rb") as opened:
                return opened.read(LONGEST_BYTES).decode()
        except OSError as exc:
            message = f"{self.label}: {file} cannot be read: {exc.strerror}"
            raise ConfigError(message) from None
        except UnicodeDecodeError:
            raise ConfigError(f"{self.label}: {file} is no UTF-8 text") from None


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Hide secrets in words of others: each as a whole, and each of its pieces, however quoted."""
    pieces = {form for secret in secrets for piece in _pieces(secret) for form in _forms(piece)}
    for piece in sorted(pieces, key=len, reverse=True):
        text = text.replace(piece, "***")
    return text


def _pieces(secret: str) -> set[str]:
    url = secret.partition("://")[2] or secret  # a scheme is no secret
    parts = {secret}.union(*(re.split(separators, url) for separators in SEPARATORS))
    return {part for part in parts if len(part) >= SHORTEST_PIECE}


def _forms(piece: str) -> set[str]:
    return {piece, unquote(piece), quote(piece, safe="")}
