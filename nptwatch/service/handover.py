"""How settings reach a worker: one line of JSON through its life line.

Not by command line, environment or file, where a password in the database URL could be read.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from pydantic import ValidationError

from nptwatch.errors import ConfigError
from nptwatch.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_BYTES = 1024**2


def dump_settings(settings: Settings) -> bytes:
    """Write settings, secrets included, as one line of JSON."""
    content = settings.model_dump(mode="json")
    if settings.database.url is not None:
        content["database"]["url"] = settings.database.url.get_secret_value()
    return json.dumps(content).encode() + b"\n"


def parse_settings(line: bytes) -> Settings:
    """Read what `dump_settings` wrote; every value is given, so no other source has a say.

    Raises:
        ConfigError: the line is not that.
    """
    try:
        return Settings(**json.loads(line))
    except (ValueError, TypeError, ValidationError):
        message = "a worker is started by `nptwatch run`, which sends it its settings"
        raise ConfigError(message) from None  # the cause would quote secrets


def read_line(fd: int) -> bytes:
    """Read one line, unbuffered, so that what follows stays in the pipe."""
    line = b""
    while not line.endswith(b"\n") and len(line) < LONGEST_BYTES:
        byte = os.read(fd, 1)
        if not byte:
            break
        line += byte
    return line


def worker_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment for a worker: this one without nptwatch's own settings."""
    return {key: value for key, value in env.items() if not key.startswith("NPTWATCH_")}
