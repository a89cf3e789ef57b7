"""`nptwatch service install`: what it writes and runs."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nptwatch.errors import ConfigError
from nptwatch.setup.owned import Found, found, signed
from nptwatch.setup.shipped import shipped
from nptwatch.setup.steps import Run, Step, Write, fault_of
from nptwatch.setup.units import DAEMON, NAMES, unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nptwatch.setup.scope import Scope

AGAIN = "the files are in place: once that is put right, give the same command again, or the rest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants installed.

    Attributes:
        python: the interpreter that has nptwatch.
        config: the settings file.
        writable: folders outside the service's own that it writes to.
        starts: whether it is enabled and started.
        overwrites: whether files that people changed give way.
        runs: whether systemd is told; not so for a packager.
    """

    python: Path
    config: Path
    writable: Sequence[Path] = ()
    starts: bool = False
    overwrites: bool = False
    runs: bool = True


def installation(scope: Scope, wish: Wish) -> list[Step]:
    """Give the steps that are left to do; none: all is as wished.

    Raises:
        ConfigError: a file would be overwritten that somebody changed or made.
    """
    files = {
        scope.at(scope.units / name): unit(
            name, scope, python=wish.python, config=wish.config, writable=wish.writable
        )
        for name in NAMES
    }
    for path, name in ((scope.sysusers, "sysusers"), (scope.tmpfiles, "tmpfiles")):
        if path is not None:
            files[scope.at(path)] = signed(shipped(f"{scope.kit}/nptwatch.{name}"))
    states = {path: found(path, text) for path, text in files.items()}
    if not wish.overwrites:
        _require_ours(scope, states)
    writes = [
        Write(path=path, text=text, keeps_old=states[path] in {Found.EDITED, Found.FOREIGN})
        for path, text in files.items()
        if states[path] is not Found.SAME
    ]
    steps: list[Step] = [*writes, *_environment(scope)]
    return steps + (_commands(scope, wish, {write.path for write in writes}) if wish.runs else [])


def _require_ours(scope: Scope, states: Mapping[Path, Found]) -> None:
    lines = [
        f"{path}: " + ("was changed by hand" if state is Found.EDITED else "is not of this command")
        for path, state in states.items()
        if state in {Found.EDITED, Found.FOREIGN}
    ]
    if lines:
        edit = f"`{' '.join(scope.systemctl)} edit {DAEMON}`"
        raise ConfigError(
            "nothing was written, for files would be lost:\n  "
            + "\n  ".join(lines)
            + f"\nmove your changes to where {edit} keeps them, then --force writes these anew"
            " and keeps the old ones beside them"
        )


def _environment(scope: Scope) -> list[Write]:
    """Write the file for secrets where there is none; what is in it is nobody's business."""
    path = scope.at(scope.environment)
    if path.exists():
        return []
    return [Write(path=path, text=shipped("deploy/systemd/environment"), mode=0o600)]


def _is_open(path: Path) -> bool:
    """Say whether others than its owner can read a file."""
    return path.exists() and bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def _commands(scope: Scope, wish: Wish, written: set[Path]) -> list[Step]:
    commands: list[tuple[str, ...]] = []
    if _is_open(secrets := scope.at(scope.environment)):
        commands.append(("chmod", "600", str(secrets)))
    if scope.sysusers is not None and scope.at(scope.sysusers) in written:
        commands.append(("systemd-sysusers", str(scope.sysusers)))
    if scope.tmpfiles is not None and scope.at(scope.tmpfiles) in written:
        commands.append(("systemd-tmpfiles", "--create", str(scope.tmpfiles)))
    if any(path.parent == scope.at(scope.units) for path in written):
        commands.append((*scope.systemctl, "daemon-reload"))
    is_new = scope.at(scope.units / DAEMON) in written
    if wish.starts and (is_new or not _runs(scope)):
        commands.append((*scope.systemctl, "enable", DAEMON))
        # one that runs goes on with what it was started with
        commands.append((*scope.systemctl, "restart" if is_new else "start", DAEMON))
    return [Run(command=command, if_it_fails=_advice(scope, command)) for command in commands]


def _runs(scope: Scope) -> bool:
    asked = ("is-enabled", "is-active")
    return all(fault_of((*scope.systemctl, verb, "--quiet", DAEMON)) is None for verb in asked)


def _advice(scope: Scope, command: tuple[str, ...]) -> str:
    if command[-2] in {"start", "restart"}:
        journal = "journalctl --user --unit" if scope.is_user else "journalctl --unit"
        return f"`{journal} {DAEMON}` says why"
    return AGAIN
