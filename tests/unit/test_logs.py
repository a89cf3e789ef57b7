"""What the daemon prints."""

from __future__ import annotations

import io

import pytest
import structlog

from nptwatch.logs import configure_logs


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_no_variables(form: str) -> None:
    """They may hold secrets; structlog shows them on a console where rich is installed."""
    stream = io.StringIO()
    configure_logs(form=form, stream=stream)
    secret = f"hunter{1 + 1}"
    try:
        int(secret[0])
    except ValueError:
        structlog.get_logger().exception("chore_failed")

    assert "ValueError: invalid literal" in stream.getvalue()
    assert secret not in stream.getvalue()
