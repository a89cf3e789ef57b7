"""`nptwatch init`: the file that it writes, loads, and never loses; asked for on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from nptwatch.cli.main import main
from nptwatch.settings import load, load_settings
from nptwatch.setup.config_text import config_text

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = (REPOSITORY / "config.example.toml").read_text()
BASE = REPOSITORY / "tests/data/golden/base"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a root to watch, where nothing else is set."""
    for name in [name for name in os.environ if name.startswith("NPTWATCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    return tmp_path


def init(*words: str) -> int:
    """Write a file for the experiments, without asking."""
    return main(["init", "experiments", "--output", "nptwatch.toml", "--yes", *words])


def test_what_is_written_is_what_is_in_force(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`config show` gives what was asked for, from this file, and defaults for all else."""
    given = ["--base-model", str(BASE), "--state-dir", "state", "--channel", "my-team"]
    command = 'mail -s "an NPT" me'
    assert init(*given, "--alert-command", command) == 0
    said = capsys.readouterr()
    assert said.err == ""
    file = folder / "nptwatch.toml"
    assert said.out.startswith(f"wrote {file}\n")
    for next_command in ("doctor", "service install --now"):
        assert re.search(rf"^  \S.*{next_command} .*--config {file}", said.out, re.MULTILINE)
    assert main(["config", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["file"] == str(file)
    assert shown["settings"]["channels"]["my-team"]["url_env"] == "NPTWATCH_SECRET_MY_TEAM"
    assert shown["settings"]["channels"]["command"]["command"] == ["mail", "-s", "an NPT", "me"]
    loaded = load(file, env={})
    assert set(loaded.given) == {"state_dir", "watch.roots", "base.model", "channels"}
    wanted = load_settings(
        None,
        env={},
        overrides={
            "state_dir": folder / "state",
            "watch.roots": [str(folder / "experiments")],
            "base.model": str(BASE),
            "channels": loaded.given["channels"].value,
        },
    )
    assert loaded.settings == wanted


def test_every_setting_is_explained(folder: Path) -> None:
    """All that the example says is there, commented out: uncommented, it is the example."""
    assert init() == 0
    text = (folder / "nptwatch.toml").read_text()
    comments = [line for line in EXAMPLE.splitlines() if re.match(r"# [A-Z].*", line)]
    assert len(set(comments) - set(text.splitlines())) <= 2, "only how to copy it"
    settings = re.compile(r"^(?:# )?(\w+ = .*)$", flags=re.MULTILINE)
    assert [s for s in settings.findall(text) if not s.startswith(("roots", "state_dir"))] == [
        s for s in settings.findall(EXAMPLE) if not s.startswith(("roots", "state_dir"))
    ]


def test_secrets_are_not_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A password and a channel's URL go to the environment, and it is said which variable and where."""
    url = "postgresql+psycopg://nptwatch:hunter2@db.example.org/nptwatch"
    assert init("--database-url", url, "--channel", "ntfy") == 0
    said = capsys.readouterr().out
    assert "  NPTWATCH_DATABASE__URL=postgresql+psycopg://nptwatch:***@db.example.org/" in said
    assert "  NPTWATCH_SECRET_NTFY=..." in said
    assert "environment (mode 600)" in said
    assert "hunter2" not in said + (folder / "nptwatch.toml").read_text()
    plain = "postgresql+psycopg://nptwatch@db.example.org/nptwatch"
    assert init("--force", "--database-url", plain) == 0
    assert load_settings(folder / "nptwatch.toml", env={}).database_url == plain


def test_a_file_is_never_lost(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that is there stays; --force writes another and keeps the old one beside."""
    file = folder / "nptwatch.toml"
    file.write_text("# mine\n")
    assert init() == 2
    assert f"{file} is there already: edit it, or --force" in capsys.readouterr().err
    assert file.read_text() == "# mine\n"
    assert init("--force") == 0
    assert file.with_name("nptwatch.toml.before").read_text() == "# mine\n"
    assert load_settings(file, env={}).watch.roots == (folder / "experiments",)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("uid", [0, 1000])
def test_root_is_not_told_to_run_it(
    uid: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What root's own daemon leaves in the state folder the service's user could not write."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert init("--state-dir", "state") == 0
    assert (" run " in capsys.readouterr().out) == (uid != 0)


@pytest.mark.parametrize("how", [["--dry-run"], ["--output", "-"]])
def test_it_can_be_printed(
    how: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text alone on standard output, even where a file is; nothing is written."""
    (folder / "nptwatch.toml").touch()
    before = set(folder.rglob("*"))
    assert init(*how) == 0
    said = capsys.readouterr()
    assert tomllib.loads(said.out)["watch"]["roots"] == [str(folder / "experiments")]
    assert set(folder.rglob("*")) == before


def test_what_is_missing_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A root or a base that is not there may come: a note. Nothing to watch, or no setting: an error."""
    assert init("elsewhere", "--base-model", "./no-base") == 0
    said = capsys.readouterr().err
    assert f"note: {folder}/elsewhere is no directory, or its server does not answer\n" in said
    assert f"note: base model {folder}/no-base: " in said
    assert "no such folder" in said
    assert main(["init", "--yes", "--output", "x.toml"]) == 2
    assert "no directory to watch" in capsys.readouterr().err
    assert init("--force", "--channel", "two words") == 2
    assert "'two words' is no name" in capsys.readouterr().err
    assert init("--force", "--alert-command", 'mail "x') == 2
    assert "No closing quotation" in capsys.readouterr().err
    assert not (folder / "x.toml").exists()


@pytest.mark.parametrize("name", ["a b", 'quo"te', "back\\slash", "ünï🙂", "\x7f\t[x]"])
def test_odd_names_are_kept(name: str, folder: Path) -> None:
    """Whatever a folder may be called."""
    (folder / name).mkdir()
    assert init("--state-dir", name, name) == 0
    settings = load_settings(folder / "nptwatch.toml", env={})
    assert settings.state_dir == folder / name
    assert settings.watch.roots == (folder / "experiments", folder / name)


def test_the_example_with_nothing_chosen_sets_nothing(tmp_path: Path) -> None:
    """Each line is a comment, an empty table or nothing."""
    file = tmp_path / "c.toml"
    file.write_text(config_text(EXAMPLE, {}, {}))
    assert {key: given.value for key, given in load(file, env={}).given.items()} == {"channels": {}}


def test_it_asks_on_a_terminal(folder: Path) -> None:
    """For what no flag says; an empty answer leaves the default."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "nptwatch", "init", "--output", "a.toml", "--state-dir", "state"],
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=follower,
        text=True,
    )
    os.close(follower)
    answers = {
        "Directories": "experiments 'more of them'",
        "Base model": "",
        "Postgres": "",
        "channel": "slack",
    }
    heard = ""
    deadline = time.monotonic() + 20
    for question, answer in answers.items():
        while not re.search(rf"{question}.*: ?$", heard):
            assert select.select([leader], [], [], deadline - time.monotonic())[0], heard
            heard += os.read(leader, 1024).decode()
        os.write(leader, f"{answer}\n".encode())
        heard = ""
    assert "wrote" in process.communicate(timeout=60)[0]
    os.close(leader)
    settings = load_settings(folder / "a.toml", env={"HOME": "/"})
    assert settings.watch.roots == (folder / "experiments", folder / "more of them")
    assert (settings.base.model, settings.database.url) == (None, None)
    assert (settings.state_dir, list(settings.channels)) == (folder / "state", ["slack"])
