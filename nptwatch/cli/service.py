"""`nptwatch service`: the daemon as a service of systemd."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.session import ConfigOption  # noqa: TC001 - Typer reads it
from nptwatch.errors import ConfigError

if TYPE_CHECKING:
    from nptwatch.settings import Settings
    from nptwatch.setup.scope import Scope
    from nptwatch.setup.steps import Step

UserOption = Annotated[
    bool, typer.Option("--user", help="Of your own systemd, without root; not of the machine's.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be written and run; change nothing.")
]
RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root", metavar="DIR", help="For packagers: write below DIR, check and run nothing."
    ),
]

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def service() -> None:
    """Install the daemon as a service of systemd, or remove it.

    Example: nptwatch service install --dry-run
    """


@app.command()
def install(
    *,
    user: UserOption = False,
    now: Annotated[
        bool, typer.Option("--now", help="Enable and start it too; a changed one is restarted.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace units that were changed by hand; keeps the old ones."
        ),
    ] = False,
    dry_run: DryRunOption = False,
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Write the units for this very installation of nptwatch, and tell systemd.

    The settings must be there (`nptwatch init`): /etc/nptwatch/config.toml, with --user
    ~/.config/nptwatch/config.toml, or what --config names. Secrets go to the file `environment`
    beside them. A second time it changes what differs, as after an upgrade, or nothing.

    Example: nptwatch service install --now
    """
    from nptwatch.setup.installing import Wish, installation
    from nptwatch.setup.requirements import outside

    scope = _scope(user=user, root=root)
    file = scope.config if config is None else Path(os.path.abspath(config))  # noqa: PTH100 - links stay
    writable: list[Path] = []
    if root is None:
        _require_root(scope, dry_run=dry_run)
        writable = outside(_checked(scope, file), scope)
    wish = Wish(
        python=Path(sys.executable),
        config=file,
        writable=writable,
        starts=now,
        overwrites=force,
        runs=root is None,
    )
    steps = installation(scope, wish)
    _perform(steps, dry_run=dry_run, nothing="nothing to do: all is installed as it would be now")
    if not dry_run and root is None:
        _say_next(scope, file, started=now)


@app.command()
def uninstall(
    *,
    user: UserOption = False,
    force: Annotated[
        bool, typer.Option("--force", help="Remove units that were changed by hand too.")
    ] = False,
    dry_run: DryRunOption = False,
    root: RootOption = None,
    config: ConfigOption = None,
) -> None:
    """Stop and disable the service, and remove what `install` wrote; keeps history and settings.

    Example: nptwatch service uninstall --dry-run
    """
    from nptwatch.setup.removing import kept, left_alone, removal
    from nptwatch.setup.requirements import require_systemd, settings_for

    scope = _scope(user=user, root=root)
    if root is None:
        _require_root(scope, dry_run=dry_run)
    steps = removal(scope, overwrites=force, runs=root is None)
    notes = list(left_alone(scope, overwrites=force))
    if steps and root is None:
        require_systemd(scope)
    _perform(steps, dry_run=dry_run, nothing="nothing to do: no service is installed")
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    try:
        state = settings_for(scope, config or scope.at(scope.config)).state_dir
    except ConfigError:
        state = scope.state
    if steps:
        print("kept; remove it yourself if you want it gone:")
        for line in kept(scope, state):
            print(f"  {line}")


def _scope(*, user: bool, root: Path | None) -> Scope:
    from nptwatch.setup.scope import machine, personal

    if user and root is not None:
        raise ConfigError("--root is for the machine's units: leave out --user")
    return personal(os.environ) if user else machine(root or Path("/"))


def _require_root(scope: Scope, *, dry_run: bool) -> None:
    if not (scope.is_user or dry_run or os.geteuid() == 0):
        raise ConfigError(
            "a service of the machine needs root: sudo, or --user for one of your own"
        )


def _checked(scope: Scope, config: Path) -> Settings:
    """Look at all that the service needs before anything is written; say what is odd."""
    from nptwatch.doctor.answering import answering
    from nptwatch.setup.requirements import (
        remarks,
        require_open_program,
        require_systemd,
        settings_for,
    )

    require_systemd(scope)
    settings = settings_for(scope, config)
    if not scope.is_user:
        require_open_program(Path(sys.executable))
    there = answering(settings.watch.roots)
    for remark in remarks(settings, config, scope, there=there):
        typer.echo(f"note: {remark}", err=True)
    return settings


def _perform(steps: list[Step], *, dry_run: bool, nothing: str) -> None:
    from nptwatch.setup.steps import carry_out, tell

    if not steps:
        print(nothing)
    elif dry_run:
        tell(steps, print)
    else:
        carry_out(steps, print)


def _say_next(scope: Scope, config: Path, *, started: bool) -> None:
    """Say what can be typed now."""
    from nptwatch.setup.program import own_command
    from nptwatch.setup.scope import USER

    manager = " ".join(scope.systemctl)
    owner = "--user" if scope.is_user else f"--uid {USER}"
    alike = f"systemd-run --pipe --wait {owner} --property EnvironmentFile={scope.environment}"
    alike += "".join(f" --setenv HF_HOME={folder}/huggingface" for folder in scope.caches)
    doctor = own_command("doctor", "--config", str(config))
    lines = [] if started else [f"{alike} {doctor}", f"{manager} enable --now nptwatch"]
    lines += [f"{manager} status nptwatch"]
    journal = "journalctl --user --unit" if scope.is_user else "journalctl --unit"
    lines += [f"{journal} nptwatch --follow"]
    if scope.is_user:
        lines.append("loginctl enable-linger     # it runs while nobody is logged in, too")
    print("next:")
    for line in lines:
        print(f"  {line}")
