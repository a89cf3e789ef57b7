"""Channels over the network. Each delivery is a process of its own, killed when it takes too long.

A name server, a TLS handshake or a service's client library can hang where no time-out of ours
reaches; a process ends whatever it is at, and the daemon never loads Apprise. Secrets reach it by
its standard input. What it answers is free of them, see `Answer` in `speaking.py`.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from nptwatch.alerts.programs import Program
from nptwatch.errors import ConfigError, DeliveryError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nptwatch.alerts.secrets import Secret
    from nptwatch.store.records import Delivery

GRACE_SECONDS = 5.0
"""The process may start, and tell of a time-out by itself, before it is killed."""


class RemoteChannel:
    """What both kinds share: ask the process, read its answer.

    Args:
        name: as the settings call the channel.
        module: what the process runs.
        secrets: what it is told beside the event, by name; read anew for each delivery.
        told: what else it is told.
        timeout_seconds: how long the receiver may take.
        env: the process's environment; nptwatch's own variables are left out.
    """

    def __init__(
        self,
        name: str,
        module: str,
        *,
        secrets: Mapping[str, Secret],
        told: Mapping[str, object],
        timeout_seconds: float,
        env: Mapping[str, str],
    ) -> None:
        self.name = name
        self.longest_seconds = timeout_seconds + GRACE_SECONDS
        self._secrets = dict(secrets)
        self._told = {**told, "timeout_seconds": timeout_seconds}
        self._program = Program(
            "the sending process",
            [
                sys.executable,
                "-P",
                "-m",
                module,
            ],  # -P: nothing is imported from the folder it is in
            hear="stdout",
            env={key: value for key, value in env.items() if not key.startswith("NPTWATCH_")},
            timeout_seconds=self.longest_seconds,
        )

    def send(self, delivery: Delivery) -> None:
        """Have the process deliver.

        Raises:
            DeliveryError: a secret is missing, or the receiver did not take it.
        """
        try:
            self._ask({"event_id": delivery.event_id, **delivery.payload})
        except ConfigError as error:
            raise DeliveryError(str(error)) from error

    def check(self) -> None:
        """Have the process look at its secrets, without sending anything.

        Raises:
            ConfigError: one is missing, or no such receiver can exist.
        """
        try:
            self._ask(None)
        except DeliveryError as error:
            raise ConfigError(f"channels.{self.name}: {error}") from error

    def close(self) -> None:
        """Kill the process that runs now and start no other."""
        self._program.close()

    def _ask(self, event: Mapping[str, object] | None) -> None:
        secrets = {name: secret.read() for name, secret in self._secrets.items()}
        ended = self._program.run(
            json.dumps({"secrets": secrets, **self._told, "event": event}).encode()
        )
        answer = _parsed(ended.said)
        if answer is None:
            raise DeliveryError(f"the sending process ended with exit code {ended.code}")
        if answer["error"] is not None:
            raise DeliveryError(answer["error"], retry_after_seconds=answer["retry_after_seconds"])


class AppriseChannel(RemoteChannel):
    """A service that Apprise knows, by its URL."""

    def __init__(
        self, name: str, *, url: Secret, timeout_seconds: float, env: Mapping[str, str]
    ) -> None:
        super().__init__(
            name,
            "nptwatch.alerts.apprising",
            secrets={"url": url},
            told={},
            timeout_seconds=timeout_seconds,
            env=env,
        )


class WebhookChannel(RemoteChannel):
    """The event as JSON by POST, signed as Standard Webhooks has it."""

    def __init__(
        self,
        name: str,
        *,
        url: Secret,
        key: Secret,
        ca_file: Path | None,
        timeout_seconds: float,
        env: Mapping[str, str],
    ) -> None:
        super().__init__(
            name,
            "nptwatch.alerts.posting",
            secrets={"url": url, "key": key},
            told={"ca_file": None if ca_file is None else str(ca_file)},
            timeout_seconds=timeout_seconds,
            env=env,
        )


def _parsed(said: str) -> dict[str, Any] | None:  # Any: as JSON has it
    try:
        answer = json.loads(said)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and "error" in answer else None
