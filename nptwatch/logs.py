"""structlog set-up: readable on a terminal, fields in systemd's journal, JSON lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

import structlog

from nptwatch.journal import ADDRESS, Journal, is_journal, to_journal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structlog.typing import Processor


def configure_logs(
    *,
    level: str = "info",
    form: str = "auto",
    stream: TextIO | None = None,
    bind: Mapping[str, object] | None = None,
    env: Mapping[str, str] = os.environ,
    journal_at: str = ADDRESS,
) -> None:
    """Route structlog and the standard library's loggers to one stream.

    Args:
        level: debug, info, warning or error.
        form: console, json, or auto (console on a terminal, fields where the journal listens).
        stream: where lines go; standard error by default.
        bind: fields that every line of this process carries.
        env: says whether the journal listens.
        journal_at: the address of its socket.
    """
    stream = stream or sys.stderr
    terminal = stream.isatty()
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last = _last(terminal=terminal, as_json=form == "json" or (form == "auto" and not terminal))
    if form == "auto" and is_journal(stream, env):
        *before, line = last
        last = [*before, to_journal(Journal(journal_at), line)]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**(bind or {}))

    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))  # libraries: warnings and worse only


def _last(*, terminal: bool, as_json: bool) -> list[Processor]:
    """Give what makes a line of an event."""
    if as_json:
        render = structlog.processors.JSONRenderer(default=str)
        return [structlog.processors.format_exc_info, render]
    return [
        structlog.dev.ConsoleRenderer(
            colors=terminal,
            # by default it shows all local variables where rich is installed: secrets too
            exception_formatter=structlog.dev.plain_traceback,
        )
    ]


class _Handler(logging.StreamHandler[TextIO]):
    """Writes what the standard library's loggers say, but for what went elsewhere."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, if there is one."""
        with suppress(structlog.DropEvent):
            super().emit(record)
