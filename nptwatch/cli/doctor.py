"""`nptwatch doctor`: does this machine have what the daemon needs?"""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.screen import Screen, print_json, printable
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    StateDirOption,
    loaded_by,
)

if TYPE_CHECKING:
    from nptwatch.doctor.finding import Finding

INDENT = 6

RootsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ROOT]...", help="Directories to watch; instead of watch.roots."),
]
"""Texts: of a path Typer asks the file system, which may hang."""


def doctor(
    roots: RootsArgument = None,
    *,
    send: Annotated[
        bool, typer.Option("--send", help="Send a test message through every channel.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Look at everything that the daemon needs, and say what to do about it.

    Each line is OK, WARN or FAIL; exit code 1 if one is FAIL. Nothing is written below the watched
    directories; a file is made in the state folder and removed. Run it as the daemon's user.

    Example: nptwatch doctor --config /etc/nptwatch/config.toml
    """
    from nptwatch.doctor.bounded import findings_of
    from nptwatch.doctor.examination import examination
    from nptwatch.doctor.finding import Mark

    loaded = loaded_by(config, state_dir, database_url, watch__roots=roots or None)
    checks = examination(loaded.settings, loaded.file, env=os.environ, send=send)
    screen = Screen.of_stdout()
    findings = []
    for finding in findings_of(checks):
        findings.append(finding)
        if not as_json:
            _print(finding, screen)
    marks = Counter(finding.mark for finding in findings)
    if as_json:
        worst = next(mark for mark in (Mark.FAIL, Mark.WARN, Mark.OK) if marks[mark])
        print_json({"mark": worst, "findings": findings})
    else:
        screen.say(", ".join(f"{marks[mark]} {mark}" for mark in Mark))
    if marks[Mark.FAIL]:
        raise typer.Exit(1)


def _print(finding: Finding, screen: Screen) -> None:
    """Print a finding and its fix; a terminal gets no line that is broken in mid word."""
    first, *more = _wrapped(f"{finding.check}: {finding.text}", screen)
    screen.say(screen.painted(finding.mark) + " " * (INDENT - len(finding.mark)) + first)
    lines = more + ([] if finding.fix is None else _wrapped(f"fix: {finding.fix}", screen))
    for line in lines:
        screen.say(" " * INDENT + line)
    screen.out.flush()


def _wrapped(text: str, screen: Screen) -> list[str]:
    lines = [printable(line.strip()) for line in text.splitlines()]
    if screen.width is None:
        return lines
    width = max(screen.width - INDENT, 20)
    return [
        part
        for line in lines
        for part in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)
    ]
