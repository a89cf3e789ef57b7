"""Where a service's files go: for the machine, or for one person without root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nptwatch.settings import default_state_dir

if TYPE_CHECKING:
    from collections.abc import Mapping

USER: Final = "nptwatch"
"""The user that the machine's units run as."""

STATE: Final = Path("/var/lib/nptwatch")
CACHE: Final = Path("/var/cache/nptwatch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Paths of one installation, as its units name them.

    Attributes:
        root: folder that stands for / while files are written; "/" but for packagers.
        kit: the units' folder below deploy/systemd.
        units: where systemd looks for them.
        sysusers: what makes the user; None: it is there.
        tmpfiles: what makes the state folder; None: the daemon does.
        config: the settings file.
        state: the state folder where the settings name none.
        caches: what else the service writes.
    """

    root: Path
    kit: str
    units: Path
    sysusers: Path | None
    tmpfiles: Path | None
    environment: Path
    config: Path
    state: Path
    caches: tuple[Path, ...]

    @property
    def is_user(self) -> bool:
        """Whether it is one person's own."""
        return self.sysusers is None

    @property
    def systemctl(self) -> tuple[str, ...]:
        """How its manager is spoken to."""
        return ("systemctl", "--user") if self.is_user else ("systemctl",)

    def at(self, path: Path) -> Path:
        """Give where a path of it is now."""
        return self.root / path.relative_to("/")


def machine(root: Path = Path("/")) -> Scope:
    """Give the paths of a service of the whole machine."""
    etc = Path("/etc/nptwatch")
    return Scope(
        root=root,
        kit="deploy/systemd",
        units=Path("/etc/systemd/system"),
        sysusers=Path("/etc/sysusers.d/nptwatch.conf"),
        tmpfiles=Path("/etc/tmpfiles.d/nptwatch.conf"),
        environment=etc / "environment",
        config=etc / "config.toml",
        state=STATE,
        caches=(CACHE,),
    )


def personal(env: Mapping[str, str]) -> Scope:
    """Give the paths of a person's own service."""
    home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    config = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    return Scope(
        root=Path("/"),
        kit="deploy/systemd/user",
        units=config / "systemd/user",
        sysusers=None,
        tmpfiles=None,
        environment=config / "nptwatch/environment",
        config=config / "nptwatch/config.toml",
        state=default_state_dir(env),
        caches=(),
    )
