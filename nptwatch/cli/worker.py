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
from nptwatch.errors import ConfigError
from nptwatch.settings import masked_url

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
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Place the workers on this Ray cluster: HOST:PORT, auto (on one of its nodes), or "
            "local (a Ray of their own).",
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            min=0, help="With --ray: GPUs of each worker, as 0.25. Default: 1; 0 on device cpu."
        ),
    ] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=AMOUNT", help="With --ray: what else each needs of a node."),
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
    count = workers if ray is None else None
    settings = settings_of(
        config, state_dir, database_url, worker__count=count, worker__device=device
    )
    if ray is not None:
        _require_fit_for_ray(settings, database_url)
    elif gpus_per_worker is not None or resource:
        raise ConfigError("--gpus-per-worker and --resource are for workers on Ray: add --ray")
    require_database(settings)
    from nptwatch.logs import configure_logs
    from nptwatch.service.build import open_stores, require_writable
    from nptwatch.service.worker_host import WorkerHost

    configure_logs(level=settings.log.level, form=settings.log.form)
    require_writable(settings.state_dir)
    stores = open_stores(settings, application="nptwatch worker")
    try:
        team = (
            _local(settings, stores, until_empty=until_empty)
            if ray is None
            else _on_ray(
                settings,
                stores,
                address=ray,
                workers=workers,
                gpus=_gpus(settings, gpus_per_worker),
                resources=_resources(resource or []),
                until_empty=until_empty,
            )
        )
        seconds = None if max_minutes is None else max_minutes * 60
        raise typer.Exit(WorkerHost(settings, stores, team, max_seconds=seconds).run())
    finally:
        stores.close()


def _local(settings: Settings, stores: Stores, *, until_empty: bool) -> Team:
    from nptwatch.service.supervisor import Supervisor

    return Supervisor(settings, stores, arguments=["--until-empty"] if until_empty else [])


def _on_ray(
    settings: Settings,
    stores: Stores,
    *,
    address: str,
    workers: int,
    gpus: float,
    resources: dict[str, float],
    until_empty: bool,
) -> Team:
    try:
        from nptwatch.service.ray_team import RayPlan, RayTeam, connect
    except ModuleNotFoundError as exc:
        if exc.name != "ray":
            raise
        raise ConfigError("Ray is not installed here: pip install 'nptwatch[ray]'") from exc
    connect(address)
    plan = RayPlan(workers=workers, gpus=gpus, resources=resources, until_empty=until_empty)
    return RayTeam(settings, stores, plan)


def _require_fit_for_ray(settings: Settings, database_url: str | None) -> None:
    """Hold that nodes can reach the database, and that nobody reads its password.

    Raises:
        ConfigError: one is not so.
    """
    if settings.sqlite_file is not None:
        raise ConfigError(
            "workers on Ray need a database that every node reaches: set database.url to a "
            "Postgres server (docs/operations.md)"
        )
    if database_url is not None and masked_url(database_url) != database_url:
        raise ConfigError(
            "Ray shows the command line of its drivers to all who see the cluster, and the "
            "database's password with it: set NPTWATCH_DATABASE__URL instead of --database-url"
        )


def _gpus(settings: Settings, given: float | None) -> float:
    if given is None:
        return 0.0 if settings.worker.device == "cpu" else 1.0
    if given > 1 and not given.is_integer():
        raise ConfigError(f"--gpus-per-worker takes a share (0.25) or whole GPUs, not {given:g}")
    return given


def _resources(given: list[str]) -> dict[str, float]:
    resources = {}
    for one in given:
        name, _, amount = one.partition("=")
        try:
            resources[name] = float(amount)
        except ValueError as exc:
            raise ConfigError(f"--resource takes NAME=AMOUNT, as npt=1, not {one}") from exc
    return resources
