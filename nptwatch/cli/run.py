"""`nptwatch run`: the daemon."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    RootsArgument,
    StateDirOption,
    require_roots,
    settings_of,
)


def run(
    roots: RootsArgument = None,
    *,
    base_model: Annotated[
        str | None, typer.Option(help="Base model: folder or hub name. Default: as runs name it.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:<n>.")] = None,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Watch directories and measure every new checkpoint, until told to stop.

    SIGTERM or Ctrl-C: finish or hand back the running job, exit 0. SIGHUP: read settings again.

    Example: nptwatch run ~/experiments --base-model meta-llama/Llama-3.2-1B
    """
    from nptwatch.logs import configure_logs
    from nptwatch.service.daemon import Daemon

    load = partial(
        settings_of,
        config,
        state_dir,
        database_url,
        watch__roots=roots or None,
        base__model=base_model,
        worker__device=device,
    )
    settings = load()
    require_roots(settings)
    configure_logs(level=settings.log.level, form=settings.log.form)
    raise typer.Exit(Daemon(settings, loader=load).run())
