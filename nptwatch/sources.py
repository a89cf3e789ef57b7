"""Where settings come from: pydantic-settings reads, merges and checks; here is what it leaves out.

It ignores unknown variables, reads the process's own environment, lets one source hide another's
mistake, and does not say where a value was given. So each source is also asked by itself: what it
gives is noted by key, and what is no setting is a problem. All are told at once, secrets never.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from nptwatch.channel_settings import ChannelSettings
from nptwatch.errors import ConfigError
from nptwatch.settings import Settings, default_state_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

PREFIX = "NPTWATCH_"
COMMAND_LINE = "the command line"
CHANNELS = "channels"
"""The one key whose value is tables, with names of the user's own."""
NOT_SETTINGS = re.compile(r"NPTWATCH_(CONFIG|DEBUG|TEST_.*|SECRET_.*)")
"""Variables with our prefix that are no settings."""


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


class Variables(EnvSettingsSource):
    """The variables that are passed in, whatever this process's environment holds."""

    def __init__(self, settings_cls: type[BaseSettings], env: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        # an empty one counts as unset
        self.env_vars = {name.lower(): env[name] for name in VARIABLES if env.get(name)}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: object) -> object:
        """Read a list: JSON, else one plain value; broken JSON is refused later, with the value."""
        if field_name != CHANNELS and not str(value).lstrip().startswith("["):
            return [value]
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def read(
    file: Path | None,
    *,
    env: Mapping[str, str],
    overrides: Mapping[str, Any],  # Any: a flag's value
) -> tuple[Settings, dict[str, Given]]:
    """Build the settings: defaults < file < variables < flags; also say what was given, by key.

    Raises:
        ConfigError: the file cannot be read, or any key or value is wrong; lists all.
    """

    class Loader(Settings, BaseSettings):
        # a class of its own: who builds Settings itself (a worker, a test) reads no environment
        model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__")

        @classmethod
        def settings_customise_sources(
            cls, *_: object, **__: object
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return flags, variables, table, defaults

    flags = InitSettingsSource(Loader, _nested(overrides))
    variables = Variables(Loader, env)
    table = _table(Loader, file)
    defaults = InitSettingsSource(Loader, {"state_dir": default_state_dir(env)})
    given: dict[str, Given] = {}
    problems = [
        *_noted(table(), given, lambda _: str(file), file),
        *_unknown_variables(env),
        *_noted(variables(), given, _variable),
        *_noted(flags(), given, lambda _: COMMAND_LINE),
    ]
    try:
        settings = Settings.model_validate(dict(Loader()))
    except ValidationError as exc:
        problems += filter(None, (_wrong(error, given) for error in exc.errors(include_url=False)))
    if problems:
        noun = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError("\n  ".join([f"the settings have {noun}:", *problems]))
    return settings, given


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """Yield each key with its annotation; a section's keys as `section.name`."""
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from ((f"{name}.{inner}", annotation) for inner, annotation in _fields(kind))
        else:
            yield name, kind


FIELDS = dict(_fields(Settings))
"""Every key, as `section.name`, with its type."""
TYPES = {
    f'"{get_args(model.model_fields["type"].annotation)[0]}"': list(model.model_fields)
    for model in get_args(get_args(ChannelSettings)[0])
}
"""What type a channel can have, and the settings of each."""
SECTIONS = {
    ".".join(key.split(".")[:depth]) for key in FIELDS for depth in range(1, key.count(".") + 1)
}
"""Every table, as `section` or `section.name`."""


def _variable(key: str) -> str:
    return f"{PREFIX}{key.upper().replace('.', '__')}"


VARIABLES = tuple(map(_variable, FIELDS))


def _table(loader: type[BaseSettings], file: Path | None) -> TomlConfigSettingsSource:
    try:
        return TomlConfigSettingsSource(loader, file)
    except OSError as exc:
        raise ConfigError(f"cannot read the settings file {file}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{file}: not UTF-8 text ({exc.reason})") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{file}: not valid TOML: {exc}") from exc


def _nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Give flags, dotted or nested, the file's shape; None is not given."""
    tree: dict[str, Any] = {}
    for key, value in _flat(overrides):
        *sections, name = key.split(".")
        if value is not None:
            table = tree
            for section in sections:
                table = table.setdefault(section, {})
            table[name] = value
    return tree


def _flat(table: Mapping[str, Any], section: str = "") -> Iterator[tuple[str, Any]]:
    """Yield keys and values; a section that is not known is opened too, for the hint."""
    for name, value in table.items():
        key = f"{section}.{name}" if section else name
        is_value = key not in SECTIONS and (section in SECTIONS or key in FIELDS)
        if isinstance(value, dict) and not is_value and (value or key in SECTIONS):
            yield from _flat(value, key)
        else:
            yield key, value


def _noted(
    tree: Mapping[str, Any],
    given: dict[str, Given],
    origin: Callable[[str], str],
    file: Path | None = None,
) -> Iterator[str]:
    """Note what a source gives for each key; yield what is wrong about its keys."""
    for key, value in _flat(tree):
        if key in FIELDS:
            given[key] = Given(value=value, origin=origin(key), file=file)
        elif key in SECTIONS:
            yield f"{key} (from {origin(key)}): is a section: write [{key}]"
        else:
            yield f"{key} (from {origin(key)}): no such setting{_hint(key, FIELDS)}"


def _unknown_variables(env: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(n for n in env if n.startswith(PREFIX)):
        if name not in VARIABLES and not NOT_SETTINGS.fullmatch(name):
            yield f"{name} (from the environment): no such setting{_hint(name, VARIABLES)}"


def _wrong(error: ErrorDetails, given: Mapping[str, Given]) -> str | None:
    """Say what is wrong with a value; None where it has no key, which was told already."""
    loc = [str(part) for part in error["loc"]]
    if loc[0] == CHANNELS:
        return _wrong_channel(error, loc, given)
    key = next((k for k in (".".join(loc[:depth]) for depth in (3, 2, 1)) if k in FIELDS), None)
    if key is None:
        return None
    by = given.get(key)
    secret = SecretStr.__name__ in str(FIELDS[key])
    shown = "" if by is None or secret else f"{by.value!r} "
    expected = error["msg"].replace("Input should be", "should be").replace("tuple", "list")
    expected = expected.removeprefix("Value error, ")
    inner = [part for part in loc[len(key.split(".")) :] if not part.isdigit()]
    if inner:  # of a table in a list
        expected = f"{'.'.join(inner)}: {expected}"
    origin = by.origin if by else "the defaults"
    return f"{key} (from {origin}): {shown}{expected[0].lower()}{expected[1:]}"


def _wrong_channel(error: ErrorDetails, loc: list[str], given: Mapping[str, Given]) -> str:
    """Say what is wrong with a channel, without its values: one may be a secret."""
    _, name, tag, *fields = [*loc, "", "", ""][: max(len(loc), 3)]
    place = ".".join(filter(None, [CHANNELS, name, *fields]))
    expected = error["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    if tag == "[key]":
        expected = f"{name!r} is no name: {expected}"
        place = CHANNELS
    elif error["type"] in {"union_tag_not_found", "union_tag_invalid"}:
        expected = f"needs type = {' or '.join(TYPES)}"
    elif error["type"] == "extra_forbidden":
        known = TYPES[f'"{tag}"']
        near = [f"{fields[0]}_env"] if f"{fields[0]}_env" in known else known
        close = get_close_matches(fields[0], near, n=1, cutoff=0.4)
        expected = "no such setting" + (f", did you mean {close[0]}?" if close else "")
    by = given.get(CHANNELS)
    return f"{place} (from {by.origin if by else 'the defaults'}): {expected}"


def _hint(wrong: str, known: Collection[str]) -> str:
    """Name the closest key: by its last part (a wrong section), by its whole name, or both."""
    by_name = {key.rpartition(".")[2]: key for key in known}
    if (elsewhere := by_name.get(wrong.rpartition(".")[2])) is not None:
        return f", did you mean {elsewhere}?"
    near = get_close_matches(wrong, known, n=1, cutoff=0.75)
    if not near:
        near = [by_name[n] for n in get_close_matches(wrong.rpartition(".")[2], by_name, n=1)]
    return f", did you mean {near[0]}?" if near else ""
