"""Fixtures for the integration tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import structlog
from structlog.testing import capture_logs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def logs() -> Iterator[list[dict[str, Any]]]:
    """Log events of this process, as they come."""
    with capture_logs() as entries:
        yield entries  # type: ignore[misc] # structlog's dicts may be any mutable mapping
    structlog.reset_defaults()
