"""`nptwatch worker`: workers on a host without a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    StateDirOption,
    require_database,
    settings_of,
)

if TYPE_CHECKING:
    from nptwatch.service.build import Stores
    from nptwatch.service.worker_host import Team
    from nptwatch.settings import Settings


def worker(
    *,
    workers: Annotated[int, typer.Option(min=1, help="How many workers.")] = 1,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when nothing is queued.")
    ] = False,
    max_minutes: Annotated[
        float | None, typer.Option(min=0.01, help="End after so long; a running job may finish.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:<n>.")] = None,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Measure what a daemon elsewhere queues; watch nothing.

    Needs the daemon's settings and database, and sees the checkpoints; where their folders have
    other names on this host, `path_map` says so.
    SIGTERM or Ctrl-C: finish or hand back the running jobs, exit 0.

    Example: nptwatch worker --workers 2 --until-empty
    """
    settings = settings_of(
        config, state_dir, database_url, worker__count=workers, worker__device=device
    )
    require_database(settings)
    from nptwatch.logs import configure_logs
    from nptwatch.service.build import open_stores, require_writable
    from nptwatch.service.worker_host import WorkerHost

    configure_logs(level=settings.log.level, form=settings.log.form)
    require_writable(settings.state_dir)
    stores = open_stores(settings, application="nptwatch worker")
    try:
        team = _local(settings, stores, until_empty=until_empty)
        seconds = None if max_minutes is None else max_minutes * 60
        raise typer.Exit(WorkerHost(settings, stores, team, max_seconds=seconds).run())
    finally:
        stores.close()


def _local(settings: Settings, stores: Stores, *, until_empty: bool) -> Team:
    from nptwatch.service.supervisor import Supervisor

    return Supervisor(settings, stores, arguments=["--until-empty"] if until_empty else [])
