"""What is documented is what there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from nptwatch.settings import load, load_settings
from nptwatch.sources import FIELDS

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
    assert unset == {"state_dir", "database.url", "base.model", "diagnostic.probes"}
    uncommented = re.sub(r"^# (?=\w+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    table = tomllib.loads(uncommented)
    for key in unset:
        section, _, name = key.rpartition(".")
        assert name in (table[section] if section else table)


def test_example_explains_every_setting() -> None:
    """A comment stands above each setting."""
    lines = EXAMPLE.read_text().splitlines()
    settings = [i for i, line in enumerate(lines) if re.match(r"(# )?\w+ = ", line)]
    assert len(settings) == len(FIELDS)
    for i in settings:
        assert re.match(r"# \S.*[a-z]", lines[i - 1]), f"line {i + 1}: {lines[i]}"
