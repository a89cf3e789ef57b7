"""`nptwatch db vacuum`: forget what is old, and tidy up."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.screen import print_json
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    StateDirOption,
    reading,
    settings_of,
)

if TYPE_CHECKING:
    from nptwatch.service.build import Stores
    from nptwatch.store.retention import Forgotten
    from nptwatch.store.upkeep import Vacuumed

_HEARD_OF_SECONDS = 300.0
_MIB = 1024 * 1024


def vacuum(
    *,
    keep_days: Annotated[
        int | None,
        typer.Option(min=0, help="Instead of database.keep_days; 0: forget nothing."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be forgotten.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Forget checkpoints gone for database.keep_days, count anew, give their space back.

    Each run's best and newest, every status change with its result, and what is on disk or waits
    are kept for ever. A SQLite file is made smaller only while no worker is at work.

    Example: nptwatch db vacuum --keep-days 90 --dry-run
    """
    settings = settings_of(config, state_dir, database_url, database__keep_days=keep_days)
    days = settings.database.keep_days
    with reading(settings) as stores:
        forgotten = _forget(stores, days, dry_run=dry_run)
        recounted = 0 if dry_run else stores.upkeep.recount()
        busy = None if dry_run else _busy(stores)
        vacuumed = None if dry_run or busy else stores.upkeep.vacuum()
    if as_json:
        print_json(
            {
                "keep_days": days,
                "dry_run": dry_run,
                "forgotten": asdict(forgotten),
                "recounted_runs": recounted,
                "vacuumed": None if vacuumed is None else asdict(vacuumed),
                "not_vacuumed_because": busy,
            }
        )
        return
    print(_forgotten_line(forgotten, days, dry_run=dry_run))
    if recounted:
        print(f"corrected the counts of {recounted} run{'' if recounted == 1 else 's'}")
    if vacuumed is not None:
        print(_vacuumed_line(vacuumed))
    if busy is not None:
        typer.echo(f"the file was not made smaller: {busy}", err=True)


def _forget(stores: Stores, days: int, *, dry_run: bool) -> Forgotten:
    from nptwatch.store.retention import Forgotten

    if not days:
        return Forgotten()
    pause = threading.Event().wait
    return stores.retention.forget(days, pause=pause, dry_run=dry_run)


def _busy(stores: Stores) -> str | None:
    """Say why a SQLite file must not be written anew: whoever writes would be refused too long."""
    alive = stores.workers.alive(_HEARD_OF_SECONDS) if stores.database.path is not None else []
    if not alive:
        return None
    return f"{len(alive)} worker{'' if len(alive) == 1 else 's'} at work; stop the daemon first"


def _forgotten_line(forgotten: Forgotten, days: int, *, dry_run: bool) -> str:
    if not days:
        return "nothing is forgotten: database.keep_days is 0 (see --keep-days)"
    counts = ", ".join(f"{count} {what}" for what, count in asdict(forgotten).items())
    return f"{'would forget' if dry_run else 'forgot'}, older than {days} days: {counts}"


def _vacuumed_line(vacuumed: Vacuumed) -> str:
    before, after = vacuumed.before_bytes / _MIB, vacuumed.after_bytes / _MIB
    return f"vacuumed: {before:.1f} MiB before, {after:.1f} MiB now"
