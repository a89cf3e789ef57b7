"""structlog set-up: readable on a terminal, one JSON object a line otherwise."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, TextIO

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structlog.typing import Processor


def configure_logs(
    *,
    level: str = "info",
    form: str = "auto",
    stream: TextIO | None = None,
    bind: Mapping[str, object] | None = None,
) -> None:
    """Route structlog and the standard library's loggers to one stream.

    Args:
        level: debug, info, warning or error.
        form: console, json, or auto (console on a terminal).
        stream: where lines go; standard error by default.
        bind: fields that every line of this process carries.
    """
    stream = stream or sys.stderr
    terminal = stream.isatty()
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    as_json = form == "json" or (form == "auto" and not terminal)
    last: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
        if as_json
        else [
            structlog.dev.ConsoleRenderer(
                colors=terminal,
                # by default it shows all local variables where rich is installed: secrets too
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**(bind or {}))

    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))  # libraries: warnings and worse only
