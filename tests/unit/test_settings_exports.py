"""The tables [exports.NAME]: tables in a table, from every source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nptwatch.errors import ConfigError
from nptwatch.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path


def written(folder: Path, text: str) -> Path:
    """Give a settings file."""
    file = folder / "nptwatch.toml"
    file.write_text(text)
    return file


def test_file_and_variables_are_put_together(tmp_path: Path) -> None:
    """A variable is over the file; paths are relative to the file's folder."""
    file = written(
        tmp_path,
        """
        [exports.jsonl]
        on = true
        folder = "lines"
        [exports.wandb]
        project = "p"
        key_file = "key"
        """,
    )
    env = {
        "HOME": str(tmp_path),
        "NPTWATCH_EXPORTS__WANDB__PROJECT": "q",
        "NPTWATCH_EXPORTS__TENSORBOARD__RUNS": '["a*"]',
    }
    exports = load_settings(file, env=env).exports
    assert (exports.jsonl.on, exports.jsonl.folder) == (True, tmp_path / "lines")
    assert (exports.wandb.project, exports.wandb.key_file) == ("q", tmp_path / "key")
    assert exports.tensorboard.runs == ("a*",)
    assert not exports.tensorboard.on


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[exports.jsonl]\non = 3", r"exports\.jsonl\.on \(from .*\): 3 should be a valid boolean"),
        ("[exports.jsonl]\nfile = 'a'", r"exports\.jsonl\.file .*no such setting"),
        ("[exports.csv]\non = true", r"exports\.csv.* no such setting"),
        ("exports = 3", r"exports .*is a section: write \[exports\]"),
        ("[exports]\nwandb = 3", r"exports\.wandb .*is a section: write \[exports\.wandb\]"),
        ("[exports.wandb]\ngroup = '{x}'", r"exports\.wandb\.group .*\{run\}, \{parent\} and"),
        ("[exports.wandb]\nevery_seconds = 0", r"exports\.wandb\.every_seconds"),
        ("[exports.wandb]\non = true", "exports.wandb needs key_env .* or key_file"),
        ("[exports.wandb]\nkey_env = 'A'\nkey_file = 'b'", "needs key_env .*one of the two"),
    ],
)
def test_what_is_wrong_is_named_in_full(tmp_path: Path, text: str, told: str) -> None:
    """By its whole key, and by what it should be."""
    with pytest.raises(ConfigError, match=told):
        load_settings(written(tmp_path, text), env={"HOME": str(tmp_path)})
