"""All settings, one frozen object: defaults < TOML file < NPTWATCH_SECTION__KEY < command line."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from nptwatch.alert_settings import AlertSettings
from nptwatch.anchoring import SQLITE_URL, absolute, anchored, home
from nptwatch.channel_settings import (
    LOG,
    ChannelName,
    ChannelSettings,
    DigestSettings,
)
from nptwatch.errors import ConfigError
from nptwatch.export_settings import ExportSettings, require_key
from nptwatch.gpu_settings import GpuSettings
from nptwatch.grade_settings import GradeSettings
from nptwatch.machine_settings import GiB, LabelSettings, PathPairs
from nptwatch.paths import PathMap
from nptwatch.sections import PositiveSeconds, Seconds, Section
from nptwatch.web_settings import WebSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nptwatch.sources import Given

QUICK, FULL = "quick", "full"
"""Profiles: which diagnostic is asked of a checkpoint."""


class DatabaseSettings(Section):
    """Where jobs and history are kept."""

    url: SecretStr | None = None
    """SQLAlchemy URL; unset: SQLite in the state folder."""
    busy_timeout_seconds: PositiveSeconds = 15.0
    """How long a lock that another process holds is waited for."""
    statement_timeout_seconds: PositiveSeconds = 60.0
    """How long Postgres may take over one statement."""
    connect_timeout_seconds: PositiveSeconds = 10.0
    """How long Postgres may take to answer."""
    keep_days: Annotated[int, Field(ge=0)] = 0
    """Checkpoints that are gone from disk are forgotten after so many days; 0: never."""


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
    observer: Literal["auto", "inotify", "polling", "none"] = "auto"
    """What wakes the watcher between scans; auto: polling on network file systems, else inotify."""
    poll_min_seconds: PositiveSeconds = 1.0
    """Pause between polls of a folder in which something happens."""
    poll_max_seconds: PositiveSeconds = 15.0
    """Pause to which it grows while nothing does."""

    @field_validator("poll_max_seconds")
    @classmethod
    def _is_the_longest(cls, value: float, info: ValidationInfo) -> float:
        if value < (shortest := info.data.get("poll_min_seconds", value)):
            raise ValueError(f"should be at least poll_min_seconds, which is {shortest:g}")
        return value


class BaseSection(Section):
    """The base model that NPTs modulate."""

    model: Annotated[str, Field(min_length=1)] | None = None
    """Folder or hub name; unset: as the checkpoint's own config.json or training state says."""
    local_files_only: bool = False
    """Never ask the hub."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """In what the base computes."""
    layers: Literal["auto", "resident", "streamed"] = "auto"
    """All in memory, or read from disk one at a time; auto: as free memory allows."""


class DiagnosticSettings(Section):
    """How checkpoints are measured."""

    residual: Literal["auto", "keep", "drop"] = "auto"
    """The NPT layers' residual rule (docs/npt.md); auto measures both and takes the lower MSE."""
    probes: Path | None = None
    """File of texts, one a line (or .jsonl with "text"), measured on instead of the guide's."""
    probe_texts: tuple[str, ...] = ()
    """The same given here; where `probes` is set, what that file held when it was loaded."""
    logits_mib: Annotated[int, Field(ge=1)] = 256
    """At most so much memory for logits at a time, and as much again for the base's own."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the noise that continuations are drawn with, the same for checkpoint and base."""
    max_checkpoint_gib: Annotated[float, Field(gt=0)] = 64.0
    """Larger files are refused unread."""

    @property
    def max_checkpoint_bytes(self) -> int:
        """The same in bytes."""
        return int(self.max_checkpoint_gib * 1024**3)


FromGrade = Literal["EXCELLENT", "GOOD", "FAIR", "POOR", "never"]


class FullRunSettings(Section):
    """What differs for runs whose name matches; what is left out is as in [full]."""

    run: str
    """Glob on the run's name (its path below the watched root)."""
    every: Annotated[int, Field(ge=0)] | None = None
    on_grade: FromGrade | None = None
    on_new_best: FromGrade | None = None


class FullSettings(Section):
    """Which checkpoints get the full diagnostic after the quick one that every checkpoint gets."""

    every: Annotated[int, Field(ge=0)] = 10
    """Every so many checkpoints of a run, in step order; 0: none for this reason."""
    on_grade: FromGrade = "GOOD"
    """When a run's status rises to this grade or above, from below it."""
    on_new_best: FromGrade = "GOOD"
    """When a checkpoint has the lowest MSE of its run so far and is at least this good."""
    runs: tuple[FullRunSettings, ...] = ()
    """Exceptions for some runs; the first that matches counts."""


class WorkerSettings(Section):
    """The process that owns the device."""

    count: Annotated[int, Field(ge=0, le=64)] = 1
    """Worker processes of this daemon; 0: only watch and queue."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:<index> or GPU-<uuid>."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads for the maths; 0: half of the cores, shared by `count` workers."""
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
    idle_unload_minutes: Annotated[float, Field(ge=0)] = 15.0
    """A worker without jobs for so long gives back the memory that its base takes; 0: never."""
    max_job_minutes: Annotated[float, Field(ge=0)] = 360.0
    """What takes longer to measure, its base's download included, is ended: it hangs; 0: never."""
    shutdown_seconds: PositiveSeconds = 30.0
    """On stop, how long a running job may take to finish before it is handed back."""
    bases: tuple[str, ...] = ()
    """Globs on the base model's name; a worker takes only jobs of a base that matches one."""
    gpu_memory_gib: Annotated[GiB, Field(gt=0)] | None = None
    """What a worker offers jobs that need GPU memory; unset: all that its GPU has."""
    keep_base_seconds: Seconds = 300.0
    """So long a worker prefers, among equally urgent jobs, those of the base that it holds."""


class KeptSettings(Section):
    """Which checkpoints are kept in the state folder, safe from the trainer's rotation."""

    on_grade: FromGrade = "GOOD"
    """When a run's status rises to a grade that is this one or above."""
    on_new_best: FromGrade = "FAIR"
    """When a checkpoint has the lowest MSE of its run so far and is at least this good."""
    max_gib: Annotated[float, Field(ge=0)] = 50.0
    """All of them together; 0: nothing more is kept."""
    reserve_gib: Annotated[float, Field(ge=0)] = 1.0
    """No copy is made that would leave less of the disk free: the database may be on it too."""

    @property
    def max_bytes(self) -> int:
        """The cap in bytes."""
        return int(self.max_gib * 1024**3)

    @property
    def reserve_bytes(self) -> int:
        """The reserve in bytes."""
        return int(self.reserve_gib * 1024**3)


class LogSettings(Section):
    """What the daemon prints."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    form: Literal["auto", "console", "json"] = "auto"


def default_state_dir(env: Mapping[str, str]) -> Path:
    """Folder for database and caches: systemd's StateDirectory, else XDG, else below home."""
    if env.get("STATE_DIRECTORY"):
        return Path(env["STATE_DIRECTORY"].split(":")[0])
    if env.get("XDG_STATE_HOME"):
        return Path(env["XDG_STATE_HOME"]) / "nptwatch"
    return home(env) / ".local/state/nptwatch"


class Settings(Section):
    """Everything that can be set."""

    state_dir: Path = Field(default_factory=lambda: default_state_dir(os.environ))
    """Database, caches and locks of this installation."""
    path_map: PathPairs = ()
    """Folders that are called otherwise on this host than in the database."""
    database: DatabaseSettings = DatabaseSettings()
    watch: WatchSettings = WatchSettings()
    base: BaseSection = BaseSection()
    diagnostic: DiagnosticSettings = DiagnosticSettings()
    grades: GradeSettings = GradeSettings()
    full: FullSettings = FullSettings()
    labels: LabelSettings = LabelSettings()
    worker: WorkerSettings = WorkerSettings()
    gpu: GpuSettings = GpuSettings()
    kept: KeptSettings = KeptSettings()
    alerts: AlertSettings = AlertSettings()
    channels: dict[ChannelName, ChannelSettings] = Field(default_factory=dict)
    """Where alerts go beside the log, by name."""
    digest: DigestSettings = DigestSettings()
    web: WebSettings = WebSettings()
    exports: ExportSettings = ExportSettings()
    log: LogSettings = LogSettings()

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL in force."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        return f"sqlite:///{self.state_dir / 'nptwatch.db'}"

    @property
    def sqlite_file(self) -> Path | None:
        """The database's file; None where it is a server's."""
        match = SQLITE_URL.fullmatch(self.database_url)
        return Path(match[2]) if match else None

    @property
    def paths(self) -> PathMap:
        """What this host calls the database's folders."""
        return PathMap((pair.stored, str(pair.here)) for pair in self.path_map)

    @property
    def safe_database_url(self) -> str:
        """The same with its secrets masked, for people and logs."""
        return masked_url(self.database_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings and where they come from.

    Attributes:
        settings: what is in force.
        file: the settings file that was read, if any.
        given: what was given, by key (`section.name`); every other key has its default.
    """

    settings: Settings
    file: Path | None
    given: Mapping[str, Given]


def load_settings(
    path: Path | None,
    *,
    env: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,  # Any: a flag's value
) -> Settings:
    """Build the settings from file, environment and command line.

    Args:
        path: the settings file; None: NPTWATCH_CONFIG, else the first of ./nptwatch.toml,
            $XDG_CONFIG_HOME/nptwatch/config.toml and /etc/nptwatch/config.toml that exists.
        env: the environment.
        overrides: flags, as `{"worker": {"count": 2}}` or `{"worker.count": 2}`; None: not given.

    Raises:
        ConfigError: a named file is missing or broken, or any key or value is wrong; lists all.
    """
    return load(path, env=env, overrides=overrides).settings


def load(
    path: Path | None,
    *,
    env: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,  # Any: a flag's value
    cwd: Path | None = None,
    system: Path = Path("/etc/nptwatch/config.toml"),
) -> Loaded:
    """Do what `load_settings` does and also say where each value comes from.

    Args:
        cwd: what relative paths of environment and command line are relative to.
        system: the settings file of this machine.
    """
    cwd = cwd or Path.cwd()
    file = find_file(path, env=env, cwd=cwd, system=system)
    # imported here: pydantic-settings takes 0.05 s, and a worker gets its settings ready-made
    from nptwatch.sources import read

    settings, given = read(file, env=env, overrides=overrides or {})
    _require_channels(settings)
    require_key(settings.exports.wandb)
    return Loaded(settings=anchored(settings, given, cwd, env), file=file, given=given)


def _require_channels(settings: Settings) -> None:
    """Hold that alerts go where there is a channel."""
    rules = settings.alerts.rules
    wanted = [("alerts.channels", settings.alerts.channels)]
    wanted += [(f"alerts.rules[{n}].channels", rule.channels) for n, rule in enumerate(rules)]
    known = (LOG, *settings.channels)
    for key, names in wanted:
        unknown = [name for name in names or () if name not in known]
        if unknown:
            raise ConfigError(f"{key}: no channel {unknown[0]!r}; there are: {', '.join(known)}")


def find_file(path: Path | None, *, env: Mapping[str, str], cwd: Path, system: Path) -> Path | None:
    """Find the settings file; a named one must exist, the usual places may be empty."""
    named = path or (Path(env["NPTWATCH_CONFIG"]) if env.get("NPTWATCH_CONFIG") else None)
    if named is not None:
        file = absolute(named, cwd, env)
        if not os.path.isfile(file):  # noqa: PTH113 - False too where the folder is closed to us
            by = "--config" if path else "NPTWATCH_CONFIG"
            raise ConfigError(f"no settings file {file} (named by {by})")
        return file
    config_home = Path(env.get("XDG_CONFIG_HOME") or home(env) / ".config")
    usual = (cwd / "nptwatch.toml", config_home / "nptwatch/config.toml", system)
    return next((file for file in usual if os.path.isfile(file)), None)  # noqa: PTH113 - as above


def masked_url(url: str) -> str:
    """Hide password and secret parameters of a database URL."""
    url = re.sub(r"(://[^:/?#@]*):.*@", r"\1:***@", url)
    return re.sub(r"(?i)([?&][^=&]*(?:pass|pwd|secret|token|key)[^=&]*=)[^&]*", r"\1***", url)
