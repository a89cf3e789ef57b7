"""The folder that a demo fills: what lies where in it, and whose it is."""

from __future__ import annotations

import fcntl
import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nptwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import IO

RUN = "tiny-llama"
MARKER = ".nptwatch-demo"
MADE = (
    "base",
    "experiments",
    "state",
    "nptwatch.toml",
    "alerts.jsonl",
    "daemon.log",
    "trainer.log",
)
"""All that a demo makes, and so all that the next one removes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoFolder:
    """Paths below the demo's folder, which is absolute."""

    path: Path

    @property
    def base(self) -> Path:
        """The base model, as save_pretrained leaves it."""
        return self.path / "base"

    @property
    def experiments(self) -> Path:
        """What the daemon watches."""
        return self.path / "experiments"

    @property
    def run(self) -> Path:
        """The training run."""
        return self.experiments / RUN

    @property
    def config(self) -> Path:
        """The daemon's settings."""
        return self.path / "nptwatch.toml"

    @property
    def database(self) -> Path:
        """The daemon's database."""
        return self.path / "state" / "nptwatch.db"

    @property
    def alerts(self) -> Path:
        """What the alert command got, one JSON object a line."""
        return self.path / "alerts.jsonl"

    @property
    def daemon_log(self) -> Path:
        """What the daemon printed."""
        return self.path / "daemon.log"

    @property
    def trainer_log(self) -> Path:
        """What building the base and training printed."""
        return self.path / "trainer.log"

    @contextmanager
    def taken(self) -> Iterator[IO[str]]:
        """Own the folder, emptied of a former demo, for the length of a `with`.

        Yields:
            The locked marker file. Processes that inherit it hold the folder as long as they live.

        Raises:
            ConfigError: it holds something else, cannot be written, or another demo runs in it.
        """
        try:
            self._refuse_foreign()
            self.path.mkdir(parents=True, exist_ok=True)
            with (self.path / MARKER).open("a", encoding="utf-8") as marker:
                self._lock(marker)
                self._clear()
                yield marker
        except OSError as exc:
            raise ConfigError(f"{self.path} cannot be used for the demo: {exc}") from exc

    def _refuse_foreign(self) -> None:
        if not self.path.exists() or (self.path / MARKER).is_file():
            return
        if not self.path.is_dir() or any(self.path.iterdir()):
            raise ConfigError(
                f"{self.path} is there and not a former demo's: nothing is overwritten;"
                " name a new folder with --output"
            )

    def _lock(self, marker: IO[str]) -> None:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise ConfigError(
                f"a demo, or the daemon of one, still runs in {self.path}:"
                " wait for it or name another folder with --output"
            ) from exc

    def _clear(self) -> None:
        for name in MADE:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def write_config(self) -> None:
        """Write the daemon's settings; make the directory that it watches."""
        self.experiments.mkdir()
        self.config.write_text(self._toml(), encoding="utf-8")

    def _toml(self) -> str:
        return f"""\
# What `nptwatch demo` gave its daemon; use it as --config to look at what it left.
state_dir = {_text(str(self.path / "state"))}

[watch]
roots = {_texts([str(self.experiments)])}
settle_seconds = 1
rescan_seconds = 5

[base]
model = {_text(str(self.base))}
local_files_only = true

[worker]
device = "cpu"
threads = 1

[channels.file]
type = "command"
command = {_texts(["tee", "-a", str(self.alerts)])}
"""


def _text(value: str) -> str:
    # JSON's escapes are TOML's, but DEL, which TOML wants escaped, and pairs for what is beyond
    # the basic plane, which TOML does not know
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _texts(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"
