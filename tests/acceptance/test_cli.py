"""The command as people and scripts call it: a real process on a real database."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from stocking import QUICK, measured, no_alerts, path_of, seen, whole

from nptwatch.cli.main import VERBS
from nptwatch.store.catalog import Catalog
from nptwatch.store.engine import Database
from nptwatch.store.queue import Queue
from nptwatch.store.records import FileState
from nptwatch.store.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GOLDEN_RUN = Path(__file__).parents[1] / "data/golden/run"
RUN = "llama/dual"


class Command:
    """Calls `python -m nptwatch` with a home of its own.

    Args:
        home: becomes HOME and the current folder; the database lies in `home/state`.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "NPTWATCH_STATE_DIR": str(home / "state"),
        }

    def __call__(
        self, *arguments: str, code: int = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; its exit code must be `code`."""
        done = subprocess.run(
            [sys.executable, "-m", "nptwatch", *arguments],
            env=self.env | (env or {}),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        """Run with --json; standard output must be JSON and nothing else."""
        return json.loads(self(*arguments, "--json").stdout)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start without waiting."""
        return subprocess.Popen(
            [sys.executable, "-m", "nptwatch", *arguments],
            env=self.env,
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def on_terminal(self, *arguments: str, columns: int, **env: str) -> str:
        """Run with a terminal of so many columns as standard output; give what it shows."""
        ours, theirs = pty.openpty()
        child = subprocess.Popen(
            [sys.executable, "-m", "nptwatch", *arguments],
            env=self.env | {"COLUMNS": str(columns), "TERM": "xterm", **env},
            cwd=self.home,
            stdout=theirs,
        )
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 65536):
                shown += chunk
        except OSError:  # Linux's way to say that the other end is closed
            pass
        os.close(ours)
        assert child.wait(60) == 0
        return shown.decode().replace("\r\n", "\n")


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Give the command on a machine where it never ran."""
    return Command(tmp_path)


@pytest.fixture
def database(command: Command, migrated_file: Path) -> Any:
    """Give the migrated, empty database of the command."""
    folder = command.home / "state"
    folder.mkdir()
    (folder / "nptwatch.db").write_bytes(migrated_file.read_bytes())
    opened = Database(f"sqlite:///{folder / 'nptwatch.db'}")
    yield opened
    opened.close()


@pytest.fixture
def queue(database: Database) -> Queue:
    """Give the command's queue, with a run of checkpoints in many states.

    Steps 100 (FAIR, with a copy in best/), 200 (GOOD), 300 (failed), 400 (queued), and a file that
    never became whole.
    """
    catalog, queue = Catalog(database), Queue(database)
    for step, grade, mse in ((100, "FAIR", 0.3), (200, "GOOD", 0.07)):
        catalog.admit(whole(RUN, step), QUICK)
        finish(queue, grade, mse)
    catalog.admit(whole(RUN, 100, folder="best"), QUICK)
    catalog.admit(whole(RUN, 300), QUICK)
    claim = queue.claim("w", lease_seconds=60)
    assert claim is not None
    queue.fail(claim, "w", cause="crash", error="it died", max_attempts=1, retry_delay_seconds=0)
    catalog.admit(whole(RUN, 400), QUICK)
    catalog.note(seen(RUN, "checkpoint-50"), FileState.UNLOADABLE, "no ZIP archive")
    return queue


def finish(queue: Queue, grade: str, mse: float) -> None:
    """Measure the next job."""
    claim = queue.claim("w", lease_seconds=60)
    assert claim is not None
    assert queue.finish(claim, "w", measured(grade, mse), no_alerts)


# --- help and usage


def test_help_lists_every_verb(command: Command) -> None:
    """`--help`, and no arguments at all, show what there is."""
    shown = command("--help").stdout
    for name, verb in VERBS.items():
        assert re.search(rf"^  {name} +{re.escape(verb.summary[:20])}", shown, re.MULTILINE)
    assert command(code=2).stderr or command(code=2).stdout


@pytest.mark.parametrize(
    "verb",
    ["run", "worker", "scan", "status", "runs", "history", "best", "forecast", "show", "jobs", "jobs list", "jobs retry",
     "jobs cancel", "kept", "kept list", "kept release", "kept export", "rerun", "wait", "db upgrade", "db downgrade", "db current", "db check", "db copy", "config check", "config show", "alerts test"],
)  # fmt: skip
def test_every_verb_explains_itself(command: Command, verb: str) -> None:
    """Each has help with an example, and takes --config."""
    shown = command(*verb.split(), "--help").stdout
    assert f"Example: nptwatch {verb.partition(' ')[0]}" in shown
    assert "--config" in shown


def test_version(command: Command) -> None:
    """`--version` prints it to standard output."""
    assert re.fullmatch(r"nptwatch \d+\.\d+\.\d+\n", command("--version").stdout)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["statsu"], "Did you mean 'status'?"),
        (["status", "--nonsense"], "No such option"),
        (["history"], "Missing argument"),
        (["wait", "x", "--until", "great"], "great"),
        (["wait", "x", "--until", "invalid"], "--until takes POOR, FAIR, GOOD or EXCELLENT"),
        (["history", "x", "--limit", "0"], "'--limit'"),
        (["history", "x", "--since", "soon"], "--since takes a step (500)"),
        (["history", "x", "--json", "--csv"], "--json or --csv"),
        (["best", "x", "--json", "--path"], "--json or --path"),
        (["jobs", "retry"], "say --all"),
        (["jobs", "cancel", "3", "--all"], "say --all"),
        (["run"], "no directory to watch"),
        (["run", "missing"], "not a directory: "),
        (["scan", "--dry-run", "missing"], "not a directory: "),
        (["run", ".", "--config", "missing.toml"], "no settings file"),
        (["status", "--database-url", "mysql://h/d"], "expected sqlite or postgresql"),
        (["status", "--database-url", "nonsense"], "not an SQLAlchemy URL"),
    ],
)
def test_usage_errors_exit_2(command: Command, arguments: Sequence[str], told: str) -> None:
    """What is called wrongly is told on stderr; nothing is printed, nothing created."""
    done = command(*arguments, code=2)
    assert told in done.stderr
    assert done.stdout == ""
    assert list(command.home.iterdir()) == []


def test_wrong_settings_exit_2_and_tell_all(command: Command) -> None:
    """Every verb refuses wrong settings with every problem."""
    file = command.home / "nptwatch.toml"
    file.write_text("[worker]\ncuont = 1\ncount = -1\n")
    done = command("status", code=2, env={"NPTWATCH_LOG__LEVEL": "loud"})
    assert done.stderr.startswith("error: the settings have 3 problems:\n")
    assert "did you mean worker.count?" in done.stderr


# --- no database


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["runs"], ["history", "x"], ["best", "x"], ["forecast", "x"], ["show", "x"], ["jobs"], ["jobs", "retry", "1"],
     ["rerun", "1"], ["kept"], ["kept", "release", "1"], ["kept", "export", "x", "y"], ["db", "current"]],
)  # fmt: skip
def test_reading_where_nothing_ran_exits_5(command: Command, arguments: Sequence[str]) -> None:
    """It says where it looked and what to do, and creates nothing."""
    done = command(*arguments, code=5)
    assert (
        f"no database yet at {command.home}/state/nptwatch.db: start `nptwatch run`" in done.stderr
    )
    assert list(command.home.iterdir()) == []


def test_garbage_for_a_database_exits_5(command: Command) -> None:
    """A file that is no database is named, with what to do."""
    (command.home / "state").mkdir()
    (command.home / "state/nptwatch.db").write_bytes(b"garbage" * 1000)
    for verb in ("status", "runs"):
        assert "the file is damaged or no SQLite database" in command(verb, code=5).stderr


def test_db_upgrade_makes_the_schema(command: Command) -> None:
    """An empty file is told apart from ours; `db upgrade` makes it usable, twice without harm."""
    (command.home / "state").mkdir()
    (command.home / "state/nptwatch.db").touch()
    assert "nptwatch db upgrade" in command("status", code=5).stderr
    assert command("db", "current").stdout == "none\n"
    assert "upgraded from nothing" in command("db", "upgrade").stdout
    assert "was already" in command("db", "upgrade").stdout
    current = command.json("db", "current")
    assert current["current"] == current["needed"]
    assert "No runs yet" in command("status").stdout


def test_db_downgrade_asks_first(command: Command, queue: Queue) -> None:
    """Without a yes nothing happens; with one the tables are an older version's, and all say so."""
    assert command("db", "downgrade", "0001", code=1).stdout.startswith("Bring ")
    assert "older ones" in command("db", "downgrade", "9999", "--yes", code=2).stderr
    assert "before-0001" in command("db", "downgrade", "0001", "--yes").stdout
    for verb in (["status"], ["history", RUN], ["db", "downgrade", "0001", "--yes"]):
        assert "0001" in command(*verb, code=2 if verb[0] == "db" else 5).stderr
    command("db", "upgrade")
    assert RUN in command("status").stdout


def test_db_downgrade_leaves_workers_in_peace(command: Command, database: Database) -> None:
    """A worker that was heard of just now would go on in tables that it does not know."""
    Workers(database).register("w1", "thishost", 1, "cpu")
    told = command("db", "downgrade", "0001", "--yes", code=5).stderr
    assert "w1 on thishost" in told
    assert command("db", "downgrade", "0001", "--yes", "--force").stdout


def test_db_check_tells_what_is_wrong(command: Command, queue: Queue, database: Database) -> None:
    """A line for each thing that was looked at; something wrong is exit code 5."""
    lines = command("db", "check").stdout.splitlines()
    assert lines == ["OK    schema", "OK    tables", "OK    file", "OK    books"]
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE runs SET status = 'EXCELLENT'")
    assert "FAIL  books" in command("db", "check", code=5).stdout
    found = json.loads(command("db", "check", "--json", code=5).stdout)["findings"]
    assert [item["check"] for item in found if item["faults"]] == ["books"]


# --- reading


def test_history_as_json(command: Command, queue: Queue) -> None:
    """Scripts get every checkpoint: numbers as numbers, what was not measured as null."""
    rows = command.json("history", RUN)
    shown = [(r["step"], r["state"], r["grade"], r["mse"], r["cosine"]) for r in rows]
    assert shown == [
        (50, "unloadable", None, None, None),
        (100, "done", "FAIR", 0.3, 0.97),
        (200, "done", "GOOD", 0.07, 0.97),
        (300, "failed", None, None, None),
        (400, "queued", None, None, None),
    ]
    for row in rows:
        assert row["run"] == RUN
        assert row["path"].startswith("/exp/")
        assert {"profile", "measured_at", "reason"} <= set(row)
    at = datetime.fromisoformat(rows[1]["measured_at"])
    assert at.utcoffset() == timedelta(0)
    assert rows[1]["also"] == [path_of(RUN, "best")]
    assert rows[0]["reason"] == "no ZIP archive"


def test_history_takes_the_end_of_a_name_and_a_limit(command: Command, queue: Queue) -> None:
    """A unique end of the run's path is enough; --limit keeps the last ones."""
    assert [row["step"] for row in command.json("history", "dual", "--limit", "2")] == [300, 400]


def test_history_of_an_unknown_run_exits_2(command: Command, queue: Queue) -> None:
    """A typo is answered with the runs that come close."""
    assert f"did you mean {RUN}?" in command("history", "llama/daul", code=2).stderr


def test_history_as_text(command: Command, queue: Queue) -> None:
    """In a pipe: one line each, aligned, uncut, reasons in the line, no colours; then the curve."""
    shown, _, curve = command("history", RUN).stdout.partition("\n\n")
    lines = shown.splitlines()
    assert curve.startswith("MSE  ")
    assert lines[0].split() == [
        "STEP", "CHECKPOINT", "STATE", "MSE", "COSINE", "GRADE", "MEASURED", "REASON",
    ]  # fmt: skip
    assert lines[1].split(maxsplit=7)[-1] == "no ZIP archive"
    assert lines[2].startswith(" 100  checkpoint-100 = best  done ")
    assert " ".join(lines[2].split()).count("0.3000 0.9700 FAIR") == 1
    assert lines[3].split()[-2:] == ["2026-11-20T12:00:00Z", "-"]
    assert "\x1b" not in "".join(lines)
    start = lines[0].index("GRADE")
    assert [line[start - 2 : start] for line in lines[1:]] == ["  "] * 5


@pytest.mark.parametrize("columns", [80, 160])
def test_tables_fit_their_terminal(command: Command, queue: Queue, columns: int) -> None:
    """At 80 and 160 columns no line of a table wraps; grades and states have colours."""
    for arguments in (["history", RUN], ["runs"], ["status"], ["jobs"]):
        shown = command.on_terminal(*arguments, columns=columns)
        plain = re.sub(r"\x1b\[\d+m", "", shown)
        table = [line for line in plain.splitlines() if not line.startswith(("Database", "step"))]
        assert max(map(len, table)) <= columns, arguments
    shown = command.on_terminal("history", RUN, columns=columns)
    assert "\x1b[32mGOOD\x1b[0m" in shown
    assert "step 300 \x1b[31mfailed\x1b[0m: " in shown
    assert " ago" in shown


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_color_is_respected(command: Command, queue: Queue, env: dict[str, str]) -> None:
    """Whoever wants no colours gets none."""
    assert "\x1b" not in command.on_terminal("history", RUN, columns=80, **env)


def test_runs_as_json(command: Command, queue: Queue) -> None:
    """The same keys as history, of the run's newest measured checkpoint."""
    (row,) = command.json("runs")
    keys = ("run", "step", "path", "profile", "state", "grade", "mse", "cosine", "status")
    assert [row[key] for key in keys] == [
        RUN, 200, path_of(RUN, "checkpoint-200"), "quick", "done", "GOOD", 0.07, 0.97, "GOOD",
    ]  # fmt: skip
    assert row["run_path"] == f"/exp/{RUN}"
    assert datetime.fromisoformat(row["measured_at"]).utcoffset() == timedelta(0)
    assert (row["open_jobs"], row["failed"], row["best_mse"]) == (1, 1, 0.07)


def test_status_as_json(command: Command, queue: Queue) -> None:
    """One object: queue counts, workers, newest result of each run, changes, alerts, database."""
    status = command.json("status")
    counts = {state: count for state, count in status["queue"].items() if count}
    assert counts == {"queued": 1, "done": 2, "failed": 1}
    assert status["workers"] == []
    assert [(run["run"], run["step"], run["grade"]) for run in status["runs"]] == [
        (RUN, 200, "GOOD")
    ]
    assert [change["new"] for change in status["changes"]] == ["GOOD", "FAIR"]
    assert status["alerts"] == {"pending": 0}
    assert status["database"] == f"sqlite:///{command.home}/state/nptwatch.db"


def test_status_as_text(command: Command, queue: Queue) -> None:
    """People see queue, workers, runs and the latest changes."""
    shown = command("status").stdout
    assert "Queue:    1 queued, 0 leased, 2 done, 1 failed (oldest waits " in shown
    assert "Worker:   none at work (start `nptwatch run`)" in shown
    assert "Latest changes" in shown


def test_show(command: Command, queue: Queue) -> None:
    """A checkpoint is found by file, folder or job number, with its whole report."""
    by_path = command.json("show", path_of(RUN, "checkpoint-200"))
    by_folder = command.json("show", str(Path(path_of(RUN, "checkpoint-200")).parent))
    by_job = command.json("show", str(by_path["job_id"]))
    assert by_path == by_folder == by_job
    assert (by_path["grade"], by_path["details"]) == ("GOOD", {"grade": "GOOD"})
    assert re.search(r"^mse: +0.07$", command("show", str(by_path["job_id"])).stdout, re.MULTILINE)
    assert "nothing is known of 'nowhere'" in command("show", "nowhere", code=2).stderr


def test_config_before_and_after_the_verb(command: Command, queue: Queue) -> None:
    """`nptwatch --config X VERB` and `nptwatch VERB --config X` are the same, subverbs too."""
    file = command.home / "elsewhere.toml"
    file.write_text('state_dir = "other"\n')
    del command.env["NPTWATCH_STATE_DIR"]
    for verb in (["history", RUN], ["jobs"], ["jobs", "list"], ["status"]):
        before = command("--config", str(file), *verb, code=5).stderr
        assert before == command(*verb, "--config", str(file), code=5).stderr
        assert f"{command.home}/other/nptwatch.db" in before
    assert str(file) in command("--config", str(file), "config", "check").stdout
    file.write_text('state_dir = "state"\n')
    assert command("--config", str(file), "history", RUN).stdout


def test_flags_name_another_database(command: Command, queue: Queue, tmp_path: Path) -> None:
    """--state-dir and --database-url are over the settings."""
    url = f"sqlite:///{command.home}/state/nptwatch.db"
    command.env["NPTWATCH_STATE_DIR"] = str(tmp_path / "nothing")
    command("runs", code=5)
    assert command.json("runs", "--state-dir", "state") == command.json(
        "runs", "--database-url", url
    )


# --- jobs


def test_jobs_list_retry_and_cancel(command: Command, queue: Queue) -> None:
    """Failed jobs come back, queued ones can be cancelled, and lists say which are which."""
    (failed,) = command.json("jobs", "list", "--state", "failed")
    assert (failed["step"], failed["run"], failed["attempts_by_cause"]) == (300, RUN, {"crash": 1})
    assert command.json("jobs", "--state", "failed") == [failed]
    assert len(command.json("jobs", "list", "--run", "dual")) == 4
    assert command("jobs", "retry", str(failed["job_id"])).stdout == "1 job queued again\n"
    assert command.json("jobs", "list", "--state", "failed") == []
    assert command("jobs", "cancel", "--all").stdout == "2 jobs cancelled\n"
    assert {job["state"] for job in command.json("jobs")} == {"done", "cancelled"}


def test_jobs_that_cannot_be_retried_exit_1(command: Command, queue: Queue) -> None:
    """A job that is not there, or is done, is not silently passed over."""
    (done, *_) = command.json("jobs", "list", "--state", "done")
    missed = command("jobs", "retry", str(done["job_id"]), "999", code=1)
    assert missed.stdout == "0 jobs queued again\n"
    assert "2 not: no such job" in missed.stderr


# --- wait


def test_wait_ends_at_once_where_it_is_good(command: Command, queue: Queue) -> None:
    """The status counts, whatever grade is newest; case does not matter."""
    assert f"{RUN} is GOOD at step 200" in command("wait", RUN, "--until", "good").stdout
    assert command.json("wait", "dual", "--until", "FAIR")["status"] == "GOOD"


def test_wait_times_out(command: Command, queue: Queue) -> None:
    """Exit 1 when the time is over, saying what was the matter."""
    done = command("wait", RUN, "--until", "excellent", "--timeout", "0.2", code=1)
    assert f"waiting: {RUN} is GOOD at step 200" in done.stderr
    assert "was not EXCELLENT within 0.2 s" in done.stderr
    done = command("wait", "nobody", "--timeout", "0", code=1)
    assert "no run 'nobody'" in done.stderr


def test_wait_times_out_without_a_database(command: Command) -> None:
    """Waiting may begin before the daemon does; nothing is created by it."""
    done = command("wait", RUN, "--timeout", "0", code=1)
    assert "no database yet" in done.stderr
    assert list(command.home.iterdir()) == []


def test_wait_sees_a_run_become_good(command: Command, queue: Queue) -> None:
    """It ends when the result comes."""
    child = command.start("wait", RUN, "--until", "excellent", "--every", "0.1", "--timeout", "30")
    assert child.stderr is not None
    assert "waiting: " in child.stderr.readline()
    finish(queue, "EXCELLENT", 0.01)
    out, _ = child.communicate(timeout=30)
    assert child.returncode == 0
    assert f"{RUN} is EXCELLENT at step 400" in out


def test_interrupted_wait_exits_130(command: Command, queue: Queue) -> None:
    """Ctrl-C ends it without a traceback."""
    child = command.start("wait", RUN, "--until", "excellent")
    assert child.stderr is not None
    assert "waiting: " in child.stderr.readline()
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out, err.strip()) == (130, "", "")


# --- config


def test_config_check_and_show(command: Command) -> None:
    """`check` says which file is right; `show` prints TOML that loads again, secrets masked."""
    file = command.home / "nptwatch.toml"
    file.write_text('[database]\nurl = "postgresql://u:hunter2@h/d"\n[watch]\nroots = ["missing"]')
    checked = command("config", "check")
    assert checked.stdout == f"ok: {file}\n"
    assert "missing is not a directory" in checked.stderr
    shown = command("config", "show").stdout
    assert "hunter2" not in shown
    assert f'url = "postgresql://u:***@h/d"  # {file}' in shown
    table = tomllib.loads(shown)
    assert table["watch"]["roots"] == [f"{command.home}/missing"]
    as_json = command.json("config", "show")
    assert as_json["file"] == str(file)
    assert {k: v for k, v in as_json["settings"]["worker"].items() if v is not None} == table[
        "worker"
    ]


# --- scan and run


def test_scan_says_queues_and_knows(command: Command) -> None:
    """A dry run writes nothing; a scan queues each content once; the next finds nothing new."""
    verdicts = command.json("scan", "--dry-run", str(GOLDEN_RUN))
    assert {v["action"] for v in verdicts if v["step"]} == {"queue"}
    assert list(command.home.iterdir()) == []
    fast = {"NPTWATCH_WATCH__SETTLE_SECONDS": "0.1"}
    first = command("scan", "--once", str(GOLDEN_RUN), env=fast)
    assert "4 queued, 2 twins, 0 known" in first.stdout
    second = json.loads(command("scan", "--once", str(GOLDEN_RUN), "--json", env=fast).stdout)
    assert (second["queued"], second["twins"]) == (0, 0)
    assert {v["action"] for v in command.json("scan", "--dry-run", str(GOLDEN_RUN))} == {"known"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("verb", ["run", "scan"])
def test_watching_goes_on_until_told_to_stop(
    command: Command, verb: str, number: signal.Signals
) -> None:
    """`run` and `scan` queue what they find and exit 0 on SIGTERM and Ctrl-C."""
    command.env |= {"NPTWATCH_WORKER__COUNT": "0", "NPTWATCH_WATCH__SETTLE_SECONDS": "0.1"}
    child = command.start(verb, str(GOLDEN_RUN))
    out: list[str] = []
    reader = threading.Thread(target=lambda: out.extend(child.communicate()))
    reader.start()
    try:
        until(lambda: queued(command) == 4, child)
        child.send_signal(number)
        reader.join(30)
        assert (child.returncode, out[0]) == (0, "")
        assert "watcher_stopped" in out[1]
    finally:
        child.kill()
        reader.join(30)


def queued(command: Command) -> int:
    """Count queued jobs; 0 while there is no database."""
    done = subprocess.run(
        [sys.executable, "-m", "nptwatch", "status", "--json"],
        env=command.env, cwd=command.home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return int(json.loads(done.stdout)["queue"]["queued"]) if done.returncode == 0 else 0


def until(condition: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    """Poll a condition for at most 30 s."""
    deadline = time.monotonic() + 30
    while not condition():
        assert child.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- what it costs


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["status"], ["runs"], ["history", RUN], ["best", RUN], ["forecast", RUN], ["jobs"], ["wait", RUN], ["config", "show"],
     ["scan", "--dry-run", "."], ["db", "current"], ["show", "1"], ["rerun", "1"], ["kept"]],
)  # fmt: skip
def test_no_verb_that_reads_loads_torch(
    command: Command, queue: Queue, arguments: Sequence[str]
) -> None:
    """Neither torch, transformers nor numpy; `--help` and `status` not even SQLAlchemy."""
    heavy = {"torch", "transformers", "numpy", "safetensors"}
    if arguments[0] in {"--help", "status"}:
        heavy |= {"sqlalchemy", "alembic", "structlog", "rich"}
    if arguments[0] == "--help":  # needs no settings; pydantic-settings loads asyncio
        heavy |= {"pydantic_settings", "asyncio"}
    program = (
        "import sys; from nptwatch.cli.main import main; code = main(sys.argv[1:]); "
        f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=command.env, cwd=command.home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "[]")


def test_reader_that_ends_early_is_no_error(command: Command, queue: Queue) -> None:
    """`nptwatch history RUN | head -1` complains of nothing."""
    child = command.start("history", RUN, "--json")
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    assert child.stderr.read() == ""
    child.wait(30)
    child.stderr.close()
