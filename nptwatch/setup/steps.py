"""What is done to a machine, one step at a time: told first, or done."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from nptwatch.errors import ConfigError
from nptwatch.setup.owned import ASIDE, set_aside, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A file is written.

    Attributes:
        keeps_old: what stands there is renamed first.
    """

    path: Path
    text: str
    mode: int = 0o644
    keeps_old: bool = False

    def told(self) -> str:
        """Say it, with the whole text."""
        return f"--- write {self.path}, mode {self.mode:o}{self._old()}\n{self.text}---"

    def do(self) -> str:
        """Do it; say what was done."""
        write_whole(self.path, self.text, mode=self.mode, keeps_old=self.keeps_old)
        return f"wrote {self.path}{self._old()}"

    def _old(self) -> str:
        return f" (the old one: {self.path.name}{ASIDE})" if self.keeps_old else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """A file is removed.

    Attributes:
        keeps_old: it is renamed instead.
    """

    path: Path
    keeps_old: bool = False

    def told(self) -> str:
        """Say it."""
        verb = "rename" if self.keeps_old else "remove"
        return f"--- {verb} {self.path}" + (f" to {self.path.name}{ASIDE}" * self.keeps_old)

    def do(self) -> str:
        """Do it; say what was done."""
        if self.keeps_old:
            return f"renamed {self.path} to {set_aside(self.path)}"
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot remove {self.path}: {error.strerror}") from error
        return f"removed {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A command is run.

    Attributes:
        if_it_fails: what to do then.
    """

    command: tuple[str, ...]
    if_it_fails: str

    def told(self) -> str:
        """Say it."""
        return f"--- run {shlex.join(self.command)}"

    def do(self) -> str:
        """Do it; say what was done."""
        if (fault := fault_of(self.command)) is not None:
            text = shlex.join(self.command)
            raise ConfigError(f"`{text}` failed: {fault}\n{self.if_it_fails}")
        return f"ran {shlex.join(self.command)}"


Step: TypeAlias = Write | Remove | Run


def fault_of(command: tuple[str, ...]) -> str | None:
    """Run a command, found by PATH; say why it failed, if it did."""
    try:
        done = subprocess.run(  # noqa: S603 - systemd's own programs
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    if done.returncode == 0:
        return None
    return done.stderr.strip() or f"exit code {done.returncode}"


def tell(steps: Iterable[Step], say: Callable[[str], None]) -> None:
    """Say what would be done."""
    for step in steps:
        say(step.told())


def carry_out(steps: Iterable[Step], say: Callable[[str], None]) -> None:
    """Do it, and say each thing once it is done.

    Raises:
        ConfigError: a step failed; those after it were not done.
    """
    for step in steps:
        say(step.do())
