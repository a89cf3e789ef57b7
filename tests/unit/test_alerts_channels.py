"""The log and the user's command as channels, with real programs."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from nptwatch.alerts.channels import LogChannel, channel_names, make_channels
from nptwatch.alerts.commands import CommandChannel
from nptwatch.channel_settings import CommandChannelSettings
from nptwatch.errors import ConfigError, DeliveryError
from nptwatch.store.records import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable

BIG = "x" * 1_000_000


def delivery(**more: object) -> Delivery:
    """A delivery whose payload has `more`."""
    return Delivery(
        outbox_id=1,
        event_id="e-1",
        channel="command",
        kind="reached_good",
        payload={"kind": "reached_good", "run": "run1", "mse": 0.08, **more},
        attempts=0,
    )


def python(program: str, *arguments: str) -> list[str]:
    """Command line of a small program."""
    return [sys.executable, "-S", "-c", program, *arguments]


def channel(program: str, *arguments: str, timeout: float = 20.0) -> CommandChannel:
    """A command channel that runs a small program."""
    return CommandChannel(
        "command", python(program, *arguments), timeout_seconds=timeout, env=os.environ
    )


def missing() -> CommandChannel:
    """A command channel whose program is not there."""
    return CommandChannel("command", ["/no/such/program"], timeout_seconds=5, env=os.environ)


def is_running(pid: int) -> bool:
    """Whether a process lives; a zombie that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def poll_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition; fail when it takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_the_log_channel_logs_the_event_with_its_id() -> None:
    """An alert is one `alert_raised` event, shown even where the log is set to warnings."""
    with capture_logs() as logs:
        LogChannel().send(delivery())

    assert logs == [
        {
            "event": "alert_raised",
            "log_level": "warning",
            "event_id": "e-1",
            "kind": "reached_good",
            "run": "run1",
            "mse": 0.08,
        }
    ]


def test_the_command_gets_one_json_object_on_standard_input(tmp_path: Path) -> None:
    """The command reads the payload and the event id; arguments go through no shell."""
    program = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read() + sys.argv[2])"

    channel(program, str(tmp_path / "got"), "$HOME; true").send(delivery())

    line, rest = (tmp_path / "got").read_text().split("\n")
    assert json.loads(line) == {
        "event_id": "e-1",
        "kind": "reached_good",
        "run": "run1",
        "mse": 0.08,
    }
    assert rest == "$HOME; true"


def test_a_command_that_reads_nothing_is_fine() -> None:
    """A program may ignore a large event and close its input."""
    channel("import os; os.close(0)").send(delivery(text=BIG))


def test_a_failing_command_is_an_error_with_the_end_of_what_it_said() -> None:
    """Exit code and the tail of standard error are kept, however much it wrote."""
    program = "import sys; sys.stderr.write('noise' * 100_000 + ' no such host'); sys.exit(3)"

    with pytest.raises(DeliveryError, match=r"ended with exit code 3: .*no such host$") as caught:
        channel(program).send(delivery())

    assert len(str(caught.value)) < 2200


def test_a_missing_command_is_an_error() -> None:
    """A program that is not there is a failed delivery, not a crash."""
    with pytest.raises(DeliveryError, match="could not be started: No such file"):
        missing().send(delivery())
    with pytest.raises(
        ConfigError, match=r"channels\.command\.command: no program /no/such/program"
    ):
        missing().check()
    channel("pass").check()


def test_a_hanging_command_is_killed_with_its_children(tmp_path: Path) -> None:
    """The time-out kills the whole process group."""
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])\n"
        "open(sys.argv[1], 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )

    with pytest.raises(DeliveryError, match=r"was killed after 1\.5 s"):
        channel(program, str(tmp_path / "pid"), timeout=1.5).send(delivery())

    pid = int((tmp_path / "pid").read_text())
    poll_until(lambda: not is_running(pid))


def test_a_child_left_behind_does_not_hold_up_the_sender(tmp_path: Path) -> None:
    """A command that ends well is delivered though its child still has standard error open."""
    program = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])\n"
        "open(sys.argv[1], 'w').write(str(child.pid))\n"
        "import os; os._exit(0)"
    )
    channel(program, str(tmp_path / "pid"), timeout=60).send(delivery())

    pid = int((tmp_path / "pid").read_text())
    assert is_running(pid)
    os.kill(pid, 9)


def test_close_breaks_off_a_running_command_and_refuses_the_next(tmp_path: Path) -> None:
    """A stopping daemon need not wait for a slow command; the delivery counts as failed."""
    slow = channel(
        "import sys, time; open(sys.argv[1], 'w'); time.sleep(600)",
        str(tmp_path / "up"),
        timeout=60,
    )
    errors: list[str] = []

    def send() -> None:
        with pytest.raises(DeliveryError) as caught:
            slow.send(delivery())
        errors.append(str(caught.value))

    thread = threading.Thread(target=send, name="test-sender")
    thread.start()
    poll_until((tmp_path / "up").exists)
    slow.close()
    thread.join(20)

    assert not thread.is_alive()
    assert errors[0].endswith("ended with exit code -9")
    with pytest.raises(DeliveryError, match="the daemon stops"):
        slow.send(delivery())


def test_the_log_is_always_a_channel_and_others_have_the_names_of_the_settings() -> None:
    """Without settings there is the log alone; the rules hear the same names."""
    assert [one.name for one in make_channels({}, env={})] == ["log"]
    settings = {"tell-me": CommandChannelSettings(type="command", command=("true",))}
    assert [one.name for one in make_channels(settings, env={})] == ["log", "tell-me"]
    assert channel_names(settings) == ("log", "tell-me")
