"""`nptwatch init`: a first settings file."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nptwatch.cli.session import DatabaseUrlOption, StateDirOption  # noqa: TC001 - Typer reads them
from nptwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nptwatch.settings import Settings
    from nptwatch.setup.first_settings import Choices, FirstSettings
    from nptwatch.setup.scope import Scope

STDOUT = Path("-")

BASE_SECONDS = 20.0
"""How long a base model may take to be found."""

QUESTIONS = {
    "roots": "Directories to watch, with spaces between them",
    "base_model": "Base model, a folder or a hub's name (empty: as the checkpoints say)",
    "state_dir": "Folder for history and state (empty: the usual one)",
    "database_url": "URL of a Postgres database (empty: SQLite in that folder)",
    "channel": "Name for a channel of alerts, as slack or mail (empty: none)",
}
"""What is asked for, by field of the choices."""


def init(
    roots: Annotated[
        list[str] | None, typer.Argument(metavar="[ROOT]...", help="Directories to watch.")
    ] = None,
    *,
    base_model: Annotated[
        str | None, typer.Option(help="Base model: folder or hub name. Default: as runs name it.")
    ] = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
    channel: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Send alerts through Apprise (Slack, e-mail, ntfy, ...), by a name of your own.",
        ),
    ] = None,
    alert_command: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="Have a program told of alerts, as JSON on stdin."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--output", "--config", metavar="FILE", help="File to write; - prints it."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is there, and keep it beside.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written; change nothing.")
    ] = False,
) -> None:
    """Write a first settings file, with every setting explained; ask for what matters.

    Asks on a terminal for what no flag says. Root writes /etc/nptwatch/config.toml, others
    ~/.config/nptwatch/config.toml. Secrets are not written: it says where they go.

    Example: nptwatch init /data/experiments --base-model /data/base
    """
    from nptwatch.setup.first_settings import Choices, first_settings

    scope = _scope()
    file = Path(os.path.abspath(scope.config if config is None else config))  # noqa: PTH100
    prints = dry_run or config == STDOUT
    if not (prints or force) and file.exists():
        raise ConfigError(
            f"{file} is there already: edit it, or --force writes another and keeps the old one"
        )
    choices = Choices(
        roots=tuple(roots or ()),
        base_model=base_model,
        state_dir=state_dir,
        database_url=database_url,
        channel=channel,
        alert_command=alert_command,
    )
    made = first_settings(_completed(choices, scope, asks=not yes), home=Path.home())
    if prints:
        print(made.text, end="")
    else:
        _write(made.text, file)
    _remark(made.settings)
    for line in _advice(made, scope, None if config == STDOUT else file):
        typer.echo(line, err=prints)


def _scope() -> Scope:
    from nptwatch.setup.scope import machine, personal

    return machine() if os.geteuid() == 0 else personal(os.environ)


def _completed(choices: Choices, scope: Scope, *, asks: bool) -> Choices:
    """Ask for what is not given, if somebody can answer; root's state folder is the service's."""
    from nptwatch.setup.first_settings import words_of

    if choices.state_dir is None and not scope.is_user:
        choices = replace(choices, state_dir=scope.state)
    if not (asks and sys.stdin.isatty()):
        return choices
    answers: dict[str, Any] = {}  # Any: as the fields have it
    for field, question in QUESTIONS.items():
        if not getattr(choices, field):
            answer = typer.prompt(question, default="", show_default=False, err=True).strip()
            answers[field] = tuple(words_of(answer)) if field == "roots" else answer or None
    return replace(choices, **answers)


def _write(text: str, file: Path) -> None:
    from nptwatch.setup.owned import ASIDE, write_whole

    had_old = file.exists()
    write_whole(file, text, keeps_old=had_old)
    print(f"wrote {file}" + f" (the old one: {file.name}{ASIDE})" * had_old)


def _remark(settings: Settings) -> None:
    """Say what the daemon will miss; it may be there when it starts."""
    from nptwatch.doctor.answering import answering

    if settings.base.model is not None:  # first: it forks, and the other leaves threads behind
        _remark_on_base(settings)
    there = answering(settings.watch.roots)
    for root in settings.watch.roots:
        if root not in there:
            typer.echo(f"note: {root} is no directory, or its server does not answer", err=True)


def _remark_on_base(settings: Settings) -> None:
    from nptwatch.doctor.bounded import Check, findings_of
    from nptwatch.doctor.finding import Mark
    from nptwatch.doctor.models import can_be_had

    check = Check(
        name=f"base model {settings.base.model}",
        run=partial(can_be_had, settings),
        seconds=BASE_SECONDS,
        when_late="is the hub reachable? `nptwatch doctor` looks again",
    )
    for finding in findings_of([check]):
        if finding.mark is not Mark.OK:
            typer.echo(f"note: {finding.check}: {finding.text}; {finding.fix}", err=True)


def _advice(made: FirstSettings, scope: Scope, file: Path | None) -> Iterator[str]:
    """Yield where secrets go and what can be typed now."""
    from nptwatch.setup.program import own_command

    if made.secrets:
        yield f"secrets are not in it; they go to {scope.environment} (mode 600),"
        yield "or into the environment of whoever starts nptwatch:"
        yield from (f"  {line}" for line in made.secrets)
    if file is None:
        return
    given = [] if file == scope.config else ["--config", str(file)]
    user = ["--user"] if scope.is_user else []
    yield "next:"
    yield f"  {own_command('doctor', *given)}"
    if scope.is_user:  # what root's own daemon leaves the service's user could not write
        yield f"  {own_command('run', *given)}    # here and now; or as a service:"
    yield f"  {own_command('service', 'install', '--now', *user, *given)}"
