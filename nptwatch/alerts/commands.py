"""The command hook: a program of the user's that gets each alert."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from nptwatch.alerts.programs import Program
from nptwatch.errors import ConfigError, DeliveryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nptwatch.store.records import Delivery


class CommandChannel:
    """A program that gets the event as one JSON object on standard input.

    Args:
        name: as the settings call the channel.
        argv: program and arguments.
        timeout_seconds: it is killed then, with its children.
        env: its environment.
    """

    def __init__(
        self, name: str, argv: Sequence[str], *, timeout_seconds: float, env: Mapping[str, str]
    ) -> None:
        self.name = name
        self.longest_seconds = timeout_seconds
        self._argv = tuple(argv)
        self._env = env
        self._program = Program(
            argv[0], argv, hear="stderr", env=env, timeout_seconds=timeout_seconds
        )

    def send(self, delivery: Delivery) -> None:
        """Run the program; exit code 0 means delivered.

        Raises:
            DeliveryError: it could not be started, failed, or ran too long and was killed.
        """
        event = {"event_id": delivery.event_id, **delivery.payload}
        ended = self._program.run(json.dumps(event, sort_keys=True).encode() + b"\n")
        if ended.code != 0:
            tail = f": {ended.said}" if ended.said else ""
            raise DeliveryError(f"{self._argv[0]} ended with exit code {ended.code}{tail}")

    def check(self) -> None:
        """Look whether the program is there.

        Raises:
            ConfigError: it is not.
        """
        if shutil.which(self._argv[0], path=self._env.get("PATH")) is None:
            raise ConfigError(f"channels.{self.name}.command: no program {self._argv[0]}")

    def close(self) -> None:
        """Kill the program that runs now and start no other."""
        self._program.close()
