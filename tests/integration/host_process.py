"""`nptwatch worker` with a diagnoser of the tests: `python host_process.py settings.json [--flags]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nptwatch.errors import NptwatchError
from nptwatch.logs import configure_logs
from nptwatch.service.build import Stores, open_stores
from nptwatch.service.handover import parse_settings
from nptwatch.service.supervisor import Supervisor
from nptwatch.service.worker_host import PATIENCE_SECONDS, Team, WorkerHost

if TYPE_CHECKING:
    from nptwatch.settings import Settings

DIAGNOSER = "planned:PlanDiagnoser"


def main() -> int:
    """Run a host of workers with the settings of a JSON file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("settings", type=Path)
    parser.add_argument("--until-empty", action="store_true")
    parser.add_argument("--max-seconds", type=float)
    parser.add_argument("--ray", metavar="ADDRESS")
    parser.add_argument("--patience", type=float, default=PATIENCE_SECONDS)
    arguments = parser.parse_args()
    settings = parse_settings(arguments.settings.read_bytes())
    configure_logs(level=settings.log.level, form="json")
    try:
        stores = open_stores(settings)
        team = make_team(settings, stores, arguments)
        return WorkerHost(
            settings,
            stores,
            team,
            max_seconds=arguments.max_seconds,
            patience_seconds=arguments.patience,
        ).run()
    except NptwatchError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def make_team(settings: Settings, stores: Stores, arguments: argparse.Namespace) -> Team:
    """Build what the verb builds, with the tests' diagnoser."""
    if arguments.ray:
        from nptwatch.service.ray_team import RayPlan, RayTeam, connect

        connect(arguments.ray)
        plan = RayPlan(
            workers=settings.worker.count,
            gpus=0.25,
            until_empty=arguments.until_empty,
            diagnoser=DIAGNOSER,
        )
        return RayTeam(settings, stores, plan)
    more = ["--until-empty"] if arguments.until_empty else []
    return Supervisor(settings, stores, arguments=["--diagnoser", DIAGNOSER, *more])


if __name__ == "__main__":
    sys.exit(main())
