"""A message that only says whether a channel works."""

from __future__ import annotations

import socket
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nptwatch.alerts.outbox import worded
from nptwatch.alerts.samples import sample
from nptwatch.alerts.templates import Texts
from nptwatch.store.records import Delivery

if TYPE_CHECKING:
    from pathlib import Path


def example_of(kind: str, channel: str, templates: Path | None) -> Delivery:
    """Make up a message of a kind, marked as what it is; only its id and time are real."""
    event_id = str(uuid.uuid4())
    real = {
        "event_id": event_id,
        "at": datetime.now(UTC).isoformat(),
        "host": socket.gethostname(),
        "test": True,
    }
    delivery = Delivery(
        outbox_id=0,
        event_id=event_id,
        channel=channel,
        kind=kind,
        payload=sample(kind) | real,
        attempts=1,
    )
    return worded(delivery, Texts(templates), lambda _: None)
