"""The batch script for Slurm, as Slurm runs it: its environment, its signals, a real queue."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from deploying import DEPLOY, checked, tool
from serving import HERE, Place, times_measured
from watching import until

from nptwatch.service.build import build_watcher
from nptwatch.service.handover import dump_settings
from nptwatch.store.records import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SCRIPT = DEPLOY / "slurm/nptwatch-worker.sbatch"
REAL = "exec {python} {here}/host_process.py {settings} --until-empty --max-seconds 240"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Give a state folder with a queue."""
    place = Place(tmp_path)
    yield place
    place.close()


def job(
    folder: Path, program: str, slurm: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start the script as slurmd does.

    Args:
        program: what `nptwatch` is, a shell command; its arguments are noted in `told`.
    """
    command = folder / "nptwatch"
    command.write_text(f'#!/bin/sh\necho "$@" >> {folder}/told\n{program}\n')
    command.chmod(0o755)
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": path}
    return subprocess.Popen(
        ["bash", SCRIPT], env=env | (slurm or {}), stderr=subprocess.DEVNULL, start_new_session=True
    )


def end(batch: subprocess.Popen[bytes]) -> None:
    """End what is left of a job, workers too; usually nothing."""
    with suppress(ProcessLookupError):
        os.killpg(batch.pid, signal.SIGKILL)
    batch.wait()


def real(place: Place, **worker: float) -> str:
    """Queue what is there, and give a worker that measures by the checkpoints' plans."""
    settings = place.settings(worker=worker)
    place.state_dir.mkdir(exist_ok=True)
    build_watcher(settings, place.stores, lambda: None).scan_once()
    file = place.state_dir / "settings.json"
    file.write_bytes(dump_settings(settings))
    return REAL.format(python=sys.executable, here=HERE, settings=file)


def test_the_script_is_as_shellcheck_wants_it() -> None:
    """Not even a hint."""
    checked(tool("shellcheck"), SCRIPT)


def test_a_job_whose_time_is_up_hands_its_work_back(place: Place, tmp_path: Path) -> None:
    """Slurm's SIGUSR1, and its SIGTERM on top: queued again, not counted, exit code 0."""
    weights = place.checkpoint(1, do="block")
    batch = job(tmp_path, real(place, shutdown_seconds=0.5), {"SLURM_GPUS_ON_NODE": "1"})
    try:
        until(lambda: times_measured(weights) == 1, seconds=30)
        batch.send_signal(signal.SIGUSR1)
        batch.send_signal(signal.SIGTERM)
        assert batch.wait(30) == 0
    finally:
        end(batch)
    assert (place.job(1).state, place.job(1).attempts) == (JobState.QUEUED, 0)
    assert place.stores.workers.alive(1000) == []


def test_a_job_ends_when_the_queue_is_dry(place: Place, tmp_path: Path) -> None:
    """One worker for each GPU; all is measured once, and the script ends by itself with 0."""
    weights = [place.checkpoint(step) for step in range(3)]
    batch = job(tmp_path, real(place), {"SLURM_GPUS_ON_NODE": "2"})
    try:
        assert batch.wait(60) == 0
    finally:
        end(batch)
    assert [times_measured(path) for path in weights] == [1, 1, 1]
    told = (tmp_path / "told").read_text().splitlines()
    assert sorted(told) == [
        f"worker --workers 1 --device cuda:{gpu} --until-empty" for gpu in (0, 1)
    ]


@pytest.mark.parametrize(("left", "minutes"), [(3600, 55), (60, 1)])
def test_a_job_knows_when_it_ends(tmp_path: Path, left: int, minutes: int) -> None:
    """By Slurm's own word, five minutes before; without a GPU one worker is on the CPU."""
    end = str(int(time.time()) + left + 30)
    assert job(tmp_path, "exit 0", {"SLURM_JOB_END_TIME": end}).wait(10) == 0
    (told,) = (tmp_path / "told").read_text().splitlines()
    assert told == f"worker --workers 1 --device cpu --until-empty --max-minutes {minutes}"


@pytest.mark.parametrize("named", [None, "/lasting"])
def test_a_jobs_workers_have_a_folder_of_the_users_and_share_its_cores(
    tmp_path: Path, named: str | None
) -> None:
    """The daemon's folder is not theirs to write; each would take half of all cores by itself."""
    program = f'echo "$NPTWATCH_STATE_DIR $NPTWATCH_WORKER__THREADS" >> {tmp_path}/given'
    slurm = {"SLURM_GPUS_ON_NODE": "2", "HOME": "/home/me"}
    wish = {} if named is None else {"NPTWATCH_STATE_DIR": named}
    assert job(tmp_path, program, slurm | wish).wait(10) == 0
    threads = max(1, len(os.sched_getaffinity(0)) // 4)
    folder = named or "/home/me/.local/state/nptwatch"
    assert (tmp_path / "given").read_text().splitlines() == [f"{folder} {threads}"] * 2


def test_a_job_fails_as_its_worst_worker(tmp_path: Path) -> None:
    """So that sacct shows it; the other worker is waited for."""
    program = f'case "$*" in *cuda:0*) exit 5;; *) sleep 0.3; touch {tmp_path}/over;; esac'
    assert job(tmp_path, program, {"SLURM_GPUS_ON_NODE": "2"}).wait(10) == 5
    assert (tmp_path / "over").exists()


def test_slurm_sends_the_signal_in_time() -> None:
    """To the batch shell, sooner than a worker may take to stop."""
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.+)$", SCRIPT.read_text(), flags=re.MULTILINE))
    found = re.fullmatch(r"B:USR1@(\d+)", options["signal"])
    assert found
    assert int(found[1]) >= 90
