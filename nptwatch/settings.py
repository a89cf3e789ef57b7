"""All settings, one frozen object: defaults < TOML file < NPTWATCH_SECTION__KEY < command line."""

from __future__ import annotations

import os
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from nptwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

Seconds = Annotated[float, Field(ge=0)]
PositiveSeconds = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """One table of the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class DatabaseSettings(Section):
    """Where jobs and history are kept."""

    url: SecretStr | None = None
    """SQLAlchemy URL; unset: SQLite in the state folder."""
    busy_timeout_seconds: PositiveSeconds = 15.0
    """How long a locked SQLite file is waited for."""


class WatchSettings(Section):
    """Where checkpoints are looked for and when one counts as whole."""

    roots: tuple[Path, ...] = ()
    """Experiment directories; runs may nest below them."""
    include: tuple[str, ...] = ("**",)
    """Globs on the path below its root; a file must match one."""
    exclude: tuple[str, ...] = ()
    """Globs on the path below its root; a file or folder that matches one is left out."""
    weights: tuple[str, ...] = ("*npt_weights.pt", "*npt_weights.safetensors")
    """Globs on the file name that make a file a checkpoint's weights."""
    markers: tuple[str, ...] = ("training_state.pt",)
    """Files written after the weights: where one lies beside them it must not be older."""
    settle_seconds: Seconds = 2.0
    """A file is whole when it looked the same on two polls this far apart."""
    rescan_seconds: PositiveSeconds = 30.0
    """Every so often the disk is read again, whatever the events said."""
    unloadable_after_seconds: PositiveSeconds = 600.0
    """A file that is not whole and has not changed for so long is called unloadable."""
    observer: Literal["inotify", "polling", "none"] = "inotify"
    """What wakes the watcher between scans."""


class BaseSection(Section):
    """The base model that NPTs modulate."""

    model: str | None = None
    """Folder or hub name; unset: as the checkpoint's own config.json or training state says."""
    local_files_only: bool = False
    """Never ask the hub."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """In what the base computes."""


class DiagnosticSettings(Section):
    """How checkpoints are measured."""

    residual: Literal["auto", "keep", "drop"] = "auto"
    """The NPT layers' residual rule (NPT.md); auto measures both and takes the lower MSE."""
    max_checkpoint_gib: Annotated[float, Field(gt=0)] = 64.0
    """Larger files are refused unread."""


class WorkerSettings(Section):
    """The process that owns the device."""

    count: Annotated[int, Field(ge=0, le=64)] = 1
    """Worker processes of this daemon; 0: only watch and queue."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:<index>."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads for the maths; 0: half of the cores, at least one."""
    lease_seconds: PositiveSeconds = 60.0
    """A worker silent for so long loses its job to another."""
    poll_seconds: PositiveSeconds = 2.0
    """How often an idle worker asks the queue when nobody wakes it."""
    max_attempts: Annotated[int, Field(ge=1)] = 3
    """Crashes and errors after which a checkpoint is quarantined."""
    retry_delay_seconds: Seconds = 30.0
    """Pause before a failed job is tried again; doubles each time."""
    max_jobs: Annotated[int, Field(ge=0)] = 0
    """The worker is replaced after so many jobs; 0: never."""
    shutdown_seconds: PositiveSeconds = 30.0
    """On stop, how long a running job may take to finish before it is handed back."""


class AlertSettings(Section):
    """Who is told when a run's status changes."""

    kinds: tuple[Literal["reached_good", "reached_excellent"], ...] = (
        "reached_good",
        "reached_excellent",
    )
    """Which changes raise an alert."""
    command: tuple[str, ...] = ()
    """Program and arguments; gets the event as one JSON object on standard input."""
    command_timeout_seconds: PositiveSeconds = 30.0
    """A command that runs longer is killed and tried again."""
    max_attempts: Annotated[int, Field(ge=1)] = 10
    """Deliveries are given up after so many tries."""
    retry_delay_seconds: PositiveSeconds = 10.0
    """Pause after the first failed delivery; doubles each time, at most an hour."""


class LogSettings(Section):
    """What the daemon prints."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    form: Literal["auto", "console", "json"] = "auto"


def default_state_dir(env: Mapping[str, str]) -> Path:
    """Folder for database and caches: systemd's StateDirectory, else XDG, else below home."""
    if env.get("STATE_DIRECTORY"):
        return Path(env["STATE_DIRECTORY"].split(":")[0])
    state_home = env.get("XDG_STATE_HOME") or str(Path(env.get("HOME", "~")).expanduser() / ".local/state")
    return Path(state_home) / "nptwatch"


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="NPTWATCH_",
        env_nested_delimiter="__",
        validate_default=True,
    )

    state_dir: Path = Field(default_factory=lambda: default_state_dir(os.environ))
    """Database, caches and locks of this installation."""
    database: DatabaseSettings = DatabaseSettings()
    watch: WatchSettings = WatchSettings()
    base: BaseSection = BaseSection()
    diagnostic: DiagnosticSettings = DiagnosticSettings()
    worker: WorkerSettings = WorkerSettings()
    alerts: AlertSettings = AlertSettings()
    log: LogSettings = LogSettings()

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL in force."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        return f"sqlite:///{self.state_dir / 'nptwatch.db'}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - signature is the library's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line over environment over file; no .env, no secrets folder."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)
