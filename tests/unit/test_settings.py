"""Settings: one cascade, absolute paths, and every problem told at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nptwatch.errors import ConfigError
from nptwatch.settings import Settings, find_file, load, load_settings, masked_url

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give an empty settings file."""
    path = tmp_path / "conf" / "nptwatch.toml"
    path.parent.mkdir()
    path.touch()
    return path


def refusal(file: Path | None, env: Mapping[str, str] | None = None, **overrides: Any) -> str:
    """Give the message with which settings are refused."""
    with pytest.raises(ConfigError) as caught:
        load_settings(file, env=env or {}, overrides=overrides)
    return str(caught.value)


def test_later_sources_win(file: Path) -> None:
    """Defaults < file < environment < command line, each key for itself."""
    file.write_text("[worker]\ncount = 2\nthreads = 2\nmax_jobs = 2\n")
    env = {"NPTWATCH_WORKER__THREADS": "3", "NPTWATCH_WORKER__MAX_JOBS": "3"}
    worker = load_settings(file, env=env, overrides={"worker": {"max_jobs": 4}}).worker
    assert (worker.device, worker.count, worker.threads, worker.max_jobs) == ("auto", 2, 3, 4)


def test_flag_not_given_changes_nothing(file: Path) -> None:
    """None on the command line means that the flag was not used."""
    file.write_text('[base]\nmodel = "org/base"\n')
    assert load_settings(file, env={}, overrides={"base.model": None}).base.model == "org/base"


def test_origins_are_known(file: Path) -> None:
    """`config show` can say where each value comes from."""
    file.write_text("[worker]\ncount = 2\n")
    loaded = load(file, env={"NPTWATCH_LOG__LEVEL": "debug"}, overrides={"base.model": "a/b"})
    origins = {key: given.origin for key, given in loaded.given.items()}
    assert origins == {
        "worker.count": str(file),
        "log.level": "NPTWATCH_LOG__LEVEL",
        "base.model": "the command line",
    }


def test_lists_from_the_environment(tmp_path: Path) -> None:
    """A list is JSON in a variable, or one plain value."""
    env = {"NPTWATCH_WATCH__ROOTS": "/a", "NPTWATCH_WATCH__EXCLUDE": '["x", "y z"]'}
    watch = load(None, env=env, cwd=tmp_path, system=tmp_path / "no").settings.watch
    assert (watch.roots, watch.exclude) == ((Path("/a"),), ("x", "y z"))


def test_broken_list_in_the_environment_is_refused() -> None:
    """A JSON list that is none is an error that shows it."""
    assert "NPTWATCH_WATCH__EXCLUDE): '[\"x\"' should be a valid list" in refusal(
        None, {"NPTWATCH_WATCH__EXCLUDE": '["x"'}
    )


def test_empty_variable_is_unset(file: Path) -> None:
    """`NPTWATCH_BASE__MODEL= nptwatch ...` is how a shell unsets one."""
    file.write_text('[base]\nmodel = "org/base"\n')
    assert load_settings(file, env={"NPTWATCH_BASE__MODEL": ""}).base.model == "org/base"


@pytest.mark.parametrize("place", ["config", "variable", "cwd", "xdg", "home", "system", None])
def test_settings_file_is_found(tmp_path: Path, place: str | None) -> None:
    """The named file, else NPTWATCH_CONFIG, ./, XDG, ~/.config, /etc: the first there is."""
    order = ["config", "variable", "cwd", "xdg", "home", "system"]
    files = {
        "config": tmp_path / "named.toml",
        "variable": tmp_path / "variable.toml",
        "cwd": tmp_path / "cwd/nptwatch.toml",
        "xdg": tmp_path / "xdg/nptwatch/config.toml",
        "home": tmp_path / "home/.config/nptwatch/config.toml",
        "system": tmp_path / "etc/config.toml",
    }
    there = order[order.index(place) :] if place else []
    for name in there:
        files[name].parent.mkdir(parents=True, exist_ok=True)
        files[name].write_text(f'[base]\nmodel = "org/{name}"\n')
    env = {"HOME": str(tmp_path / "home")}
    if "variable" in there:
        env["NPTWATCH_CONFIG"] = str(files["variable"])
    if "xdg" in there:
        env["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    loaded = load(
        files["config"] if "config" in there else None,
        env=env,
        cwd=tmp_path / "cwd",
        system=files["system"],
    )
    assert loaded.file == (files[place] if place else None)
    assert loaded.settings.base.model == (f"org/{place}" if place else None)


def test_named_file_must_exist(tmp_path: Path) -> None:
    """A missing file is an error that says who named it; it is never silently ignored."""
    missing = tmp_path / "missing.toml"
    assert f"no settings file {missing} (named by --config)" in refusal(missing)
    by_env = refusal(None, {"NPTWATCH_CONFIG": str(missing)})
    assert f"{missing} (named by NPTWATCH_CONFIG)" in by_env
    assert "no settings file" in refusal(tmp_path)


def test_broken_toml_names_the_line(file: Path) -> None:
    """What is no TOML is refused with file and line."""
    file.write_text("[worker]\ncount = \n")
    assert str(file) in refusal(file)
    assert "line 2" in refusal(file)


def test_file_that_is_no_text_is_refused(file: Path) -> None:
    """Bytes that are not UTF-8 are a message, not a traceback."""
    file.write_bytes(b"\xff\xfe\x00")
    assert f"{file}: not UTF-8 text" in refusal(file)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "[worker]\ncuont = 1",
            "worker.cuont",
        ),
        ("[wacth]\nroots = []", "wacth.roots"),
        ("settle_seconds = 3", "settle_seconds"),
        ("[worker.count]\nx = 1", "worker.count"),
        ("worker = 3", "worker"),
        ("[[watch]]\nroots = []", "watch"),
        ("[nonsense]", "nonsense"),
    ],
)
def test_unknown_key_is_an_error(file: Path, text: str, told: str) -> None:
    """A key that is no setting is named with its file, whatever its shape."""
    file.write_text(text)
    assert f"{told} (from {file})" in refusal(file)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[worker]\ncuont = 1", "did you mean worker.count?"),
        ("[wacth]\nroots = []", "did you mean watch.roots?"),
        ("settle_seconds = 3", "did you mean watch.settle_seconds?"),
        ("[diagnostic]\ndevice = 'cpu'", "did you mean worker.device?"),
    ],
)
def test_unknown_key_gets_a_hint(file: Path, text: str, hint: str) -> None:
    """A typo, or a right key in the wrong section, is answered with the right one."""
    file.write_text(text)
    assert hint in refusal(file)


def test_unknown_variable_is_an_error() -> None:
    """A typo in a variable's name would otherwise be silently ignored."""
    message = refusal(None, {"NPTWATCH_WORKER__THREDS": "3"})
    assert "NPTWATCH_WORKER__THREDS (from the environment)" in message
    assert "did you mean NPTWATCH_WORKER__THREADS?" in message


def test_variables_that_are_no_settings_are_left_alone(file: Path) -> None:
    """NPTWATCH_CONFIG, _DEBUG and _TEST_ have our prefix but are no settings; others' are others'."""
    env = {"NPTWATCH_CONFIG": str(file), "NPTWATCH_DEBUG": "1", "NPTWATCH_TEST_X": "1", "PATH": "x"}
    assert load(None, env=env).given == {}


def test_all_problems_are_told_at_once(file: Path) -> None:
    """Each with key, origin, value and what is expected: nobody mends one at a time."""
    file.write_text('typo = 1\n[worker]\ncount = -1\n[watch]\nroots = "/data"\n')
    message = refusal(
        file,
        {"NPTWATCH_LOG__LEVEL": "loud", "NPTWATCH_NONSENSE": "1"},
        worker={"max_jobs": "many"},
    )
    assert "6 problems" in message
    for told in (
        f"typo (from {file}): no such setting",
        f"worker.count (from {file}): -1 should be greater than or equal to 0",
        f"watch.roots (from {file}): '/data' should be a valid list",
        "log.level (from NPTWATCH_LOG__LEVEL): 'loud' should be 'debug', 'info'",
        "NPTWATCH_NONSENSE (from the environment): no such setting",
        "worker.max_jobs (from the command line): 'many' should be a valid integer",
    ):
        assert told in message


def test_secrets_are_never_shown(file: Path) -> None:
    """Neither in a refusal nor in a printed settings object."""
    file.write_text('[database]\nurl = "postgresql://u:hunter2@h/d"\nbusy_timeout_seconds = "x"')
    assert "hunter2" not in refusal(file)
    file.write_text('[database]\nurl = ["hunter2"]')
    assert "hunter2" not in refusal(file)
    file.write_text('[database]\nurl = "postgresql://u:hunter2@h/d"')
    settings = load_settings(file, env={})
    assert "hunter2" not in f"{settings!r} {settings} {settings.safe_database_url}"
    assert settings.database_url == "postgresql://u:hunter2@h/d"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql+psycopg://u:p@h:5/d", "postgresql+psycopg://u:***@h:5/d"),
        ("postgresql://u:p@w/:@h/d", "postgresql://u:***@h/d"),
        ("postgresql://h/d?user=u&password=p", "postgresql://h/d?user=u&password=***"),
        ("postgresql://h/d?sslmode=require", "postgresql://h/d?sslmode=require"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_urls_are_masked(url: str, masked: str) -> None:
    """Passwords are hidden wherever in a URL they stand; the rest is kept."""
    assert masked_url(url) == masked


def test_paths_of_a_file_are_relative_to_it(file: Path, tmp_path: Path) -> None:
    """A settings file means the same from every folder, for every verb."""
    (file.parent / "base").mkdir()
    file.write_text(
        'state_dir = "state"\n[watch]\nroots = ["runs", "../other", "~/exp", "/abs"]\n'
        '[base]\nmodel = "base"\n[database]\nurl = "sqlite:///jobs.db?timeout=3"'
    )
    settings = load(file, env={"HOME": "/home/me"}, cwd=tmp_path).settings
    folder = file.parent
    assert settings.state_dir == folder / "state"
    assert settings.watch.roots == (
        folder / "runs",
        tmp_path / "other",
        Path("/home/me/exp"),
        Path("/abs"),
    )
    assert settings.base.model == str(folder / "base")
    assert settings.database_url == f"sqlite:///{folder}/jobs.db?timeout=3"
    assert settings.sqlite_file == folder / "jobs.db"


def test_paths_of_flags_and_variables_are_relative_to_the_current_folder(tmp_path: Path) -> None:
    """As everywhere on a command line; what is stored is absolute, for child processes."""
    env = {"NPTWATCH_STATE_DIR": "state", "HOME": "/home/me"}
    overrides = {"watch.roots": [Path("runs")], "base.model": "./llama"}
    settings = load(None, env=env, overrides=overrides, cwd=tmp_path).settings
    assert settings.state_dir == tmp_path / "state"
    assert settings.watch.roots == (tmp_path / "runs",)
    assert settings.base.model == str(tmp_path / "llama")


def test_hub_name_stays_a_name(tmp_path: Path) -> None:
    """A base model that is no folder is asked of the hub by its name."""
    overrides = {"base.model": "meta-llama/Llama-3.2-1B"}
    settings = load(None, env={}, overrides=overrides, cwd=tmp_path).settings
    assert settings.base.model == "meta-llama/Llama-3.2-1B"


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/x:/y", "XDG_STATE_HOME": "/s"}, "/var/lib/x"),
        ({"XDG_STATE_HOME": "/s", "HOME": "/home/me"}, "/s/nptwatch"),
        ({"HOME": "/home/me"}, "/home/me/.local/state/nptwatch"),
    ],
)
def test_state_folder_by_default(env: dict[str, str], folder: str) -> None:
    """The folder systemd gives, else XDG's, else below home; the database lies in it."""
    settings = load_settings(None, env=env)
    assert settings.state_dir == Path(folder)
    assert settings.sqlite_file == Path(folder) / "nptwatch.db"


def test_server_has_no_file() -> None:
    """Only an SQLite URL names a file."""
    url = {"database.url": "postgresql://h/d"}
    assert load_settings(None, env={}, overrides=url).sqlite_file is None


def test_settings_are_frozen() -> None:
    """Nobody changes them behind another's back."""
    settings = load_settings(None, env={})
    with pytest.raises(ValidationError, match="frozen"):
        settings.worker.count = 2  # type: ignore[misc] # the point
    with pytest.raises(ValidationError, match="frozen"):
        settings.state_dir = Path("/x")  # type: ignore[misc] # the point


@given(
    count=st.integers(0, 64),
    settle=st.floats(0, 1e6),
    level=st.sampled_from(["debug", "info", "warning", "error"]),
    exclude=st.lists(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])), max_size=3),
)
def test_environment_says_what_flags_say(
    count: int, settle: float, level: str, exclude: list[str]
) -> None:
    """Every kind of value survives the way through text."""
    env = {
        "NPTWATCH_WORKER__COUNT": str(count),
        "NPTWATCH_WATCH__SETTLE_SECONDS": repr(settle),
        "NPTWATCH_LOG__LEVEL": level,
        "NPTWATCH_WATCH__EXCLUDE": json.dumps(exclude),
    }
    flags = {
        "worker.count": count,
        "watch.settle_seconds": settle,
        "log.level": level,
        "watch.exclude": exclude,
    }
    by_env = load_settings(None, env=env)
    assert by_env == load_settings(None, env={}, overrides=flags)
    assert Settings.model_validate_json(by_env.model_dump_json()) == by_env


def test_only_the_given_environment_counts(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's own variables reach neither a load nor settings that are built or handed over."""
    handed = load_settings(file, env={}, overrides={"worker.count": 2}).model_dump(mode="json")
    monkeypatch.setenv("NPTWATCH_WORKER__COUNT", "7")
    monkeypatch.setenv("NPTWATCH_LOG__LEVEL", "debug")
    for settings in (
        load_settings(file, env={}, overrides={"worker.count": 2}),
        Settings.model_validate(handed),
        Settings(**handed),
    ):
        assert settings.model_dump(mode="json") == handed
    assert (Settings().worker.count, Settings().log.level) == (1, "info")


def test_an_empty_base_model_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    """It names nothing; leaving the key out is how to leave it open."""
    file = tmp_path / "nptwatch.toml"
    file.write_text('[base]\nmodel = ""\n')
    with pytest.raises(ConfigError, match=r"base\.model .*at least 1 character"):
        load_settings(file, env={})


def test_polls_have_an_order(tmp_path: Path) -> None:
    """The longest pause is not shorter than the shortest; both may be the same."""
    file = tmp_path / "nptwatch.toml"
    file.write_text("[watch]\npoll_min_seconds = 20\n")
    with pytest.raises(
        ConfigError, match=r"watch.poll_max_seconds .* at least poll_min_seconds, which is 20"
    ):
        load_settings(file, env={})
    file.write_text("[watch]\npoll_min_seconds = 15\n")
    assert load_settings(file, env={}).watch.poll_min_seconds == 15


def test_a_folder_that_cannot_be_looked_into_has_no_settings(tmp_path: Path) -> None:
    """Root's home is closed to the service's user, who is where root was; no name is so long."""
    closed = tmp_path / ("x" * 300)
    system = tmp_path / "config.toml"
    system.write_text("")
    assert find_file(None, env={"HOME": str(closed)}, cwd=closed, system=system) == system
    with pytest.raises(ConfigError, match="no settings file"):
        find_file(closed / "a.toml", env={}, cwd=tmp_path, system=system)
