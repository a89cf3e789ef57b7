"""The text of a first settings file: config.example.toml, commented out but for what was chosen."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_HEADER = re.compile(r"^\[([\w.]+)\]$")
_SETTING = re.compile(r"^(?:# )?(\w+) = ")
_BARE = re.compile(r"[\w-]+", flags=re.ASCII)
_CHANNELS: Final = "channels"
_BEGIN: Final = """\
# nptwatch settings, written by `nptwatch init`: all there are, each with what it does. What is
# commented out has its default; where there is none, it shows an example.
"""
_HOW_TO_COPY: Final = "#\n# The command line is over"
"""In the example, what stands above this says how to copy it."""


def config_text(
    example: str,
    chosen: Mapping[str, object],
    channels: Mapping[str, Mapping[str, object]],
) -> str:
    """Give the file's text.

    Args:
        example: the text of config.example.toml.
        chosen: values by key, as `watch.roots`.
        channels: tables by name, to be added to [channels].
    """
    lines = (_BEGIN + example[example.index(_HOW_TO_COPY) :]).splitlines()
    left = dict(chosen)
    written = [*_written(lines, left, channels)]
    assert not left, left  # noqa: S101 - every setting stands in the example: a test says so
    return "\n".join(written) + "\n"


def _written(
    lines: Sequence[str], chosen: dict[str, object], channels: Mapping[str, Mapping[str, object]]
) -> Iterator[str]:
    """Yield the lines; what is chosen is taken out of `chosen`."""
    section = ""
    for line in lines:
        if header := _HEADER.match(line):
            if section == _CHANNELS:
                yield from _tables(channels)
            section = header[1]
        setting = _SETTING.match(line)
        if setting is None or section == _CHANNELS:
            yield line
            continue
        key = f"{section}.{setting[1]}" if section else setting[1]
        if key in chosen:
            yield f"{setting[1]} = {toml(chosen.pop(key))}"
        else:
            yield f"# {line.removeprefix('# ')}"


def _tables(channels: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    for name, table in channels.items():
        yield f"[{_CHANNELS}.{name if _BARE.fullmatch(name) else toml(name)}]"
        yield from (f"{key} = {toml(value)}" for key, value in table.items())
        yield ""


def toml(value: object) -> str:
    """Write a text, number, truth or list: JSON's are TOML's too, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
