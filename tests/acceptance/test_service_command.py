"""`nptwatch service`: what it writes, runs, refuses and leaves; a systemctl of the test's own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from nptwatch.cli.main import main
from nptwatch.setup.installing import Wish, installation
from nptwatch.setup.requirements import closed_to_others, outside, remarks, settings_for
from nptwatch.setup.scope import machine, personal
from nptwatch.setup.units import DAEMON, NAMES, WORKER

SYSTEMCTL = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in *"$REFUSED"*) echo "Failed: $REFUSED" >&2; exit 1;; esac
"""
RELOAD = "--user daemon-reload"
analyze = shutil.which("systemd-analyze")


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """A person's home with settings, and what systemctl was told."""

    folder: Path

    @property
    def config(self) -> Path:
        """Their settings."""
        return self.folder / ".config/nptwatch/config.toml"

    @property
    def units(self) -> Path:
        """Their units."""
        return self.folder / ".config/systemd/user"

    @property
    def environment(self) -> Path:
        """Their secrets."""
        return self.config.with_name("environment")

    def calls(self) -> list[str]:
        """Give what systemctl was told since it was last asked for; questions are left out."""
        log = self.folder / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line for line in lines if not re.search(r" (show|is-\w+) ", line)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Give a home, and a systemctl before the real one."""
    home = Home(folder=tmp_path / "home")
    home.config.parent.mkdir(parents=True)
    (tmp_path / "experiments").mkdir()
    home.config.write_text(f'[watch]\nroots = ["{tmp_path}/experiments"]\n')
    program = tmp_path / "bin/systemctl"
    program.parent.mkdir()
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "NPTWATCH_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home.folder))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(home.folder / "calls"))
    monkeypatch.setenv("REFUSED", "nothing is")
    return home


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    """Give every file with its time and mode."""
    files = [path for path in folder.rglob("*") if path.name != "calls"]
    return {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in files}


def install(*words: str) -> int:
    """Install a service of one's own."""
    return main(["service", "install", "--user", *words])


def uninstall(*words: str) -> int:
    """Remove it."""
    return main(["service", "uninstall", "--user", *words])


def test_installing_twice_changes_nothing(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """Units of this interpreter and these settings, a file for secrets; then nothing is left to do."""
    assert install() == 0
    assert home.calls() == [RELOAD]
    unit = (home.units / DAEMON).read_text()
    assert f"\nExecStart={sys.executable} -m nptwatch run\n" in unit
    assert f"\nEnvironment=NPTWATCH_CONFIG={home.config}\n" in unit
    assert f"\nEnvironmentFile=-{home.environment}\n" in unit
    worker = (home.units / WORKER).read_text()
    assert f"\nExecStart={sys.executable} -m nptwatch worker --workers 1\n" in worker
    assert home.environment.stat().st_mode & 0o777 == 0o600
    said = capsys.readouterr().out
    assert f"wrote {home.units / DAEMON}\n" in said
    assert "  systemctl --user enable --now nptwatch\n" in said

    before = snapshot(home.folder)
    assert install() == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (home.calls(), snapshot(home.folder)) == ([], before)


def test_now_starts_and_restarts(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new service is started; one whose unit changed is started anew; one that runs goes on."""
    assert install("--now") == 0
    enable = f"--user enable {DAEMON}"
    assert home.calls() == [RELOAD, enable, f"--user restart {DAEMON}"]
    capsys.readouterr()
    assert install("--now") == 0
    assert home.calls() == []
    assert "nothing to do" in capsys.readouterr().out
    monkeypatch.setenv("REFUSED", "is-active")
    assert install("--now") == 0
    assert home.calls() == [enable, f"--user start {DAEMON}"]
    other = home.config.rename(home.config.with_name("other.toml"))
    assert install("--now", "--config", str(other)) == 0
    assert home.calls() == [RELOAD, enable, f"--user restart {DAEMON}"]
    assert f"NPTWATCH_CONFIG={other}\n" in (home.units / DAEMON).read_text()


@pytest.mark.parametrize("whose", ["edited", "foreign"])
def test_what_people_wrote_is_not_overwritten(
    whose: str, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, with the fix, and nothing at all is written; --force keeps it beside."""
    unit = home.units / DAEMON
    if whose == "edited":
        assert install() == 0
        unit.write_text(unit.read_text().replace("Nice=10", "Nice=19"))
    else:
        unit.parent.mkdir(parents=True)
        unit.write_text("[Service]\nExecStart=/usr/bin/nptwatch run\n")
    mine = unit.read_text()
    home.calls()
    before = snapshot(home.folder)
    assert install("--config", str(home.config)) == 2
    message = capsys.readouterr().err
    assert str(unit) in message
    assert f"`systemctl --user edit {DAEMON}`" in message
    assert "--force" in message
    assert (snapshot(home.folder), home.calls()) == (before, [])

    assert install("--force") == 0
    assert "Nice=10" in unit.read_text()
    assert unit.with_name(f"{DAEMON}.before").read_text() == mine
    assert home.calls() == [RELOAD]


def test_secrets_are_never_touched(home: Home) -> None:
    """Neither an installation nor a removal writes to the environment file."""
    home.environment.write_text("NPTWATCH_SECRET_SLACK=slack://x\n")
    home.environment.chmod(0o600)
    before = home.environment.stat()
    assert install("--force") == 0
    assert uninstall("--force") == 0
    assert home.environment.stat() == before


def test_secrets_that_others_could_read_are_closed(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """An editor makes the file for everybody; what is in it stays."""
    home.environment.write_text("NPTWATCH_SECRET_SLACK=slack://x\n")
    home.environment.chmod(0o644)
    assert install() == 0
    assert f"ran chmod 600 {home.environment}\n" in capsys.readouterr().out
    assert home.environment.stat().st_mode & 0o777 == 0o600
    assert home.environment.read_text() == "NPTWATCH_SECRET_SLACK=slack://x\n"
    assert install() == 0
    assert "chmod" not in capsys.readouterr().out


def test_what_root_left_in_the_state_folder_is_told(tmp_path: Path, home: Home) -> None:
    """The service's user could not write it, and the service would not start."""
    state = tmp_path / "machine state"
    home.config.write_text(f'state_dir = "{state}"\n[watch]\nroots = ["/data"]\n')
    scope = machine(tmp_path / "root")
    settings = settings_for(scope, home.config)
    assert not [line for line in remarks(settings, home.config, scope, there=()) if "chown" in line]
    state.mkdir()
    (state / "daemon.lock").touch()
    (line,) = [line for line in remarks(settings, home.config, scope, there=()) if "chown" in line]
    assert line.startswith(f"{state / 'daemon.lock'} is not the user nptwatch's")
    assert f"`chown --recursive nptwatch:nptwatch {state}`" in line


def test_a_dry_run_says_all_and_does_nothing(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it prints is what an installation then writes and runs."""
    before = snapshot(home.folder)
    assert install("--dry-run", "--now") == 0
    told = capsys.readouterr().out
    assert (snapshot(home.folder), home.calls()) == (before, [])
    assert install("--now") == 0
    for path in (*(home.units / name for name in NAMES), home.environment):
        mode = path.stat().st_mode & 0o777
        assert f"--- write {path}, mode {mode:o}\n{path.read_text()}---\n" in told
    runs = [line for line in told.splitlines() if line.startswith("--- run ")]
    assert runs == [f"--- run systemctl {call}" for call in home.calls()]


def test_uninstalling_removes_what_was_installed(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped, disabled, its files gone; settings and history stay, and are named."""
    before = set(snapshot(home.folder))
    assert install("--now") == 0
    home.calls()
    capsys.readouterr()
    told = snapshot(home.folder)
    assert uninstall("--dry-run") == 0
    assert (snapshot(home.folder), home.calls()) == (told, [])
    assert f"--- remove {home.units / DAEMON}\n" in capsys.readouterr().out
    assert uninstall() == 0
    assert home.calls() == [
        f"--user disable {DAEMON} {WORKER}",
        f"--user stop {DAEMON} nptwatch-worker@*.service",
        RELOAD,
    ]
    left = {path for path in snapshot(home.folder) if path.is_file()}
    assert left == {path for path in before if path.is_file()} | {home.environment}
    said = capsys.readouterr().out
    assert f"  {home.folder}/.local/state/nptwatch: history" in said
    assert f"  {home.config.parent}: settings" in said
    assert uninstall() == 0
    assert "nothing to do" in capsys.readouterr().out
    assert home.calls() == []


def test_uninstalling_leaves_what_people_wrote(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """A unit that was changed is neither stopped nor removed, and a drop-in stays; --force takes it."""
    assert install() == 0
    drop_in = home.units / f"{DAEMON}.d/override.conf"
    drop_in.parent.mkdir()
    drop_in.touch()
    unit = home.units / DAEMON
    unit.write_text(unit.read_text() + "# mine\n")
    home.calls()
    assert uninstall() == 0
    assert home.calls() == [
        f"--user disable {WORKER}",
        "--user stop nptwatch-worker@*.service",
        RELOAD,
    ]
    assert unit.exists()
    said = capsys.readouterr().err
    assert f"note: {unit} was changed by hand" in said
    assert f"note: {drop_in.parent} has changes of your own" in said
    assert uninstall("--force") == 0
    assert not unit.exists()
    assert unit.with_name(f"{DAEMON}.before").exists()
    assert drop_in.exists()


def test_a_secret_that_is_not_there_is_told(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """The service would end without it: the variable and its file are named, until it is set."""
    home.config.write_text(
        home.config.read_text() + '[channels.a]\ntype = "apprise"\nurl_env = "MY_URL"\n'
    )
    note = f"note: MY_URL is not set in {home.environment}: the service ends without it\n"
    assert install() == 0
    assert note in capsys.readouterr().err
    home.environment.write_text("# MY_URL=x\nMY_URL='ntfy://a?b=c'\n")
    assert install() == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "config.toml` writes them"),
        ("[watch]\nroots = []\n", "names no directory to watch: set watch.roots"),
        ("[watch]\nrots = []\n", "watch.rots"),
    ],
)
def test_settings_must_work(
    text: str | None, said: str, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """A service that would end at once is not installed; the message says what to do."""
    home.config.unlink()
    if text is not None:
        home.config.write_text(text)
    assert install() == 2
    assert said in capsys.readouterr().err
    assert not home.units.exists()


def test_without_systemd(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No program, a manager that does not answer, a service that does not start: each is told."""
    monkeypatch.setenv("REFUSED", "show")
    assert install() == 2
    assert "systemd does not answer: Failed: show" in capsys.readouterr().err
    assert not home.units.exists()
    monkeypatch.setenv("REFUSED", "restart")
    assert install("--now") == 2
    assert "`journalctl --user --unit nptwatch.service` says why" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(home.folder))
    assert install() == 2
    assert "there is no systemctl here" in capsys.readouterr().err


def test_the_machines_service_needs_root(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is not root is told before anything else."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for verb in ("install", "uninstall"):
        assert main(["service", verb]) == 2
        assert "needs root: sudo, or --user" in capsys.readouterr().err
    assert home.calls() == []


def test_what_the_machines_user_cannot_read_is_found(tmp_path: Path) -> None:
    """The first folder on the way that is closed to others, or the file itself."""
    file = tmp_path / "a/b/python"
    file.parent.mkdir(parents=True)
    file.touch()
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder.parent != folder:
            folder.chmod(folder.stat().st_mode | 0o001)
    file.chmod(0o644)
    assert closed_to_others(file) is None
    file.parent.chmod(0o700)
    assert closed_to_others(file) == file.parent
    file.parent.chmod(0o755)
    file.chmod(0o600)
    assert closed_to_others(file) == file


def test_folders_of_the_settings_are_writable(tmp_path: Path, home: Home) -> None:
    """All but the state folder is read-only to the unit: what the settings name elsewhere is not."""
    state = tmp_path / "on the big disk"
    home.config.write_text(
        f'state_dir = "{state}"\n[watch]\nroots = ["/data"]\n'
        '[exports.jsonl]\nfolder = "/var/lib/nptwatch/x"\n[exports.tensorboard]\nfolder = "/tb"\n'
    )
    scope = machine(tmp_path / "root")
    settings = settings_for(scope, home.config)
    writable = outside(settings, scope)
    wish = Wish(python=Path("/opt/n/bin/python"), config=home.config, writable=writable)
    assert any(str(state) in remark for remark in remarks(settings, home.config, scope, there=[]))
    unit, *_ = [step for step in installation(scope, wish) if f"/{DAEMON}," in step.told()]
    assert f'\nReadWritePaths=-/run/lock -/tb "-{state}"\n' in unit.told()


@pytest.mark.skipif(analyze is None, reason="NO SYSTEMD: systemd-analyze is not installed")
def test_a_packagers_units_are_as_systemd_wants_them(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--root writes below a folder and runs nothing; odd names are quoted as systemd reads them."""
    odd = tmp_path / "50%u odd $HOME/python"
    odd.parent.mkdir()
    odd.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(odd))
    root = tmp_path / "root"
    assert main(["service", "install", "--root", str(root), "--config", f"{odd.parent}/c"]) == 0
    assert home.calls() == []
    written = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert written == {
        "etc/sysusers.d/nptwatch.conf",
        "etc/tmpfiles.d/nptwatch.conf",
        "etc/nptwatch/environment",
        *(f"etc/systemd/system/{name}" for name in NAMES),
    }
    unit = root / "etc/systemd/system/nptwatch.service"
    done = subprocess.run(
        [str(analyze), "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    (line,) = [line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
    assert shlex.split(line.removeprefix("ExecStart="))[0] == str(odd).replace("%", "%%")
    assert main(["service", "uninstall", "--root", str(root)]) == 0
    assert {path.name for path in root.rglob("*") if path.is_file()} == {"environment"}


def test_a_persons_paths_follow_xdg(tmp_path: Path) -> None:
    """As systemd and the settings have it."""
    scope = personal({"HOME": "/home/a", "XDG_CONFIG_HOME": str(tmp_path)})
    assert scope.units == tmp_path / "systemd/user"
    assert scope.config == tmp_path / "nptwatch/config.toml"
    assert scope.state == Path("/home/a/.local/state/nptwatch")
