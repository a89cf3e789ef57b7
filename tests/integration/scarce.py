"""Disks that are full or read-only, for real: in a mount namespace of the test's own, or by rights.

Where a test needs a mount, or must be without root's right to write anywhere, it is run once more
in a process that has it so: see `again`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_WITHIN = "NPTWATCH_TEST_WITHIN"
MOUNTS, RIGHTS = "mounts", "rights"

_DROP_FROM_BOUNDING_SET = 24  # prctl(2)
_WRITE_ANYWHERE, _READ_ANYWHERE = 1, 2  # capabilities(7): CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH

SECONDS = 240.0


def is_within(what: str) -> bool:
    """Say if this process was started by `again`."""
    return os.environ.get(_WITHIN) == what


def again(what: str, test: pytest.FixtureRequest, folder: Path) -> None:
    """Run the test again in a process that may mount (MOUNTS), or that chmod stops (RIGHTS)."""
    prefix = _unshare() if what == MOUNTS else []
    done = subprocess.run(
        [
            *(*prefix, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *("--basetemp", str(folder / "within"), test.node.nodeid),
        ],
        cwd=test.config.rootpath,
        env=os.environ | {_WITHIN: what},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        preexec_fn=_give_up_rights if what == RIGHTS else None,
    )
    assert done.returncode == 0, f"within {what}:\n{done.stdout}\n{done.stderr}"
    assert "1 passed" in done.stdout


def _unshare() -> list[str]:
    """Give the command for a mount namespace; its mounts end with it, however it ends."""
    command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    try:
        tried = subprocess.run(
            [*command, "mount", "-t", "tmpfs", "none", "/mnt"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        pytest.skip(f"no mount namespace ({error}): only the other way of this test is run here")
    if tried.returncode:
        pytest.skip(f"no mount namespace ({tried.stderr}): only the other way is run here")
    return command


def _give_up_rights() -> None:
    """Have even root be stopped by the rights of files, from the next program on."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (_WRITE_ANYWHERE, _READ_ANYWHERE):
            if libc.prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "a capability cannot be given up")


class SmallDisk:
    """A disk of a few MiB."""

    def __init__(self, folder: Path, mib: int = 8) -> None:
        folder.mkdir()
        _mount("-t", "tmpfs", "-o", f"size={mib}m", "none", str(folder))
        self._ballast = folder / "ballast"

    def fill(self, _pids: Iterable[int]) -> None:
        """Leave no byte."""
        with self._ballast.open("wb", buffering=0) as file:
            for size in (1024 * 1024, 4096, 1):
                try:
                    while file.write(b"\1" * size):
                        pass
                except OSError:
                    continue

    def free(self, _pids: Iterable[int]) -> None:
        """Make room."""
        self._ballast.unlink()


class SmallFiles:
    """A limit on the size of files, which the kernel holds processes to as it does to a quota."""

    BYTES = 96 * 1024

    def fill(self, pids: Iterable[int]) -> None:
        """Let no file grow."""
        for pid in pids:
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (self.BYTES, hard))

    def free(self, pids: Iterable[int]) -> None:
        """Let them."""
        for pid in pids:
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


class ReadOnlyMount:
    """A folder that can be mounted read-only over itself: what is open stays writable."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        _mount("--bind", self._folder, self._folder)

    def close(self) -> None:
        """Make it read-only."""
        _mount("--bind", self._folder, self._folder)
        _mount("-o", "remount,bind,ro", self._folder)

    def open(self) -> None:
        """Make it writable."""
        _mount("-o", "remount,bind,rw", self._folder)


class ReadOnlyRights:
    """A folder whose rights are taken away."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def close(self) -> None:
        """Make it read-only."""
        for file in self._folder.iterdir():
            file.chmod(0o444)
        self._folder.chmod(0o555)

    def open(self) -> None:
        """Make it writable."""
        self._folder.chmod(0o755)
        for file in self._folder.iterdir():
            file.chmod(0o644)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
