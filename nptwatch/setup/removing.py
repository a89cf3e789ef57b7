"""`nptwatch service uninstall`: what it stops and removes, and what it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nptwatch.setup.owned import Found, found
from nptwatch.setup.scope import USER
from nptwatch.setup.steps import Remove, Run, Step
from nptwatch.setup.units import DAEMON, NAMES, WORKER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nptwatch.setup.scope import Scope

INSTANCES = WORKER.replace("@", "@*")
"""All workers of the template that run."""


def removal(scope: Scope, *, overwrites: bool = False, runs: bool = True) -> list[Step]:
    """Give the steps; none: nothing of ours is there.

    Args:
        overwrites: files of ours that somebody changed go too, and are kept under another name.
        runs: whether systemd is told; not so for a packager.
    """
    removes = [step for path in _places(scope) if (step := _removed(path, overwrites)) is not None]
    names = [name for name in NAMES if any(step.path.name == name for step in removes)]
    before, after = _commands(scope, names) if runs and names else ([], [])
    return [*before, *removes, *after]


def left_alone(scope: Scope, *, overwrites: bool = False) -> Iterator[str]:
    """Yield which files are not removed, and why."""
    for path in _places(scope):
        state = found(path, "")
        if state is Found.FOREIGN:
            yield f"{path} is not of `nptwatch service install`: left as it is"
        elif state is Found.EDITED and not overwrites:
            yield f"{path} was changed by hand: left as it is, --force removes it and keeps a copy"
    for name in NAMES:
        if (drop_ins := scope.at(scope.units / f"{name}.d")).is_dir():
            yield f"{drop_ins} has changes of your own: left as it is"


def kept(scope: Scope, state: Path) -> Iterator[str]:
    """Yield what a service leaves behind, for whoever wants it gone.

    Args:
        state: the state folder by its settings.
    """
    yield f"{state}: history, kept checkpoints, locks"
    yield from (f"{folder}: what can be had again" for folder in scope.caches)
    yield f"{scope.config.parent}: settings, and the environment file with secrets"
    if not scope.is_user:
        yield f"the user {USER}, who owns these files"


def _places(scope: Scope) -> list[Path]:
    paths = [scope.units / name for name in NAMES]
    paths += [path for path in (scope.sysusers, scope.tmpfiles) if path is not None]
    return [scope.at(path) for path in paths]


def _removed(path: Path, overwrites: bool) -> Remove | None:
    state = found(path, "")
    if state is Found.OURS or (overwrites and state is Found.EDITED):
        return Remove(path=path, keeps_old=state is Found.EDITED)
    return None


def _commands(scope: Scope, names: list[str]) -> tuple[list[Step], list[Step]]:
    running = [DAEMON] * (DAEMON in names) + [INSTANCES] * (WORKER in names)
    advice = "nothing was removed yet: once that is put right, give the same command again"

    def run(*words: str) -> Step:
        return Run(command=(*scope.systemctl, *words), if_it_fails=advice)

    # of a template: all that were enabled
    return [run("disable", *names), run("stop", *running)], [run("daemon-reload")]
