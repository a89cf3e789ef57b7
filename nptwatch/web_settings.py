"""The table [web]: what the daemon serves over HTTP."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from nptwatch.sections import Section

_LAST_PORT = 65535

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")


def _is_address(text: str) -> str:
    if text:
        split_address(text)
    return text


def split_address(text: str) -> tuple[str, int]:
    """Take HOST:PORT apart.

    Raises:
        ValueError: it is none.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > _LAST_PORT:
        raise ValueError(f'{text!r} is no address: expected "127.0.0.1:9477" or "[::1]:9477"')
    return found["host"].strip("[]"), int(found["port"])


class WebSettings(Section):
    """What the daemon serves over HTTP: /metrics, /health and /ready."""

    listen: Annotated[str, AfterValidator(_is_address)] = ""
    """HOST:PORT, "127.0.0.1:9477"; "": nothing is served. Who can reach it can read run names and
    numbers; there are no passwords."""
