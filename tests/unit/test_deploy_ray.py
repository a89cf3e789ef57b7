"""deploy/ray, by Ray's own validator and commands."""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from deploying import DEPLOY, checked, tool
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.dashboard.modules.job.cli import submit
from ray.scripts.scripts import start, stop

if TYPE_CHECKING:
    from pathlib import Path

    import click

CLUSTER = DEPLOY / "ray/cluster.yaml"
JOB = DEPLOY / "ray/job.sh"


def cluster(**more: object) -> dict[str, Any]:  # Any: YAML
    """Read the cluster, changed."""
    return yaml.safe_load(CLUSTER.read_text()) | more


def parsed(command: click.Command, arguments: list[str]) -> dict[str, Any]:  # Any: click's
    """Parse a command line as Ray does, without running it."""
    return dict(command.make_context(command.name, arguments).params)


def test_ray_takes_the_cluster() -> None:
    """Filled up and checked as `ray up` does; and the check can fail."""
    config = prepare_config(cluster())
    validate_config(config)
    assert config["max_workers"] == len(config["provider"]["worker_ips"])
    with pytest.raises(jsonschema.ValidationError, match="sped"):
        validate_config(prepare_config(cluster(upscaling_sped=1)))


def test_ray_takes_the_clusters_commands() -> None:
    """Every option of every `ray start` there is."""
    config = cluster()
    lines = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    for line in lines:
        program, verb, *arguments = shlex.split(line)
        assert program == "~/nptwatch/bin/ray"
        parsed({"start": start, "stop": stop}[verb], arguments)
    assert sum("ray start" in line for line in lines) == 2


def test_ray_takes_the_job(tmp_path: Path) -> None:
    """Every option of `ray job submit` there is; what it is to run comes after them, whole."""
    checked(tool("shellcheck"), JOB)
    told = tmp_path / "ray"
    told.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    told.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "WORKERS": "8"}
    said = subprocess.check_output([JOB, "--max-minutes", "5"], env=env, text=True).splitlines()
    assert said[:2] == ["job", "submit"]
    options = parsed(submit, said[2:])
    assert list(options["entrypoint"]) == shlex.split(
        "/home/nptwatch/nptwatch/bin/nptwatch worker --ray auto --config /home/nptwatch/nptwatch.toml"
        " --state-dir /home/nptwatch/.local/state/nptwatch --workers 8 --gpus-per-worker 0.25 --until-empty --max-minutes 5"
    )
    waits = json.loads(options["runtime_env_json"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]
    assert int(waits) > 60
