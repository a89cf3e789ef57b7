"""The service's pieces one by one: lock, handover, schedule, building."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs
from watching import until

from nptwatch.errors import ConfigError, DatabaseError, DeliveryError, SchemaError
from nptwatch.service.build import open_stores, request_of
from nptwatch.service.handover import (
    dump_settings,
    parse_settings,
    read_line,
    worker_environment,
)
from nptwatch.service.lock import DaemonLocks
from nptwatch.service.schedule import Chore, Schedule
from nptwatch.settings import DatabaseSettings, Settings

if TYPE_CHECKING:
    from pathlib import Path

SECRET_URL = "postgresql://me:hunter2@db/npt"  # noqa: S105


def test_the_daemon_loads_no_torch() -> None:
    """Watcher, sender and supervisor stay small: only workers load torch."""
    program = (
        "import sys, nptwatch.service.daemon, nptwatch.watch.watcher\n"
        "print([name for name in ('torch', 'transformers', 'alembic') if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert said.stdout.strip() == "[]"


def test_settings_survive_the_handover_whole(tmp_path: Path) -> None:
    """A worker sees the very settings of its daemon, secrets included, whatever its environment."""
    settings = Settings(
        state_dir=tmp_path, database=DatabaseSettings.model_validate({"url": SECRET_URL})
    )

    received = parse_settings(dump_settings(settings))

    assert received == settings
    assert received.database_url == SECRET_URL


def test_a_line_that_is_no_settings_tells_no_secret() -> None:
    """The error does not quote what it was given."""
    with pytest.raises(ConfigError) as caught:
        parse_settings(f'{{"database": {{"url": "{SECRET_URL}", "x": 1}}}}'.encode())

    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_reading_the_settings_leaves_later_nudges_in_the_pipe() -> None:
    """The life line is read to the end of its first line and no further."""
    reader, writer = os.pipe()
    os.write(writer, b"{}\nnudge")

    assert read_line(reader) == b"{}\n"
    assert os.read(reader, 10) == b"nudge"
    os.close(writer)
    assert read_line(reader) == b""
    os.close(reader)


def test_a_workers_environment_has_no_settings() -> None:
    """The database's password is not left lying in /proc/<pid>/environ."""
    env = {"PATH": "/bin", "NPTWATCH_DATABASE__URL": SECRET_URL, "HF_HOME": "/models"}

    assert worker_environment(env) == {"PATH": "/bin", "HF_HOME": "/models"}


def test_locks_are_exclusive_taken_together_and_let_go(tmp_path: Path) -> None:
    """A daemon may take its own locks again; another gets none of them while one is held."""
    one, two = tmp_path / "one.lock", tmp_path / "two.lock"
    mine, other = DaemonLocks(), DaemonLocks()
    mine.take([two])
    mine.take([one, two])
    mine.close()
    mine.take([two])

    with pytest.raises(ConfigError, match=f"process {os.getpid()}"):
        other.take([one, two])
    third = DaemonLocks()
    third.take([one])

    third.close()
    mine.close()


def test_chores_run_at_once_and_again_and_never_overlap() -> None:
    """A slow chore holds up neither itself into overlap nor another chore."""
    running = threading.Semaphore(1)
    overlapped, quick, let_go = threading.Event(), [], threading.Event()

    def slow() -> None:
        if not running.acquire(blocking=False):
            overlapped.set()
        let_go.wait(10)
        running.release()

    schedule = Schedule(
        [
            Chore(name="slow", do=slow, every_seconds=0.05),
            Chore(name="quick", do=lambda: quick.append(1), every_seconds=0.05),
        ]
    )
    schedule.start()
    until(lambda: len(quick) > 5)
    assert schedule.is_alive()
    let_go.set()
    schedule.stop()

    assert not schedule.is_alive()
    assert not overlapped.is_set()


def test_an_outage_is_logged_once_and_once_when_it_is_over() -> None:
    """However many chores and turns miss the database."""
    turns: list[int] = []

    def chore() -> None:
        turns.append(1)
        if len(turns) < 8:
            msg = "gone"
            raise DatabaseError(msg)

    with capture_logs() as logs:
        schedule = Schedule(
            [Chore(name=name, do=chore, every_seconds=0.05) for name in ("one", "two")]
        )
        schedule.start()
        until(lambda: len(logs) > 1)
        until(lambda: len(turns) > 20)  # nothing more is said
        schedule.stop()

    assert [entry["event"] for entry in logs] == ["database_lost", "database_back"]


def test_a_chore_that_fails_is_logged_and_done_again() -> None:
    """No fault of one turn ends the chore."""
    turns: list[int] = []

    def chore() -> None:
        turns.append(1)
        if len(turns) == 1:
            msg = "oops"
            raise ValueError(msg)

    with capture_logs() as logs:
        schedule = Schedule([Chore(name="one", do=chore, every_seconds=0.05)])
        schedule.start()
        until(lambda: len(turns) > 2)
        schedule.stop()

    assert [(entry["event"], entry["chore"]) for entry in logs] == [("chore_failed", "one")]


def test_what_a_chore_says_in_words_is_logged_once() -> None:
    """Until it says something else, or works again."""
    said = ["no disk", "no disk", "no disk", "no key", "no key"]
    turns: list[int] = []

    def chore() -> None:
        turns.append(1)
        if len(turns) <= len(said):
            raise DeliveryError(said[len(turns) - 1])

    with capture_logs() as logs:
        schedule = Schedule([Chore(name="one", do=chore, every_seconds=0.05)])
        schedule.start()
        until(lambda: len(turns) > len(said) + 2)
        schedule.stop()

    assert [(entry["event"], entry.get("error")) for entry in logs] == [
        ("chore_failed", "no disk"),
        ("chore_failed", "no key"),
        ("chore_works_again", None),
    ]


def test_the_first_start_creates_folder_and_schema(tmp_path: Path) -> None:
    """No set-up: SQLite comes to be; without leave to migrate it is asked for."""
    settings = Settings(state_dir=tmp_path / "new/state")
    with pytest.raises(SchemaError, match="nptwatch db upgrade"):
        open_stores(settings)

    open_stores(settings, migrate=True).close()
    stores = open_stores(settings)

    assert stores.history.runs() == []
    stores.close()


def test_what_is_measured_depends_on_the_settings_that_change_numbers(tmp_path: Path) -> None:
    """The request names the profile and changes with the residual rule, not with the device."""
    plain = Settings(state_dir=tmp_path)
    other_rule = Settings(state_dir=tmp_path, diagnostic={"residual": "keep"})  # type: ignore[arg-type]
    other_device = Settings(state_dir=tmp_path, worker={"device": "cuda:1"})  # type: ignore[arg-type]

    assert request_of(plain).profile == "quick"
    assert request_of(plain) == request_of(other_device)
    assert request_of(plain) != request_of(other_rule)
