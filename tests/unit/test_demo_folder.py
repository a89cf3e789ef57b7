"""The demo's folder: what it may overwrite, who owns it, and the settings in it."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from nptwatch.channel_settings import CommandChannelSettings
from nptwatch.demo.children import Child, DemoError
from nptwatch.demo.folder import MARKER, DemoFolder
from nptwatch.errors import ConfigError
from nptwatch.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_a_foreign_folder_is_refused_untouched(tmp_path: Path) -> None:
    """A folder with anything in it that no demo made stays as it is."""
    (tmp_path / "state").mkdir()
    with (
        pytest.raises(ConfigError, match="not a former demo's"),
        DemoFolder(path=tmp_path).taken(),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_former_demo_is_replaced_but_nothing_else(tmp_path: Path) -> None:
    """What a demo made goes; a file that the user put beside it stays."""
    folder = DemoFolder(path=tmp_path / "new" / "demo")
    with folder.taken():
        folder.write_config()
        folder.alerts.write_text("{}\n")
        (folder.path / "notes.txt").write_text("mine")
    with folder.taken():
        left = sorted(path.name for path in folder.path.iterdir())
    assert left == [MARKER, "notes.txt"]


def test_a_folder_has_one_demo_at_a_time(tmp_path: Path) -> None:
    """A second demo is refused while the first, or a process it started, lives."""
    folder = DemoFolder(path=tmp_path / "demo")
    with folder.taken() as marker:
        child = sleeper(tmp_path, keep=marker.fileno())
        with pytest.raises(ConfigError, match="still runs"), folder.taken():
            pass
    with pytest.raises(ConfigError, match="still runs"), folder.taken():
        pass
    child.stop(seconds=10)
    with folder.taken() as marker:
        assert not marker.closed


def test_a_path_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    """A file where a folder should be is exit code 2, with the path."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match="file/demo cannot be used"),
        DemoFolder(path=tmp_path / "file" / "demo").taken(),
    ):
        pass


@pytest.mark.parametrize("name", ["demo", 'a "quoted" näme', "back\\slash", "emoji 🦙 del\x7f"])
def test_settings_load_whatever_the_folder_is_called(tmp_path: Path, name: str) -> None:
    """The settings file is TOML that says what was meant, odd characters and all."""
    folder = DemoFolder(path=tmp_path / name)
    with folder.taken():
        folder.write_config()
        settings = load_settings(folder.config, env={}, overrides={})
    assert settings.watch.roots == (folder.experiments,)
    assert settings.base.model == str(folder.base)
    assert settings.channels == {
        "file": CommandChannelSettings(type="command", command=("tee", "-a", str(folder.alerts)))
    }
    assert settings.state_dir / "nptwatch.db" == folder.database
    assert settings.base.local_files_only


def sleeper(folder: Path, *, keep: int, code: str = "import time; time.sleep(60)") -> Child:
    """Start a process that does nothing for long."""
    return Child(
        "sleeper", [sys.executable, "-c", code], log=folder / "log", env=os.environ, keep=keep
    )


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[int]:
    """Give a file descriptor to inherit."""
    with (tmp_path / "kept").open("w") as file:
        yield file.fileno()


def test_a_stopped_child_has_not_succeeded(tmp_path: Path, keep: int) -> None:
    """A process that SIGTERM ended is told apart from one that ended with 0."""
    child = sleeper(tmp_path, keep=keep)
    child.require_running()
    child.require_success()
    child.stop(seconds=10)
    assert not child.running
    with pytest.raises(DemoError, match="SIGTERM"):
        child.require_success()


def test_a_deaf_child_is_killed(tmp_path: Path, keep: int) -> None:
    """A process that ignores SIGTERM is gone after the time it was given."""
    deaf = f"import signal, time; signal.signal({signal.SIGTERM:d}, signal.SIG_IGN); "
    deaf += "open('ready', 'w').close(); time.sleep(60)"
    os.mkfifo(tmp_path / "ready")
    child = sleeper(
        tmp_path, keep=keep, code=deaf.replace("'ready'", repr(str(tmp_path / "ready")))
    )
    with (tmp_path / "ready").open():  # opens when the child has come so far
        pass
    child.stop(seconds=0.2)
    with pytest.raises(DemoError, match="SIGKILL"):
        child.require_success()


def test_a_failed_child_s_last_words_are_quoted(tmp_path: Path, keep: int) -> None:
    """The error has exit code and end of the log, so that nobody has to look for it."""
    child = sleeper(tmp_path, keep=keep, code="raise SystemExit('no luck')")
    child._process.wait(10)
    with pytest.raises(DemoError, match=r"exit code 1(.|\n)*no luck"):
        child.require_success()
    with pytest.raises(DemoError, match="unasked"):
        child.require_running()
