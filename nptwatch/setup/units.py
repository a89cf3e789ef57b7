"""The units of deploy/systemd, made to fit one installation."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from nptwatch.errors import ConfigError
from nptwatch.setup.owned import signed
from nptwatch.setup.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nptwatch.setup.scope import Scope

DAEMON: Final = "nptwatch.service"
WORKER: Final = "nptwatch-worker@.service"
NAMES: Final = (DAEMON, WORKER)

_PROGRAM = re.compile(r"^ExecStart=\S+", flags=re.MULTILINE)
_CONFIG = re.compile(r"^Environment=NPTWATCH_CONFIG=.*", flags=re.MULTILINE)
_ENVIRONMENT = re.compile(r"^EnvironmentFile=.*", flags=re.MULTILINE)
_WRITABLE = re.compile(r"^ReadWritePaths=.*", flags=re.MULTILINE)
_PLAIN = re.compile(r"[\w./:@+=,-]+", flags=re.ASCII)


def unit(
    name: str, scope: Scope, *, python: Path, config: Path, writable: Sequence[Path] = ()
) -> str:
    """Give the text of a unit, signed.

    Args:
        python: the interpreter that has nptwatch.
        config: the settings file.
        writable: folders of the settings outside those that the unit may write anyway.

    Raises:
        ConfigError: systemd cannot run a program of this name.
    """
    if set(str(python)) & set("\"'\\"):
        raise ConfigError(f"{python}: systemd runs no program with a quote in its name")
    template = shipped(f"{scope.kit}/{name}")
    text = template[template.index("[Unit]") :]  # what stands above says how to copy it
    text = _put(_PROGRAM, f"ExecStart={_word(str(python))} -m nptwatch", text)
    text = _put(_CONFIG, f"Environment={_word(f'NPTWATCH_CONFIG={config}')}", text)
    text = _put(_ENVIRONMENT, f"EnvironmentFile=-{_specifiers(str(scope.environment))}", text)
    if writable and not scope.is_user:
        words = " ".join(_word(f"-{folder}") for folder in writable)
        text = _WRITABLE.sub(lambda line: f"{line[0]} {words}", text, count=1)
    edit = " ".join((*scope.systemctl, "edit", name))
    return signed(
        f"# It writes this file anew. Changes of your own stay where `{edit}` has them.\n{text}"
    )


def _put(pattern: re.Pattern[str], line: str, text: str) -> str:
    text, count = pattern.subn(lambda _: line, text)
    assert count == 1, pattern.pattern  # noqa: S101 - of our own templates
    return text


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")


def _word(text: str) -> str:
    """Quote a word where systemd would split or read it otherwise."""
    if _PLAIN.fullmatch(text):
        return text
    text = _specifiers(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
