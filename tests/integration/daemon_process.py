"""The real daemon in a process of its own: `python daemon_process.py settings.json diagnoser [seconds]`.

After so many seconds of silence its watcher is taken for hung.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nptwatch.errors import NptwatchError
from nptwatch.health import PATIENCE_SECONDS
from nptwatch.logs import configure_logs
from nptwatch.service.daemon import Daemon
from nptwatch.service.handover import parse_settings


def main() -> int:
    """Run the daemon with the settings of a JSON file; SIGHUP reads it again."""
    path = Path(sys.argv[1])
    patience = {"watcher": float(sys.argv[3])} if sys.argv[3:] else {}
    configure_logs(level=parse_settings(path.read_bytes()).log.level, form="json")
    try:
        return Daemon(
            parse_settings(path.read_bytes()),
            loader=lambda: parse_settings(path.read_bytes()),
            worker_arguments=("--diagnoser", sys.argv[2]),
            patience=PATIENCE_SECONDS | patience,
        ).run()
    except NptwatchError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
