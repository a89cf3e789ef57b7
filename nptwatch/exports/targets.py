"""The exports there are: where each goes, and the process that does it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nptwatch.alerts.secrets import Secret
from nptwatch.errors import ConfigError, DeliveryError
from nptwatch.export_settings import require_key
from nptwatch.exports.telling import missing
from nptwatch.globs import PathGlobs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nptwatch.export_settings import WandbSettings
    from nptwatch.settings import Settings

PLACE = ".place"
"""A file that says whose folder it is, wherever it is mounted."""

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}
"""What an export's process imports, and the extra that brings it, by name of the export."""

FILES_SECONDS, FILES_TIMEOUT_SECONDS = 2.0, 60.0
"""How often what is new is written into files, and how long that may take."""

FILES_AT_ONCE = 50
"""Runs that one process writes: to start one costs more than to write a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One export.

    Attributes:
        name: as the settings call it.
        folder: for its files; below no watched root.
        package: what its process imports, and the extra that brings it; None: nothing.
        server: what tells its place from others, where that is no folder.
        options: what its process is told beside the results.
        runs_at_once: so many are exported by one process.
    """

    name: str
    folder: Path
    runs: PathGlobs
    package: str | None = None
    server: str | None = None
    secret: Secret | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    every_seconds: float = FILES_SECONDS
    timeout_seconds: float = FILES_TIMEOUT_SECONDS
    runs_at_once: int = FILES_AT_ONCE

    @property
    def module(self) -> str:
        """What its process runs."""
        return f"nptwatch.exports.to_{self.name}"

    def missing(self) -> str | None:
        """Say what must be installed for it; None: nothing."""
        if self.package is None or importlib.util.find_spec(self.package) is not None:
            return None
        return missing(self.package)

    def identity(self) -> str:
        """Give what tells its place from others, whoever writes there; a fresh folder is another.

        Raises:
            DeliveryError: the folder cannot be used.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            place = self.server or _place(self.folder)
        except (OSError, ValueError) as exc:
            raise DeliveryError(f"{self.folder} cannot be used: {exc}") from exc
        about = "\0".join([place, *(str(self.options.get(key)) for key in ("project", "entity"))])
        return f"{self.name}:{hashlib.sha256(about.encode()).hexdigest()[:32]}"


def make_targets(settings: Settings, *, env: Mapping[str, str]) -> list[Target]:
    """Give the exports that are switched on.

    Raises:
        ConfigError: a folder lies below a watched root, or a secret is missing.
    """
    targets = []
    for name, section in settings.exports:
        if section.on:
            target = Target(
                name=name,
                folder=section.folder or settings.state_dir / "exports" / name,
                runs=PathGlobs(section.runs),
                package=PACKAGES.get(name),
            )
            _require_outside(target, settings.watch.roots)
            targets.append(target)
            if name == "wandb":
                targets[-1] = _with_wandb(target, settings.exports.wandb, env)
    return targets


def _with_wandb(target: Target, settings: WandbSettings, env: Mapping[str, str]) -> Target:
    """Add what is of W&B alone."""
    require_key(settings)
    online = settings.mode == "online"
    secret = Secret(
        label=f"exports.wandb.key_{'env' if settings.key_file is None else 'file'}",
        variable=settings.key_env,
        file=settings.key_file,
        env=env,
    )
    if online:
        secret.read()  # a daemon without it is refused
    names = ("mode", "project", "entity", "group", "base_url", "timeout_seconds")
    return replace(
        target,
        options={name: getattr(settings, name) for name in names},
        secret=secret if online else None,
        server=(settings.base_url or "wandb") if online else None,
        every_seconds=settings.every_seconds,
        timeout_seconds=settings.timeout_seconds,
        runs_at_once=1,  # each takes seconds
    )


def _require_outside(target: Target, roots: Sequence[Path]) -> None:
    real = Path(os.path.realpath(target.folder))
    for root in roots:
        if real.is_relative_to(os.path.realpath(root)):
            raise ConfigError(
                f"exports.{target.name}: {target.folder} lies below the watched root {root}, where"
                f" nothing is written: set exports.{target.name}.folder (or state_dir) elsewhere"
            )


def _place(folder: Path) -> str:
    """Give the folder's identity, made when it is first used; of several makers one wins."""
    path = folder / PLACE
    if not path.exists():
        new = folder / f"{PLACE}-{uuid.uuid4()}"
        new.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
        try:
            os.link(new, path)
        except FileExistsError:
            pass
        finally:
            new.unlink()
    return str(uuid.UUID(path.read_text(encoding="ascii").strip()))
