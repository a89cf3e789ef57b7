"""Texts in the user's own words: Jinja2 templates, sandboxed, with the built-in text behind them.

A folder holds KIND.txt for a kind of alert and default.txt for all others. The first line that a
template gives is the title, the rest the body.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import structlog

from nptwatch.alerts.samples import FIELDS, KINDS, sample
from nptwatch.alerts.texts import Text, built_in
from nptwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SUFFIX = ".txt"
DEFAULT = "default"
LONGEST_CHARACTERS = 20_000
"""A text that goes on is refused; no service takes so much."""

log = structlog.get_logger()


class Texts:
    """Words events.

    Args:
        folder: where templates are; None: there are none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def of(self, event: Mapping[str, Any]) -> Text:  # Any: free JSON
        """Word an event; by the built-in text where there is no template or it does not work."""
        plain = built_in(event)
        file = self._file_of(str(event.get("kind")))
        if file is None:
            return plain
        try:
            return _rendered(file, event, plain)
        except ConfigError as error:
            log.warning("template_failed", error=str(error))
            return plain

    def check(self) -> None:
        """Try every template on every kind of event that it would get.

        Raises:
            ConfigError: the folder cannot be read, a file is for no kind, or a template does not
                work; tells all.
        """
        if self._folder is None:
            return
        try:
            files = sorted(file for file in self._folder.iterdir() if file.suffix == SUFFIX)
        except OSError as exc:
            raise ConfigError(f"alerts.templates: {self._folder}: {exc.strerror}") from exc
        problems = [problem for file in files for problem in _problems(file, files)]
        if problems:
            raise ConfigError("\n  ".join(["alerts.templates:", *problems]))

    def _file_of(self, kind: str) -> Path | None:
        if self._folder is None:
            return None
        names = (kind, DEFAULT) if kind in KINDS else (DEFAULT,)
        files = (self._folder / f"{name}{SUFFIX}" for name in names)
        return next((file for file in files if file.is_file()), None)


def _problems(file: Path, files: list[Path]) -> list[str]:
    """Say what is wrong with a template; one problem is enough."""
    if file.stem == DEFAULT:
        own = {other.stem for other in files}
        kinds = [kind for kind in KINDS if kind not in own]
    elif file.stem in KINDS:
        kinds = [file.stem]
    else:
        near = get_close_matches(file.stem, [*KINDS, DEFAULT], n=1)
        hint = f", did you mean {near[0]}{SUFFIX}?" if near else f": {', '.join(KINDS)}"
        return [f"{file}: no kind of alert has this name{hint}"]
    for kind in kinds:
        event = sample(kind)
        try:
            _rendered(file, event, built_in(event))
        except ConfigError as error:
            return [f"{error} (tried on {kind})"]
    return []


def _rendered(file: Path, event: Mapping[str, Any], plain: Text) -> Text:  # Any: free JSON
    """Fill a template in.

    Raises:
        ConfigError: it cannot be read, does not work, gives nothing, or too much.
    """
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,  # it is plain text
    )
    values = dict.fromkeys(FIELDS) | dict(event) | {"title": plain.title, "text": plain.body}
    try:
        said = _capped(environment.from_string(file.read_text(encoding="utf-8")).generate(values))
    except OSError as exc:
        raise ConfigError(f"{file} cannot be read: {exc.strerror}") from exc
    except Exception as exc:  # whatever an expression of the user's raises
        line = getattr(exc, "lineno", None)
        where = f"{file}, line {line}" if line else str(file)
        raise ConfigError(f"{where}: {type(exc).__name__}: {exc}") from exc
    title, _, body = said.strip().partition("\n")
    if not title.strip():
        raise ConfigError(f"{file}: gives no text")
    return Text(title=title.strip(), body=body.strip() or title.strip())


def _capped(pieces: Iterable[str]) -> str:
    said = ""
    for piece in pieces:
        said += piece
        if len(said) > LONGEST_CHARACTERS:
            raise ValueError(f"more than {LONGEST_CHARACTERS} characters")
    return said
