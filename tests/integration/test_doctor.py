"""What the doctor finds: real folders, files, databases and receivers; the kernel's words faked."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import watching as w
from receivers import Answer, serving
from watchdog.observers.api import BaseObserver

from nptwatch import filesystem
from nptwatch.alerts.channels import make_channels
from nptwatch.channel_settings import WebhookChannelSettings
from nptwatch.doctor import databases, events, folders, models, receivers, software
from nptwatch.doctor.finding import Mark
from nptwatch.filesystem import FileSystem
from nptwatch.settings import Settings, load_settings
from nptwatch.watch.emitter import FolderEmitter
from nptwatch.worker import facts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nptwatch.doctor.finding import Finding
    from nptwatch.store.engine import Database

KEY = "whsec_c2lnbmluZy1rZXktb2YtdGhpcnR5LXR3by1ieXRlcyE="
GOLDEN = Path(__file__).parents[1] / "data/golden"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An experiments folder with a checkpoint."""
    folder = tmp_path / "experiments"
    w.checkpoint(folder / "run", "checkpoint-1")
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def settings(root: Path, **more: Any) -> Settings:
    """Build settings of a root, with flags by name."""
    flags = {"state_dir": root.parent / "state", "watch": {"roots": [root]}} | more
    return load_settings(None, env={"HOME": str(root)}, overrides=flags)


def brief(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    """Give mark and check of each; all that are not OK must say what to do."""
    found = list(findings)
    assert all((one.fix is None) == (one.mark is Mark.OK) for one in found), found
    return [(str(one.mark), one.check) for one in found]


def only(findings: Iterable[Finding]) -> Finding:
    """Give the one finding."""
    (found,) = findings
    return found


def test_a_sound_root(root: Path) -> None:
    """Three lines: how it is watched, what is in it, and its clock."""
    found = list(folders.look_at_root(root, settings(root)))
    assert brief(found) == [("OK", f"{what}{root}") for what in ("root ", "files of ", "clock of ")]
    assert "heard by inotify" in found[0].text
    assert "1 checkpoint in 4 folders" in found[1].text


def test_how_a_root_is_watched_goes_by_its_file_system(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS: polled; it is a warning where the settings insist on inotify."""
    w.have_nfs(root, patch=monkeypatch)
    found = next(iter(folders.look_at_root(root, settings(root))))
    assert (found.mark, found.text.split(";")[0]) == (Mark.OK, "nfs, polled every 1 to 15 s")
    insisting = settings(root, **{"watch.observer": "inotify"})
    found = next(iter(folders.look_at_root(root, insisting)))
    assert found.mark is Mark.WARN
    assert found.fix is not None
    assert '"auto"' in found.fix


def test_roots_that_cannot_be_watched(root: Path, tmp_path: Path) -> None:
    """Not there, empty, without a name in the database, or with the state folder in it."""
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.mkdir()
    assert brief(folders.look_at_root(missing, settings(root))) == [("FAIL", f"root {missing}")]
    assert brief(folders.look_at_root(empty, settings(root)))[-1] == ("WARN", f"root {empty}")
    inside = settings(root, state_dir=root / "state")
    assert ("FAIL", f"root {root}") in brief(folders.look_at_root(root, inside))
    taken = settings(root, path_map=[{"stored": str(root), "here": "/elsewhere"}])
    assert ("FAIL", f"root {root}") in brief(folders.look_at_root(root, taken))


def test_a_clock_that_is_behind_the_files_is_noticed(root: Path) -> None:
    """A checkpoint of the future: the file server's clock, or this one, is wrong."""
    (weights,) = root.rglob("npt_weights.pt")
    os.utime(weights, (time.time() + 90, time.time() + 90))
    found = list(folders.look_at_root(root, settings(root)))[-1]
    assert found.mark is Mark.WARN
    assert found.text == "the newest checkpoint is 90 s ahead of this host's clock"


@pytest.mark.parametrize(("skew", "mark"), [(0.5, "OK"), (-30.0, "WARN"), (30.0, "WARN")])
def test_a_file_servers_clock_is_compared_in_the_state_folder(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch, skew: float, mark: str
) -> None:
    """A file made there has the server's time, before or behind ours."""
    real = time.time
    monkeypatch.setattr(folders.time, "time", lambda: real() - skew)
    found = list(folders.look_at_state(settings(root)))
    assert (found[-1].mark, found[-1].check) == (mark, f"clock of {state}")
    assert list(state.iterdir()) == []


def test_the_state_folder_has_room_and_an_owner(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little room, no inodes, memory instead of a disk, another's folder: each is said."""
    assert brief(folders.look_at_state(settings(root)))[0] == ("OK", "state folder")
    real = os.statvfs(state)

    def with_room(free: int, inodes: int) -> list[tuple[str, str]]:
        room = list(real)
        room[4], room[5], room[7] = free // room[1], 10**6, inodes
        monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*room, 0)[:10]))
        return brief(folders.look_at_state(settings(root)))

    assert with_room(2**20, 10**6)[0] == ("FAIL", "state folder")
    assert with_room(2**40, 10)[0] == ("FAIL", "state folder")
    assert with_room(2**29, 10**6)[0] == ("WARN", "state folder")
    assert with_room(2**40, 10**6)[0] == ("OK", "state folder")
    memory = FileSystem(name="tmpfs", network=False)
    monkeypatch.setattr(folders, "filesystem_of", lambda _: memory)
    assert brief(folders.look_at_state(settings(root)))[0] == ("WARN", "state folder")
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    first = next(iter(folders.look_at_state(settings(root))))
    assert first.fix is not None
    assert first.fix.startswith("run the doctor as the daemon's user: sudo -u ")


def test_a_state_folder_that_is_not_there(root: Path, tmp_path: Path) -> None:
    """Fine where it can be made, a failure where it cannot; it is not made by looking."""
    config = settings(root, state_dir=tmp_path / "new/state")
    assert brief(folders.look_at_state(config)) == [("OK", "state folder")]
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    config = settings(root, state_dir=tmp_path / "file/state")
    assert brief(folders.look_at_state(config)) == [("FAIL", "state folder")]


def test_an_event_arrives(root: Path, state: Path) -> None:
    """The watcher's observer hears of a real file; nothing is left of the probe."""
    found = only(events.sends_events(settings(root)))
    assert found.mark is Mark.OK
    assert f"a new file in {state} was heard of after" in found.text
    assert list(state.iterdir()) == []
    assert [p.name for p in root.iterdir()] == ["run"]


class Deaf(FolderEmitter):
    """Reads every event and passes none on."""

    def _take(self, *_event: object) -> None:
        """Drop it."""


def test_events_that_do_not_come_are_told(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An observer that cannot start says which limit; one that is deaf is found out."""

    def refuse() -> BaseObserver:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    monkeypatch.setattr("nptwatch.watch.waking.make_observer", refuse)
    found = only(events.sends_events(settings(root)))
    assert (found.mark, "limit reached" in found.text) == (Mark.WARN, True)
    assert "max_user_instances" in str(found.fix)
    monkeypatch.setattr("nptwatch.watch.waking.make_observer", lambda: BaseObserver(Deaf))
    monkeypatch.setattr(events, "CANARY_SECONDS", 0.3)
    found = only(events.sends_events(settings(root)))
    assert (found.mark, "no event came" in found.text) == (Mark.WARN, True)
    assert list(state.iterdir()) == []


class Kernel:
    """A /proc with inotify's limits and two processes of this user, one of them the daemon."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        limits = proc / "sys/fs/inotify"
        limits.mkdir(parents=True)
        (limits / "max_user_watches").write_text("100\n")
        (limits / "max_user_instances").write_text("3\n")
        self.holds(41, 90)
        self.holds(42, 50)

    def holds(self, pid: int, watches: int) -> None:
        """Let a process have an inotify instance."""
        process = self.proc / str(pid)
        (process / "fd").mkdir(parents=True)
        (process / "fdinfo").mkdir()
        (process / "fd/3").symlink_to("anon_inode:inotify")
        (process / "fd/4").symlink_to("/dev/null")
        lines = [f"inotify wd:{n} ino:1 sdev:1 mask:3c6 ignored_mask:0\n" for n in range(watches)]
        (process / "fdinfo/3").write_text("pos:\t0\n" + "".join(lines))


def test_inotifys_limits_are_compared_with_the_tree(
    root: Path, state: Path, tmp_path: Path
) -> None:
    """What others of this user hold counts, what the daemon holds is for the same tree."""
    kernel = Kernel(tmp_path / "proc")
    (state / "daemon.lock").write_text("41\n")
    config = settings(root)
    found = only(events.has_enough_watches(config, kernel.proc))
    assert found.mark is Mark.OK
    assert found.text == "4 folders to watch, 50 of 100 watches free"
    for n in range(50):
        (root / f"run/.hidden-{n}").mkdir()
    found = only(events.has_enough_watches(config, kernel.proc))
    assert (found.mark, found.text.split(",")[0]) == (Mark.WARN, "54 folders to watch")
    assert "fs.inotify.max_user_watches=256" in str(found.fix)
    kernel.holds(43, 0)
    (root / "run/.hidden-0").rmdir()
    kernel.proc.joinpath("sys/fs/inotify/max_user_watches").write_text("1000")
    found = only(events.has_enough_watches(config, kernel.proc))
    assert (found.mark, found.text) == (Mark.WARN, "2 of 3 instances are in use")


def test_polled_roots_need_no_watches(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree on NFS is not walked for inotify's sake."""
    w.have_nfs(root, patch=monkeypatch)
    assert only(events.has_enough_watches(settings(root))).text == "no root is heard by inotify"


@pytest.mark.both_engines
def test_a_sound_database(root: Path, database: Database) -> None:
    """Reached, at head, and its clock is ours; nothing is changed."""
    url = database.engine.url.render_as_string(hide_password=False)
    found = list(databases.can_be_used(settings(root, **{"database.url": url})))
    assert found[0].mark is Mark.OK
    assert "answers in" in found[0].text
    assert [one.mark for one in found] == ["OK"] * (1 if database.path else 2)


def test_databases_that_cannot_be_used(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None yet, no tables yet, one of a newer version, none that answers, one on NFS."""
    config = settings(root)
    assert brief(databases.can_be_used(config)) == [("OK", "database")]
    (state / "nptwatch.db").touch()
    assert brief(databases.can_be_used(config)) == [("WARN", "database")]
    gone = {"database.url": "postgresql://a:s3cr3t@127.0.0.1:1/b"}
    found = only(databases.can_be_used(settings(root, **gone)))
    assert (found.mark, "s3cr3t" in found.text) == (Mark.FAIL, False)
    monkeypatch.setattr(filesystem, "statfs_kind", lambda _: w.NFS_MAGIC)
    assert brief(databases.can_be_used(config)) == [("FAIL", "database")]
    (state / "nptwatch.db").unlink()
    assert brief(databases.can_be_used(config)) == [("FAIL", "database")]


def test_a_schema_that_is_not_ours(root: Path, state: Path, database: Database) -> None:
    """Of a newer version: nothing helps but that version; of an older one: an upgrade."""
    assert database.path is not None
    config = settings(root, **{"database.url": f"sqlite:///{database.path}"})
    for revision, mark in (("9999", "FAIL"), ("0002", "WARN")):
        with database.begin() as connection:
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")
        assert brief(databases.can_be_used(config)) == [(mark, "database")]
    assert state.is_dir()


def test_base_models_are_looked_for(root: Path) -> None:
    """The one that is set; else the one that the newest checkpoint names; a wrong one is told."""
    here = settings(root, **{"base.model": str(GOLDEN / "base")})
    found = only(models.can_be_had(here))
    assert (found.mark, found.text) == (Mark.OK, "a llama of 4 layers, weights are here")
    assert models.wanted_by_checkpoints(settings(root)) == ["base"]
    found = only(models.can_be_had(settings(root, **{"base.local_files_only": True})))
    assert (found.mark, found.check) == (Mark.FAIL, "base model base")
    assert found.text.startswith("cannot be loaded: it is not on this machine")


def test_a_base_without_weights_is_told(root: Path, tmp_path: Path) -> None:
    """Config and tokenizer alone are not enough."""
    base = tmp_path / "base"
    base.mkdir()
    for file in (GOLDEN / "base").iterdir():
        if file.suffix != ".safetensors":
            (base / file.name).write_bytes(file.read_bytes())
    found = only(models.can_be_had(settings(root, **{"base.model": str(base)})))
    assert (found.mark, "its weights are not here" in found.text) == (Mark.FAIL, True)


def test_torch_and_versions() -> None:
    """This environment is right, and weights_only refuses code here."""
    assert brief(software.has_torch()) == [("OK", "torch")]
    assert brief(software.has_right_versions()) == [("OK", "versions")]


def test_a_wrong_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog that loses events, and a package that is not there."""
    monkeypatch.setattr(
        software.metadata, "requires", lambda _: ["watchdog!=7.1.*,>=6", "no-such-package>=1"]
    )
    found = list(software.has_right_versions())
    assert [one.mark for one in found] == ["FAIL", "FAIL"]
    assert found[1].fix == "pip install 'no-such-package>=1'"


def test_a_torch_that_runs_code_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As CVE-2025-32434 let it."""
    monkeypatch.setattr(facts.torch, "load", lambda *_, **__: "ran")
    assert brief(software.has_torch()) == [("FAIL", "torch")]


def test_devices_on_a_machine_without_gpus(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU will do; a GPU that is asked for is missed; a driver nobody uses is told."""
    if facts.torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert brief(software.has_its_device(settings(root))) == [("OK", "device")]
    wanted = settings(root, **{"worker.device": "cuda:0"})
    assert brief(software.has_its_device(wanted)) == [("FAIL", "device")]
    monkeypatch.setattr(facts, "driver_version", lambda: "999.1")
    assert brief(software.has_its_device(settings(root))) == [("WARN", "device")]


def test_gpus_are_described(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free memory, users and driver; a full GPU and a silent NVML are warnings."""
    gpu = facts.GpuFacts(name="H100", free_mib=70_000, total_mib=80_000, users="process 7 (python)")
    monkeypatch.setattr(facts, "gpus", lambda _: iter([gpu]))
    monkeypatch.setattr(facts, "driver_version", lambda: "550.1")
    monkeypatch.setattr(facts, "has_nvml", lambda: True)
    text = "auto: H100, 70,000 of 80,000 MiB free, used by process 7 (python), driver 550.1"
    assert only(software.has_its_device(settings(root))).text == text
    monkeypatch.setattr(facts, "has_nvml", lambda: False)
    greedy = settings(root, **{"gpu.min_free_gpu_mib": 75_000})
    assert brief(software.has_its_device(greedy)) == [("WARN", "device"), ("WARN", "NVML")]


@pytest.mark.gpu
@pytest.mark.skipif(not facts.torch.cuda.is_available(), reason="NO GPU: not tested")
def test_a_real_gpu_is_described(root: Path) -> None:
    """Its name, memory and driver, by its index."""
    found = next(iter(software.has_its_device(settings(root, **{"worker.device": "cuda:0"}))))
    assert found.mark in {Mark.OK, Mark.WARN}
    assert "MiB free" in found.text
    assert f"driver {facts.driver_version()}" in found.text


def test_the_drivers_version_is_read(tmp_path: Path) -> None:
    """As the kernel module writes it; without one there is none."""
    assert facts.driver_version(tmp_path) is None
    file = tmp_path / "driver/nvidia/version"
    file.parent.mkdir(parents=True)
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\nGCC\n")
    assert facts.driver_version(tmp_path) == "550.54.15"


def test_channels_are_tried_on_demand(root: Path) -> None:
    """Without --send secrets are looked at, with it a real message goes out, marked as a test."""
    config = settings(root)
    hook = WebhookChannelSettings(type="webhook", url_env="SECRET_URL", key_env="SECRET_KEY")
    with serving(Answer(), Answer(status=500)) as server:
        env = {"SECRET_URL": server.url(), "SECRET_KEY": KEY}
        _, channel = make_channels({"hook": hook}, env=os.environ | env)
        assert brief(receivers.is_ready(channel, config, send=False)) == [("OK", "channel hook")]
        assert not server.got
        assert brief(receivers.is_ready(channel, config, send=True)) == [("OK", "channel hook")]
        assert b'"test":true' in server.got[0].body.replace(b" ", b"")
        found = only(receivers.is_ready(channel, config, send=True))
        assert (found.mark, "s3cr3t" in found.text) == (Mark.FAIL, False)
    _, unset = make_channels({"hook": hook}, env={})
    assert brief(receivers.is_ready(unset, config, send=False)) == [("FAIL", "channel hook")]
