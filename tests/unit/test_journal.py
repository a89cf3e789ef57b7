"""What systemd's journal is sent, over a real socket that stands in for it."""

from __future__ import annotations

import json
import logging
import os
import socket
from typing import TYPE_CHECKING, TextIO

import pytest
import structlog

from nptwatch.journal import is_journal
from nptwatch.logs import configure_logs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Listener:
    """Listens as journald does, and reads its protocol."""

    def __init__(self, address: Path) -> None:
        self.address = str(address)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(10)

    def entry(self) -> dict[str, str]:
        """Give the next entry."""
        left, fields = self._socket.recv(2**20), {}
        while left:
            name, _, left = left.partition(b"\n")
            if b"=" in name:
                name, _, value = name.partition(b"=")
            else:
                size = int.from_bytes(left[:8], "little")
                value, left = left[8 : 8 + size], left[8 + size :]
                assert left.startswith(b"\n")
                left = left[1:]
            fields[name.decode()] = value.decode()
        return fields

    def is_quiet(self) -> bool:
        """Say if nothing more has come."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(1)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    """Give a listener."""
    listener = Listener(tmp_path / "journal")
    yield listener
    listener.close()


@pytest.fixture
def stderr(tmp_path: Path) -> Iterator[TextIO]:
    """Give what stands for standard error, and can be read again."""
    with (tmp_path / "stderr").open("w+") as stream:
        yield stream
    structlog.reset_defaults()


def env_for(stream: TextIO) -> dict[str, str]:
    """Give the environment of a service whose standard error is the journal's."""
    status = os.fstat(stream.fileno())
    return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}


def configure(listener: Listener, stream: TextIO, form: str = "auto") -> None:
    """Set up logs as a service has them."""
    configure_logs(form=form, stream=stream, env=env_for(stream), journal_at=listener.address)


def written(stream: TextIO) -> str:
    """Give what was written to standard error."""
    stream.flush()
    stream.seek(0)
    return stream.read()


def test_an_event_is_fields(listener: Listener, stderr: TextIO) -> None:
    """Each by its name, the message for people, the level as syslog's; nothing on standard error."""
    configure(listener, stderr)
    structlog.contextvars.bind_contextvars(worker="host-0")
    structlog.get_logger().info(
        "job_done", run="my run", step=400, grade="GOOD", mse=0.05, error=None, **{"odd-key": [1]}
    )
    assert listener.entry() == {
        "MESSAGE": 'job_done run="my run" step=400 grade=GOOD mse=0.05 odd-key=[1] worker=host-0',
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "nptwatch",
        "NPTWATCH_EVENT": "job_done",
        "NPTWATCH_RUN": "my run",
        "NPTWATCH_STEP": "400",
        "NPTWATCH_GRADE": "GOOD",
        "NPTWATCH_MSE": "0.05",
        "NPTWATCH_ODD_KEY": "[1]",
        "NPTWATCH_WORKER": "host-0",
    }
    assert written(stderr) == ""


@pytest.mark.parametrize(
    ("level", "priority"), [("warning", "4"), ("error", "3"), ("critical", "2")]
)
def test_levels_are_priorities(
    level: str, priority: str, listener: Listener, stderr: TextIO
) -> None:
    """`journalctl --priority warning` shows what is one."""
    configure(listener, stderr)
    structlog.get_logger().debug("not_shown")
    getattr(structlog.get_logger(), level)("something")
    assert listener.entry()["PRIORITY"] == priority
    assert listener.is_quiet()


def test_lines_of_a_value_stay_in_it(listener: Listener, stderr: TextIO) -> None:
    """A path with a line break makes no field of its own; a traceback is part of the message."""
    configure(listener, stderr)
    path = "/runs/x\nPRIORITY=0\nNPTWATCH_RUN=other"
    try:
        int("x")
    except ValueError:
        structlog.get_logger().exception("chore_failed", path=path, half="\ud800")
    entry = listener.entry()
    assert (entry["NPTWATCH_PATH"], entry["PRIORITY"]) == (path, "3")
    assert "NPTWATCH_RUN" not in entry
    first, _, trace = entry["MESSAGE"].partition("\n")
    assert first.startswith('chore_failed path="/runs/x\\nPRIORITY=0')
    assert trace.startswith("Traceback")
    assert "ValueError: invalid literal" in trace


def test_libraries_speak_to_the_journal_too(listener: Listener, stderr: TextIO) -> None:
    """What the standard library's loggers say is an entry, and no line besides."""
    configure(listener, stderr)
    logging.getLogger("library").warning("it is %s", "odd")
    entry = listener.entry()
    assert (entry["NPTWATCH_EVENT"], entry["PRIORITY"]) == ("it is odd", "4")
    assert written(stderr) == ""


@pytest.mark.parametrize("why", ["too long", "nobody listens"])
def test_what_the_journal_does_not_take_is_written(
    why: str, listener: Listener, stderr: TextIO
) -> None:
    """As a line of JSON on standard error, which the journal reads as well; then it is tried again."""
    configure(listener, stderr)
    if why == "nobody listens":
        os.rename(listener.address, f"{listener.address}.gone")  # noqa: PTH104 - a socket's name
    structlog.get_logger().error("failed", text="x" * (2**21 if why == "too long" else 1))
    line = json.loads(written(stderr))
    assert (line["event"], line["level"]) == ("failed", "error")
    if why == "nobody listens":
        os.rename(f"{listener.address}.gone", listener.address)  # noqa: PTH104
    structlog.get_logger().error("next")
    assert listener.entry()["NPTWATCH_EVENT"] == "next"


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_form_that_was_asked_for_is_kept(form: str, listener: Listener, stderr: TextIO) -> None:
    """Only "auto" asks whether the journal listens."""
    configure(listener, stderr, form)
    structlog.get_logger().info("something")
    assert "something" in written(stderr)
    assert listener.is_quiet()


def test_another_standard_error_is_not_the_journals(stderr: TextIO, tmp_path: Path) -> None:
    """The variable is inherited by who writes elsewhere: it names device and inode for that."""
    assert is_journal(stderr, env_for(stderr))
    assert not is_journal(stderr, {})
    with (tmp_path / "elsewhere").open("w") as elsewhere:
        assert not is_journal(elsewhere, env_for(stderr))
    assert not is_journal(elsewhere, env_for(stderr)), "it is closed"
