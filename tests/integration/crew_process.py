"""A daemon's crew without its lock, so that two can share one database file.

Usage: python crew_process.py settings.json

It works until standard input ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nptwatch.logs import configure_logs
from nptwatch.service.crew import Crew
from nptwatch.service.handover import parse_settings


def main() -> None:
    """Run watcher, chores and sender of these settings."""
    settings = parse_settings(Path(sys.argv[1]).read_bytes())
    configure_logs(level=settings.log.level, form="json")
    crew = Crew(settings, worker_arguments=())
    crew.start()
    sys.stdin.read()
    crew.stop(lambda: False)
    if crew.health.dead() != ["watcher", "scheduler"]:
        sys.exit("the crew did not end in good order")


if __name__ == "__main__":
    main()
