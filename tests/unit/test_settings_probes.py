"""Probe texts come from a file or from the settings, and are part of what a result is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nptwatch.diagnostics.identity import settings_hash
from nptwatch.errors import ConfigError
from nptwatch.settings import Settings, load_settings

if TYPE_CHECKING:
    from pathlib import Path


def texts_of(folder: Path, name: str, content: str | bytes) -> tuple[str, ...]:
    """Load settings that name a probe file beside them."""
    raw = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(raw)
    config = folder / "nptwatch.toml"
    config.write_text(f'[diagnostic]\nprobes = "{name}"\n')
    return load_settings(config, env={"HOME": str(folder)}).diagnostic.probe_texts


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("p.txt", "One.\n\n  Two words. \n", ("One.", "Two words.")),
        ("p.txt", '{"text": "as it is"}\n', ('{"text": "as it is"}',)),
        ("p.jsonl", '{"text": "One."}\n"Two"\n\n', ("One.", "Two")),
        ("p.jsonl", '{"text": "a\\nb", "source": 1}', ("a\nb",)),
        ("p.txt", "\ufeffOne.\n", ("One.",)),
        ("p.jsonl", '{"text": "a\u2028b"}', ("a\u2028b",)),
    ],
)
def test_texts_are_read_when_the_settings_are(
    tmp_path: Path, name: str, content: str, wanted: tuple[str, ...]
) -> None:
    """One a line, or JSON lines by the file's ending; relative to the settings file."""
    assert texts_of(tmp_path, name, content) == wanted


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("p.txt", "\n \n", "no text in it"),
        ("p.txt", b"\xff\xfe", "cannot be read"),
        ("p.jsonl", '{"text": "a"}\n{"txt": "b"}', "line 2: expected a text"),
        ("p.jsonl", "plain", "line 1: no JSON"),
        ("p.jsonl", "[" * 200_000, "line 1: no JSON"),
        ("p.jsonl", '{"text": "\\ud800"}', "line 1: half a character"),
        ("p.txt", "x" * (2**20 + 1), "more than a MiB"),
    ],
)
def test_a_bad_file_is_refused_by_line(
    tmp_path: Path, name: str, content: str | bytes, told: str
) -> None:
    """Before anything is measured, with the file and what is wrong in it."""
    with pytest.raises(ConfigError, match=told):
        texts_of(tmp_path, name, content)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """As every named file is."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(
            None,
            env={"HOME": str(tmp_path)},
            overrides={"diagnostic.probes": tmp_path / "none.txt"},
        )


def test_other_texts_are_another_measurement() -> None:
    """The hash follows the texts, not the file's name; the seed counts where texts are drawn."""

    def hashed(profile: str, **diagnostic: object) -> str:
        return settings_hash(Settings.model_validate({"diagnostic": diagnostic}), profile)

    assert hashed("quick", probe_texts=["a"]) != hashed("quick")
    assert hashed("quick", probe_texts=["a"]) != hashed("quick", probe_texts=["b"])
    assert hashed("quick", probe_texts=["a"], probes="x") == hashed("quick", probe_texts=["a"])
    assert hashed("full", seed=1) != hashed("full")
    assert hashed("quick", seed=1) == hashed("quick")
    assert hashed("full") != hashed("quick")
