"""A run's whole story with two daemons on one database, killed again and again.

Receivers must hold exactly the events that the story has, and no secret may be read anywhere.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from receivers import Answer, Server, die, serving
from serving import DaemonProcess, Place, is_running
from sqlalchemy.engine import make_url
from watching import until

from nptwatch.store.engine import Database
from nptwatch.store.migrate import upgrade
from nptwatch.store.records import JobState, OutboxState
from nptwatch.store.tables import Base

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postgres import Postgres

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("NPTWATCH_TEST_SEED") or 11)
LONG = 90.0
KEY = "whsec_c2lnbmluZy1rZXktb2YtdGhpcnR5LXR3by1ieXRlcyE="
SECRETS = ("s3cr3t", "c2lnbmluZy1rZXkt")
NOTE = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')"

GAP_SECONDS = 2
"""How far apart the checkpoints say that they were written; three of these are silence."""

LAST_STEP = 1100
"""Only this one says that it was written after the run was seen: before it there is no silence."""

STORY = (
    (100, 0.9, set()),
    (200, 0.4, set()),
    (300, 0.08, {"reached_good"}),
    (400, 0.01, {"reached_excellent"}),
    (500, 0.4, set()),
    (600, 0.3, set()),
    (700, 0.4, {"regressed"}),
    (800, None, {"invalid"}),
    (900, 0.4, {"recovered"}),
    (1000, 0.4, set()),
    (LAST_STEP, 0.4, set()),
)
"""Step, MSE (None: NaN), and what people are told of it."""

SILENCE = {(LAST_STEP, "silent"), (1200, "recovered")}
"""No checkpoint comes after the last for long; then one does."""


class Pair:
    """Two daemons that watch one directory, each of a host of its own as far as they know."""

    def __init__(self, folder: Path, url: str, channels: dict[str, Any]) -> None:
        self._chance = random.Random(SEED)  # noqa: S311 - whom to kill is no secret
        self._began = time.time()
        self._channels = channels
        self.places: list[Place] = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            self.places.append(Place(folder / name, url))
        self.places[1].root = self.root = self.places[0].root
        self.daemons = [self._start(place) for place in self.places]
        self.dead: list[DaemonProcess] = []
        self.workers_killed = 0

    def _start(self, place: Place) -> DaemonProcess:
        settings = place.settings(
            worker={"lease_seconds": 2.0, "max_attempts": 99},
            channels=self._channels,
            alerts={"silent_at_least_seconds": 1.0, "max_attempts": 99},
            web={"listen": "127.0.0.1:0"},
        )
        return DaemonProcess(place, settings)

    def strike(self, *, whole: bool) -> None:
        """Kill a worker or a whole daemon, at some moment of what goes on; a daemon starts again."""
        at = self._chance.randrange(2)
        daemon = self.daemons[at]
        time.sleep(self._chance.uniform(0.0, 0.6))  # the moment is the point
        if whole:
            daemon.process.kill()
            daemon.process.wait()
            self.dead.append(daemon)
            self.daemons[at] = self._start(self.places[at])
            return
        daemon.wait_for("worker_ready", seconds=LONG)
        ready = [int(entry["pid"]) for entry in daemon.log("worker_ready")]
        for pid in filter(is_running, ready[-1:]):
            os.kill(pid, signal.SIGKILL)
            self.workers_killed += 1

    def write(self, step: int, mse: float | None) -> None:
        """Write a checkpoint that says it was written a while after the one before."""
        weights = self.places[0].checkpoint(step, mse=mse)
        if step < LAST_STEP:
            written = self._began - 60 + step / 100 * GAP_SECONDS
            os.utime(weights, (written, written))

    def pages(self) -> str:
        """Give all that the daemons serve."""
        found = []
        for daemon in self.daemons:
            address = daemon.wait_for("web_started")["listen"]
            for page in ("metrics", "health", "ready"):
                with urllib.request.urlopen(f"http://{address}/{page}", timeout=30) as answer:
                    found.append(answer.read().decode())
        return "\n".join(found)

    def logs(self) -> str:
        """Give all that daemons and workers logged."""
        return "\n".join(daemon.text() for daemon in [*self.daemons, *self.dead])

    def close(self) -> None:
        """End all."""
        for daemon in [*self.daemons, *self.dead]:
            daemon.close()
        for place in self.places:
            place.close()


@pytest.fixture
def url(postgres: Postgres) -> str:
    """Give a database by a URL with a password, which the test's server does not ask for."""
    url = make_url(postgres.new()).set(password="s3cr3t-password")  # noqa: S106
    text = url.render_as_string(hide_password=False)
    database = Database(text)
    upgrade(database)
    database.close()
    return text


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Give a webhook's receiver that fails now and then."""
    echo = Answer(status=500, body=b"no hook at /hook/s3cr3t-path-token?code=s3cr3t-query")
    with serving(echo, Answer(), Answer(act=die), Answer(), echo, Answer()) as server:
        monkeypatch.setenv("HOOK_URL", server.url())
        monkeypatch.setenv("HOOK_KEY", KEY)
        yield server


def told_by_hook(server: Server) -> dict[str, tuple[int, str]]:
    """Give the events that arrived by their ids, for a receiver that honours these."""
    return _stories(json.loads(got.body) | {"event_id": got.event_id} for got in server.got)


def told_by_command(file: Path) -> dict[str, tuple[int, str]]:
    """Give the events that the command was run with."""
    if not file.exists():
        return {}
    return _stories(json.loads(line) for line in file.read_text().splitlines() if line)


def _stories(events: Any) -> dict[str, tuple[int, str]]:  # Any: dicts
    found = defaultdict(set)
    for event in events:
        found[event["event_id"]].add((event["step"], event["kind"]))
    assert {len(stories) for stories in found.values()} <= {1}, "an id is one event's"
    return {event_id: next(iter(stories)) for event_id, stories in found.items()}


def asked(folder: Path, url: str) -> str:
    """Give all that commands say."""
    config = folder / "nptwatch.toml"
    config.write_text(
        '[channels.hook]\ntype = "webhook"\nurl_env = "HOOK_URL"\nkey_env = "HOOK_KEY"\n'
    )
    env = os.environ | {"NPTWATCH_CONFIG": str(config), "NPTWATCH_DATABASE__URL": url}
    found = []
    for verb in (
        ["status", "--chores"],
        ["status", "--json"],
        ["alerts", "list", "--json"],
        ["jobs", "list", "--json"],
        ["config", "show"],
        ["db", "check"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "nptwatch", *verb],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (verb, done.stderr)
        found += [done.stdout, done.stderr]
    return "\n".join(found)


def rows(database: Database) -> str:
    """Give every row of every table as text."""
    with database.read() as connection:
        return "\n".join(
            f"{table.name} {tuple(row)}"
            for table in Base.metadata.sorted_tables
            for row in connection.execute(table.select())
        )


def test_receivers_hold_exactly_the_events_of_a_runs_story(
    tmp_path: Path, url: str, hook: Server
) -> None:
    """Getting better, falling back, NaN, silence, recovery: each told, once, whoever is killed."""
    note = tmp_path / "told"
    channels = {
        "hook": {"type": "webhook", "url_env": "HOOK_URL", "key_env": "HOOK_KEY"},
        "note": {"type": "command", "command": [sys.executable, "-S", "-c", NOTE, str(note)]},
    }
    expected: set[tuple[int, str]] = set()
    with ExitStack() as stack:
        pair = Pair(tmp_path, url, channels)
        stack.callback(pair.close)
        for daemon in pair.daemons:
            daemon.wait_for("watcher_started", seconds=LONG)
        view = pair.places[0]
        for number, (step, mse, kinds) in enumerate(STORY):
            pair.write(step, mse)
            if number % 4 != 3:
                pair.strike(whole=number % 2 == 1)
            until(lambda step=step: view.job_state(step) == JobState.DONE, seconds=LONG)
            expected |= {(step, kind) for kind in kinds}
        until(lambda: set(told_by_hook(hook).values()) > expected, seconds=LONG)  # and silence
        (pair.root / "run1/trainer_state.json").write_text('{"max_steps": 1200}')
        pair.write(1200, 0.4)  # and training has ended: that it is quiet then is no silence
        expected |= SILENCE

        def settled() -> bool:
            open_states = (OutboxState.PENDING, OutboxState.SENDING)
            counts = view.stores.outbox.counts()
            waits = sum(count for (_, state), count in counts.items() if state in open_states)
            heard = set(told_by_hook(hook).values()), set(told_by_command(note).values())
            return waits == 0 and all(expected <= each for each in heard)

        until(settled, seconds=LONG)
        seen = [rows(view.stores.database), pair.pages(), asked(tmp_path, url)]
        assert [daemon.stop() for daemon in pair.daemons] == [0, 0]
        seen.append(pair.logs())

    assert len(pair.dead) > 1
    assert pair.workers_killed > 1
    by_hook, by_command = told_by_hook(hook), told_by_command(note)
    assert sorted(by_hook.values()) == sorted(expected), "each once, and nothing else"
    assert by_command == by_hook
    assert [secret for secret in SECRETS for text in seen if secret in text] == []
    assert all("reached_excellent" in text for text in (seen[0], seen[2], seen[3]))
