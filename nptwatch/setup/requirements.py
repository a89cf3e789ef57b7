"""What must be so before a service is installed: each thing that is not, with what to do."""

from __future__ import annotations

import pwd
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import nptwatch
from nptwatch.errors import ConfigError
from nptwatch.settings import load_settings
from nptwatch.setup.program import own_command
from nptwatch.setup.scope import USER
from nptwatch.setup.steps import fault_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from nptwatch.settings import Settings
    from nptwatch.setup.scope import Scope


def require_systemd(scope: Scope) -> None:
    """Hold that a manager answers.

    Raises:
        ConfigError: it does not.
    """
    if shutil.which("systemctl") is None:
        raise ConfigError(
            "there is no systemctl here: without systemd start `nptwatch run` by what supervises "
            "processes on this machine; --root DIR only writes files"
        )
    fault = fault_of((*scope.systemctl, "show", "--property=Version"))
    if fault is not None:
        hint = (
            "\nlog in on this machine itself (ssh, not su or sudo), so that your own systemd runs"
            if scope.is_user
            else "\n--root DIR only writes files, and asks nobody"
        )
        raise ConfigError(f"systemd does not answer: {fault}{hint}")


def settings_for(scope: Scope, config: Path) -> Settings:
    """Load the settings as the service will, its environment file included.

    Raises:
        ConfigError: there are none, they do not load, or there is nothing to watch.
    """
    if not config.is_file():
        init = own_command("init", "--output", str(config))
        raise ConfigError(f"no settings yet at {config}: `{init}` writes them")
    try:
        settings = load_settings(config, env=service_environment(scope))
    except ConfigError as error:
        check = f"`{own_command('config', 'check', '--config', str(config))}` says when they do"
        raise ConfigError(f"{config} does not load: {error}\n{check}") from error
    if not settings.watch.roots:
        raise ConfigError(f"{config} names no directory to watch: set watch.roots")
    return settings


def service_environment(scope: Scope) -> dict[str, str]:
    """Give what the service's environment says to its settings."""
    home = {"HOME": str(scope.state)} if not scope.is_user else {}
    return home | {"STATE_DIRECTORY": str(scope.state)} | _variables(scope.at(scope.environment))


def missing_secrets(settings: Settings, env: Mapping[str, str]) -> Iterator[str]:
    """Yield the variables that channels name and an environment lacks."""
    for channel in settings.channels.values():
        for field, value in channel:
            if field.endswith("_env") and value is not None and not env.get(value):
                yield value


def _variables(path: Path) -> dict[str, str]:
    """Read an environment file as systemd does."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.strip().partition("=") for line in lines)
    return {
        name.strip(): value.strip().strip("\"'")
        for name, is_one, value in pairs
        if is_one and not name.startswith(("#", ";"))
    }


def require_open_program(python: Path) -> None:
    """Hold that the machine's user can run this installation.

    Raises:
        ConfigError: a folder above it is closed to others.
    """
    for path in (python, python.resolve(), Path(nptwatch.__file__).resolve()):
        if (closed := closed_to_others(path)) is not None:
            raise ConfigError(
                f"the user {USER} could not run {path}: {closed} is closed to others. Install "
                "nptwatch where all users can read it: python3 -m venv /opt/nptwatch && "
                "/opt/nptwatch/bin/pip install . (in a checkout)"
            )


def remarks(
    settings: Settings, config: Path, scope: Scope, *, there: Collection[Path]
) -> Iterator[str]:
    """Yield what is odd, and does not keep the service from being installed.

    Args:
        there: the roots that are directories, and answer.
    """
    for root in settings.watch.roots:
        if root not in there:
            yield f"{root} is no directory, or its server is away: no start without it"
    for variable in missing_secrets(settings, service_environment(scope)):
        yield f"{variable} is not set in {scope.environment}: the service ends without it"
    if not scope.is_user:
        yield from _of_the_user(settings, config, scope, there)


def _of_the_user(
    settings: Settings, config: Path, scope: Scope, there: Collection[Path]
) -> Iterator[str]:
    """Yield what the machine's user could not read or write."""
    if (file := _somebody_elses(settings.state_dir)) is not None:
        owner = f"{USER}:{USER}"
        yield (
            f"{file} is not the user {USER}'s, so the service cannot write it: "
            f"`chown --recursive {owner} {settings.state_dir}` when that user is there"
        )
    for folder in outside(settings, scope):
        if not folder.is_dir():
            make = f"install -d --owner {USER} --group {USER} {folder}"
            yield f"{folder} is not there, and the service cannot make it: `{make}`"
    if (closed := closed_to_others(config)) is not None:
        yield f"{closed} is closed to others: see to it that the user {USER} can read {config}"
    for root in there:
        if (closed := closed_to_others(root)) is not None:
            yield (
                f"{closed} is closed to others: give the service's user a group that can read it, "
                f"`usermod --append --groups GROUP {USER}`"
            )


def _somebody_elses(folder: Path) -> Path | None:
    """Give a file in the state folder that root's own runs left there, say."""
    try:
        user = pwd.getpwnam(USER).pw_uid
    except KeyError:
        user = None
    try:
        return next((file for file in folder.iterdir() if file.lstat().st_uid != user), None)
    except OSError:  # none yet
        return None


def closed_to_others(path: Path) -> Path | None:
    """Give the first part of a path that others cannot go through, or cannot read at its end."""
    for part in (*reversed(path.parents), path):
        try:
            mode = part.stat().st_mode
        except OSError:
            return part
        needed = stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
        if part == path:
            needed |= stat.S_IROTH
        if mode & needed != needed:
            return part
    return None


def outside(settings: Settings, scope: Scope) -> list[Path]:
    """Give the folders that the settings have written to outside the service's own."""
    exports = settings.exports
    wanted = [settings.state_dir, exports.jsonl.folder, exports.tensorboard.folder]
    wanted += [exports.wandb.folder, settings.gpu.lock_dir]
    if settings.sqlite_file is not None:
        wanted.append(settings.sqlite_file.parent)
    own = (scope.state, *scope.caches, Path("/run/lock"))
    folders = {
        folder
        for folder in wanted
        if folder is not None and not any(folder.is_relative_to(place) for place in own)
    }
    return sorted(folders)
