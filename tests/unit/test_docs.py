"""What is documented is what there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from nptwatch.settings import load, load_settings
from nptwatch.sources import CHANNELS, FIELDS, TYPES

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"


def test_example_settings_are_the_defaults(tmp_path: Path) -> None:
    """config.example.toml loads, and changes nothing for who copies it whole."""
    env = {"HOME": str(tmp_path)}
    nothing = tmp_path / "empty.toml"
    nothing.touch()
    assert load_settings(EXAMPLE, env=env) == load_settings(nothing, env=env)


def test_example_names_every_setting() -> None:
    """Each key stands in its section; those without a default are commented out."""
    keys = set(FIELDS)
    given = set(load(EXAMPLE, env={}).given)
    unset = keys - given
    assert unset == {
        "state_dir",
        "database.url",
        "base.model",
        "diagnostic.probes",
        "alerts.channels",
        "alerts.time_zone",
        "alerts.templates",
        "worker.gpu_memory_gib",
        "exports.jsonl.folder",
        "exports.tensorboard.folder",
        "exports.wandb.folder",
        "exports.wandb.entity",
        "exports.wandb.key_env",
        "exports.wandb.key_file",
        "exports.wandb.base_url",
        "gpu.max_gpu_mib",
        "gpu.lock_dir",
    }
    for key in unset:
        *sections, name = key.split(".")
        table = uncommented()
        for section in sections:
            table = table[section]
        assert name in table


def test_example_explains_every_setting() -> None:
    """A comment stands above each setting."""
    lines = EXAMPLE.read_text().splitlines()
    settings = [i for i, line in enumerate(lines) if re.match(r"(# )?\w+ = ", line)]
    channels = [key for keys in TYPES.values() for key in keys]
    assert len(settings) == len(FIELDS) - 1 + len(channels)
    for i in settings:
        if not re.match(r"# \[channels\.\w+\]", lines[i - 1]):
            assert re.match(r"# \S.*[a-z]", lines[i - 1]), f"line {i + 1}: {lines[i]}"


def test_example_names_every_setting_of_every_channel() -> None:
    """One channel of each type, with all that it can have, and they load."""
    channels = uncommented()[CHANNELS]
    assert {f'"{channel["type"]}"': sorted(channel) for channel in channels.values()} == {
        kind: sorted(keys) for kind, keys in TYPES.items()
    }
    for channel in channels.values():
        for key in [key for key in channel if key.endswith("_file") and key != "ca_file"]:
            del channel[key]
    loaded = load_settings(None, env={}, overrides={CHANNELS: channels}).channels
    assert {type(channel.timeout_seconds) for channel in loaded.values()} == {float}


def uncommented() -> dict[str, Any]:  # Any: a TOML table
    """Give the example with everything that is commented out."""
    text = re.sub(r"^# (?=\w+ = |\[channels\.)", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    return tomllib.loads(text)
