"""One cascade into one model: defaults < TOML file < environment < command line.

Knows nothing of single settings: it is given a pydantic model whose fields are values or sections
(models of values), and the prefix of its environment variables. All problems are told at once,
each with its key, where it was given, the value and what is expected; secrets are never shown.
(pydantic-settings does the same cascade, but reads the process's own environment, ignores missing
files and unknown variables, and its import costs every command 0.1 s: it pulls asyncio in.)
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError

from nptwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails

M = TypeVar("M", bound=BaseModel)

COMMAND_LINE = "the command line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A value somebody gave for a key.

    Attributes:
        value: as given.
        origin: the file, environment variable or command line that gave it.
        file: the settings file it stands in, if it does.
    """

    value: Any  # Any: whatever TOML, the environment or a flag holds
    origin: str
    file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong with one key."""

    key: str
    origin: str
    text: str

    def __str__(self) -> str:
        return f"{self.key} (from {self.origin}): {self.text}"


class Cascade(Generic[M]):
    """Collects values for one model, the later over the earlier, then builds it.

    Args:
        model: the settings; a frozen model that forbids extra keys.
        prefix: of the environment variables, such as "NPTWATCH_".
    """

    def __init__(self, model: type[M], *, prefix: str) -> None:
        self._model = model
        self._prefix = prefix
        self._fields = dict(_fields(model))
        self._variables = {f"{prefix}{key.upper().replace('.', '__')}": key for key in self._fields}
        self._problems: list[Problem] = []
        self.given: dict[str, Given] = {}

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys, as `section.name`."""
        return tuple(self._fields)

    def add_file(self, path: Path) -> None:
        """Take the values of a TOML file.

        Raises:
            ConfigError: it cannot be read, or is not TOML.
        """
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as exc:
            raise ConfigError(f"cannot read the settings file {path}: {exc.strerror}") from exc
        except UnicodeDecodeError as exc:
            raise ConfigError(f"{path}: not UTF-8 text ({exc.reason})") from exc
        except tomllib.TOMLDecodeError as exc:
            raise ConfigError(f"{path}: not valid TOML: {exc}") from exc
        self._add(table, origin=str(path), file=path)

    def add_environment(self, env: Mapping[str, str], *, foreign: tuple[str, ...]) -> None:
        """Take the variables with our prefix; an empty one counts as unset.

        Args:
            env: the environment.
            foreign: names, or beginnings that end in "_", that have our prefix and are no settings.
        """
        for name in sorted(env):
            ours = name.startswith(self._prefix) and name not in foreign
            if not ours or name.startswith(tuple(f for f in foreign if f.endswith("_"))):
                continue
            key = self._variables.get(name)
            if key is None:
                hint = _hint(name, self._variables)
                self._problems.append(
                    Problem(key=name, origin="the environment", text=f"no such setting{hint}")
                )
            elif env[name]:
                value = self._from_text(key, env[name])
                self.given[key] = Given(value=value, origin=name)

    def add_overrides(self, overrides: Mapping[str, Any]) -> None:
        """Take flags: `{"worker.count": 2}` or `{"worker": {"count": 2}}`; None is not given."""
        for key, value in overrides.items():
            section, _, name = key.partition(".")
            self._add({section: {name: value}} if name else {key: value}, origin=COMMAND_LINE)

    def build(self) -> M:
        """Make the model.

        Raises:
            ConfigError: lists every problem of every source.
        """
        tree: dict[str, Any] = {}
        for key, given in self.given.items():
            section, _, name = key.rpartition(".")
            (tree.setdefault(section, {}) if section else tree)[name] = given.value
        try:
            built = self._model.model_validate(tree)
        except ValidationError as exc:
            self._problems += [self._problem(error) for error in exc.errors(include_url=False)]
        if self._problems:
            lines = "\n".join(f"  {problem}" for problem in self._problems)
            count = len(self._problems)
            noun = "a problem" if count == 1 else f"{count} problems"
            raise ConfigError(f"the settings have {noun}:\n{lines}")
        return built

    def _add(self, table: Mapping[str, Any], *, origin: str, file: Path | None = None) -> None:
        for key, value in _flat(table, sections={k.split(".")[0] for k in self.keys if "." in k}):
            if origin == COMMAND_LINE and value is None:
                continue
            if key in self._fields:
                self.given[key] = Given(value=value, origin=origin, file=file)
                continue
            is_section = any(known.startswith(f"{key}.") for known in self._fields)
            text = f"is a section: write [{key}]" if is_section else "no such setting"
            hint = "" if is_section else _hint(key, self._fields)
            self._problems.append(Problem(key=key, origin=origin, text=f"{text}{hint}"))

    def _from_text(self, key: str, text: str) -> object:
        """Read a list out of a variable: a JSON list, else one value; the rest stays text."""
        if "tuple" not in str(self._fields[key]):
            return text
        if not text.lstrip().startswith("["):
            return [text]
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text  # refused later, with the value

    def _problem(self, error: ErrorDetails) -> Problem:
        loc = [str(part) for part in error["loc"]]
        key = next((k for k in (".".join(loc[:2]), loc[0]) if k in self._fields), ".".join(loc))
        given = self.given.get(key)
        expected = error["msg"].replace("Input should be", "should be").replace("tuple", "list")
        shown = "" if given is None or self.is_secret(key) else f"{given.value!r} "
        origin = given.origin if given else "the defaults"
        return Problem(key=key, origin=origin, text=f"{shown}{expected[0].lower()}{expected[1:]}")

    def is_secret(self, key: str) -> bool:
        """Tell whether a key's value must not be shown."""
        return SecretStr.__name__ in str(self._fields[key])


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """Yield each key with its annotation; a section's keys as `section.name`."""
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from ((f"{name}.{inner}", annotation) for inner, annotation in _fields(kind))
        else:
            yield name, kind


def _flat(table: Mapping[str, Any], *, sections: set[str]) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict) and name in sections:
            yield from ((f"{name}.{inner}", held) for inner, held in value.items())
        elif isinstance(value, dict) and value:
            yield from ((f"{name}.{inner}", held) for inner, held in _flat(value, sections=set()))
        else:
            yield name, value


def _hint(wrong: str, known: Mapping[str, Any]) -> str:
    """Name the closest key: by its whole name, else by its last part (a wrong section)."""
    near = get_close_matches(wrong, known, n=1, cutoff=0.75)
    if not near:
        by_name = {key.rpartition(".")[2]: key for key in known}
        near = [by_name[n] for n in get_close_matches(wrong.rpartition(".")[2], by_name, n=1)]
    return f", did you mean {near[0]}?" if near else ""
