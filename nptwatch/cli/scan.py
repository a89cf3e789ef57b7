"""`nptwatch scan`: the watcher without workers."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.screen import Column, Screen, as_mapping, print_json, size_text
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    RootsArgument,
    StateDirOption,
    has_database,
    reading,
    require_roots,
    settings_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.settings import Settings
    from nptwatch.watch.survey import Verdict
    from nptwatch.watch.watcher import Watcher


def scan(
    roots: RootsArgument = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Look once, then end.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done with each file, and why not.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Find checkpoints and queue them, without measuring any.

    Goes on until Ctrl-C, unless --once or --dry-run is given.

    Example: nptwatch scan --dry-run ~/experiments
    """
    settings = settings_of(config, state_dir, database_url, watch__roots=roots or None)
    require_roots(settings)
    if dry_run:
        _print_verdicts(_survey(settings), as_json=as_json)
        return
    from nptwatch.logs import configure_logs
    from nptwatch.service.build import build_watcher, open_stores

    configure_logs(level="warning" if once else settings.log.level, form=settings.log.form)
    stores = open_stores(settings, migrate=True)
    try:
        watcher = build_watcher(settings, stores, lambda: None)
        if once:
            _scan_once(watcher, as_json=as_json)
        else:
            _scan_on(watcher)
    finally:
        stores.close()


def _survey(settings: Settings) -> list[Verdict]:
    from nptwatch.watch.survey import survey

    if not has_database(settings):
        return survey(settings.watch, is_named=settings.paths.is_named)
    with reading(settings) as stores:
        return survey(settings.watch, stores.catalog.known_files, settings.paths.is_named)


def _scan_once(watcher: Watcher, *, as_json: bool) -> None:
    report = watcher.scan_once()
    if as_json:
        print_json(report)
    else:
        counts = as_mapping(report)
        counts.pop("unreachable_roots")
        print(", ".join(f"{count} {name}" for name, count in counts.items()))
    for root in report.unreachable_roots:
        typer.echo(f"cannot be listed: {root}", err=True)


def _scan_on(watcher: Watcher) -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    watcher.run(stop)


def _print_verdicts(verdicts: Sequence[Verdict], *, as_json: bool) -> None:
    if as_json:
        print_json(verdicts)
        return
    if not verdicts:
        typer.echo("no checkpoint found", err=True)
        return
    Screen.of_stdout().table(
        (
            Column(title="ACTION"),
            Column(title="STEP", right=True),
            Column(title="SIZE", right=True),
            Column(title="PATH", shrinks=True),
            Column(title="WHY", shrinks=True),
        ),
        [
            (
                verdict.action,
                verdict.step,
                None if verdict.size_bytes is None else size_text(verdict.size_bytes),
                verdict.path,
                verdict.reason,
            )
            for verdict in verdicts
        ],
    )
