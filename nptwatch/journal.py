"""systemd's journal by its own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): fields, not lines.

The protocol is a datagram with a line for each field. A library would bring a build of C
(systemd-python) or 3 MB (cysystemd) for what are two dozen lines here.
"""

from __future__ import annotations

import json
import os
import re
import socket
from typing import TYPE_CHECKING, Final, TextIO

from structlog import DropEvent

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from typing import Any

    from structlog.typing import Processor, ProcessorReturnValue

ADDRESS: Final = "/run/systemd/journal/socket"

_PREFIX: Final = "NPTWATCH_"
_LONGEST_NAME: Final = 64
_PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_NOT_IN_A_NAME = re.compile(r"[^A-Z0-9_]")
_ELSEWHERE: Final = {"event", "level", "timestamp", "exception"}
"""Of an event: what is no field of its own, for the journal has it in a place of its own."""


class Journal:
    """The journal's socket; each message goes by itself, so that a restart of it does no harm."""

    def __init__(self, address: str = ADDRESS) -> None:
        self._address = address

    def send(self, fields: Mapping[str, str]) -> None:
        """Send an entry.

        Raises:
            OSError: nobody listens, or it is too long for a datagram.
        """
        message = b"".join(map(_line, fields, fields.values()))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(message, self._address)


def is_journal(stream: TextIO, env: Mapping[str, str]) -> bool:
    """Say whether what is written to a stream goes to the journal, as systemd.exec(5) tells it."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file, or closed
        return False
    return env.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def to_journal(journal: Journal, otherwise: Processor) -> Processor:
    """Give a last processor that sends events to the journal.

    Args:
        otherwise: makes a line of an event that the journal did not take.
    """

    def process(
        logger: Any,  # noqa: ANN401 - structlog's
        method: str,
        event: MutableMapping[str, Any],  # Any: structlog's
    ) -> ProcessorReturnValue:
        try:
            journal.send(entry(event))
        except OSError:
            return otherwise(logger, method, event)
        raise DropEvent

    return process


def entry(event: Mapping[str, object]) -> dict[str, str]:
    """Give an event's fields: each of ours, and the message as people read it."""
    own = {
        name: _text(value)
        for name, value in event.items()
        if value is not None and name not in _ELSEWHERE
    }
    words = [str(event["event"]), *(f"{name}={_word(text)}" for name, text in own.items())]
    lines = [" ".join(words), *filter(None, [str(event.get("exception") or "")])]
    return {
        "MESSAGE": "\n".join(lines),
        "PRIORITY": str(_PRIORITY.get(str(event.get("level")), _PRIORITY["info"])),
        "SYSLOG_IDENTIFIER": "nptwatch",
        f"{_PREFIX}EVENT": str(event["event"]),
        **{_name(name): text for name, text in own.items()},
    }


def _name(name: str) -> str:
    return f"{_PREFIX}{_NOT_IN_A_NAME.sub('_', name.upper())}"[:_LONGEST_NAME]


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, default=str, ensure_ascii=False)


def _word(text: str) -> str:
    """Quote what would not be one word."""
    is_word = text and text.isprintable() and not set(text) & set(' ="')
    return text if is_word else json.dumps(text, ensure_ascii=False)


def _line(name: str, text: str) -> bytes:
    value = text.encode(errors="backslashreplace")
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
