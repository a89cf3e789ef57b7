"""A sender process for the delivery tests: sends what is due to a webhook, once, and ends.

Usage: python alert_sender.py DATABASE_URL HOURS, with the secrets in URL and KEY. It takes the time
to be so many hours from now, so that claims and pauses of before are over. It prints how many
messages it delivered.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from random import Random

from nptwatch.alert_settings import AlertSettings
from nptwatch.alerts.outbox import Sender
from nptwatch.alerts.remote import WebhookChannel
from nptwatch.alerts.secrets import Secret
from nptwatch.alerts.templates import Texts
from nptwatch.logs import configure_logs
from nptwatch.store.engine import Database
from nptwatch.store.outbox import Outbox


def main() -> None:
    """Send."""
    configure_logs(form="json")
    database_url, hours = sys.argv[1], float(sys.argv[2])
    outbox = Outbox(
        Database(database_url), clock=lambda: datetime.now(UTC) + timedelta(hours=hours)
    )
    channel = WebhookChannel(
        "log",  # what the store's tests send to
        url=Secret(label="url", variable="URL", file=None, env=os.environ),
        key=Secret(label="key", variable="KEY", file=None, env=os.environ),
        ca_file=None,
        timeout_seconds=20.0,
        env=os.environ,
    )
    sender = Sender(
        outbox,
        [channel],
        AlertSettings(),
        texts=Texts(None),
        forecast=lambda _: None,
        random=Random(1),  # noqa: S311 - jitter
    )
    print(sender.run_due(), flush=True)


if __name__ == "__main__":
    main()
