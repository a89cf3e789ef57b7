"""Runs at Weights & Biases: its own client, offline and against a server of ours."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from exporting import ENV, Exporting
from wandb_server import WandbServer, wandb_server

from nptwatch.errors import ConfigError, DeliveryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import FakeClock

    from nptwatch.store.engine import Database

KEY = "0123456789abcdef0123456789abcdef01234567"
ONLINE = {"mode": "online", "key_env": "NPTWATCH_SECRET_WANDB", "group": "{parent}", "project": "p"}


@pytest.fixture
def server() -> Iterator[WandbServer]:
    """Give a server on loopback."""
    with wandb_server() as server:
        yield server


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Give what a daemon's environment may hold; some of it would mislead W&B's client."""
    (tmp_path / "home").mkdir()
    return {
        "HOME": str(tmp_path / "home"),
        "NPTWATCH_SECRET_WANDB": KEY,
        "WANDB_MODE": "disabled",
        "WANDB_RUN_ID": "the-trainers",
        "WANDB_RUN_GROUP": "another",
    }


@pytest.fixture
def wandb(database: Database, clock: FakeClock, tmp_path: Path) -> Exporting:
    """Give an export to W&B, offline unless told otherwise."""
    return Exporting(database, clock, tmp_path, "wandb", mode="offline", project="p")


def sync(exporting: Exporting, server: WandbServer, env: dict[str, str]) -> str:
    """Upload what waits, by the command of W&B's own."""
    command = Path(sys.executable).parent / "wandb"
    ran = subprocess.run(
        [command, "sync", "--yes"],
        cwd=exporting.folder,
        env=ENV | {"HOME": env["HOME"], "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stderr


def rows(server: WandbServer) -> list[tuple[int, int]]:
    """Give W&B's own step and the training's of the one run that is there."""
    (run,) = server.runs.values()
    return [(row["_step"], row["step"]) for row in run.rows()]


def test_parts_written_offline_are_synced_into_one_run(
    wandb: Exporting, server: WandbServer, env: dict[str, str]
) -> None:
    """Late steps under growing steps of W&B's own, the training's as the axis; nothing twice."""
    exporter = wandb.exporter(env=env, group="{parent}-{run}")
    wandb.record(100, 300)
    exporter.turn()
    (part,) = (wandb.folder / "wandb").iterdir()
    making = wandb.folder / f".making-nptwatch-{part.name.rpartition('-')[2]}"
    (making / "wandb/offline-run-1").mkdir(parents=True)  # of a process that was killed
    wandb.forget_how_far()
    exporter.turn()
    assert list((wandb.folder / "wandb").iterdir()) == [part]
    wandb.record(200)
    exporter.turn()
    assert not making.exists()
    sync(wandb, server, env)
    assert rows(server) == [(0, 100), (1, 300), (2, 200)]
    ((name, run),) = server.runs.items()
    assert name.startswith("nptwatch-")
    assert (run.about["groupName"], run.about["jobType"]) == ("exp-a", "nptwatch")
    assert run.about["displayName"] == "nptwatch a"
    axes = metrics_of(run.about["config"])
    assert axes["mse"] == axes["cosine"] == axes["grade"] == "step"


def metrics_of(config: str) -> dict[str, str | None]:
    """Give each number's axis, as W&B's configuration has it."""
    defined = json.loads(config)["_wandb"]["value"]["m"]
    return {each["1"]: defined[each["5"] - 1]["1"] if "5" in each else None for each in defined}


def test_a_run_goes_on_at_the_server_and_repeats_nothing(
    wandb: Exporting, server: WandbServer, env: dict[str, str], tmp_path: Path
) -> None:
    """The run's own summary says how far it is; the key is sent, and left nowhere."""
    online = ONLINE | {"base_url": server.url}
    wandb.record(100, 300)
    wandb.exporter(env=env, **online).turn()
    wandb.forget_how_far()
    wandb.record(200, grade="EXCELLENT")
    wandb.exporter(env=env, **online).turn()
    assert rows(server) == [(0, 100), (1, 300), (2, 200)]
    (run,) = server.runs.values()
    summary = json.loads(run.summary)
    assert (summary["status"], summary["ordinal"]) == ("GOOD", 3)
    assert (summary["mse"], summary["best_step"]) == (pytest.approx(1 / 200), 300)
    sent = base64.b64encode(f"api:{KEY}".encode()).decode()
    assert server.authorizations == {f"Basic {sent}"}
    assert [path.name for path in wandb.folder.iterdir() if path.name != ".lock"] == []
    assert files_with(KEY, tmp_path) == []


def files_with(secret: str, folder: Path) -> list[Path]:
    """Give the files below a folder in which a secret can be read."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if secret.encode() in path.read_bytes()]


def test_a_server_that_refuses_is_told_without_the_key(
    wandb: Exporting, server: WandbServer, env: dict[str, str], tmp_path: Path
) -> None:
    """It even quotes the key."""
    server.refusal = f"no such key: {KEY}"
    wandb.record(100)
    exporter = wandb.exporter(env=env, **ONLINE, base_url=server.url, timeout_seconds=30.0)
    with pytest.raises(DeliveryError, match="run a: ") as caught:
        exporter.turn()
    assert KEY[:8] not in str(caught.value)
    assert files_with(KEY, tmp_path) == []


def test_a_key_that_is_not_there_is_told_at_the_start(
    wandb: Exporting, env: dict[str, str]
) -> None:
    """Neither named nor set is refused; offline needs none."""
    del env["NPTWATCH_SECRET_WANDB"]
    with pytest.raises(ConfigError, match=r"exports.wandb.key_env: .*NPTWATCH_SECRET_WANDB"):
        wandb.exporter(env=env, **ONLINE)
    with pytest.raises(ConfigError, match="needs key_env"):
        wandb.exporter(env=env, mode="online")
    assert wandb.exporter(env=env).target.secret is None


def test_projects_and_servers_are_places_of_their_own(
    wandb: Exporting, env: dict[str, str]
) -> None:
    """What was exported to one is not yet at the other."""
    places = [
        wandb.exporter(env=env, **settings).target.identity()
        for settings in (
            {},
            {"project": "q"},
            {"entity": "team"},
            ONLINE,
            ONLINE | {"base_url": "http://own"},
        )
    ]
    assert len(set(places)) == len(places)
    assert wandb.exporter(env=env).target.identity() == places[0]
