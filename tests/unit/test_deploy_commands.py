"""What deploy/ and docs/operations.md tell people to type and set is what there is."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest
import yaml
from deploying import DEPLOY, ROOT
from typer.main import get_command

from nptwatch.cli.main import app
from nptwatch.sources import FIELDS, NOT_SETTINGS, SECTIONS

if TYPE_CHECKING:
    from pathlib import Path

    import click

PAGE = ROOT / "docs/operations.md"
JOURNAL = {"NPTWATCH_EVENT", "NPTWATCH_RUN", "NPTWATCH_STEP", "NPTWATCH_GRADE"}
"""Fields of the journal, which are called like variables."""
CALL = re.compile(
    r"""(?:^\s*|&&\ |;\ |sudo\ |exec\ |--\ )  # where a command begins
        "?(?:[^\s"]*/)?nptwatch"?\             # by whatever path
        ([a-z](?:(?!&&)[^|;\#)\n])+)         # its verb, and all up to the next command
    """,
    flags=re.MULTILINE | re.VERBOSE,
)
FILES = sorted(file for file in DEPLOY.rglob("*") if file.is_file() and "secrets" not in file.parts)
VARIABLES = {f"NPTWATCH_{key.replace('.', '__').upper()}" for key in FIELDS}


def typed(text: str) -> list[str]:
    """Give the command lines in a piece of shell, without what stands before `nptwatch`."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line for line in joined.splitlines() if not line.lstrip().startswith("#")]
    found = CALL.finditer("\n".join(lines))
    return [one[1].strip() for one in found]


def of_file(file: Path) -> list[str]:
    """Give the command lines of a file below deploy/."""
    text = file.read_text()
    match file.suffix:
        case ".service":
            return typed("\n".join(re.findall(r"^Exec\w+=(.+)", text, flags=re.MULTILINE)))
        case ".sh" | ".sbatch":
            return [line for line in typed(text) if not line.startswith('"$@"')]
        case ".yaml" | ".yml" if "compose" in file.name:
            services = yaml.safe_load(text)["services"].items()
            given = [(name, one.get("command")) for name, one in services]
            return [shlex.join(command) for name, command in given if command and name != "reader"]
        case ".yml":
            return [one for fix in re.findall(r'fix: "(.+)"', text) for one in typed(fix)]
    return []


def of_page() -> list[str]:
    """Give the command lines of the page: its blocks of shell, and what stands in backquotes."""
    text = PAGE.read_text()
    blocks = re.findall(r"```sh\n(.+?)```", text, flags=re.DOTALL)
    prose = re.sub(r"```.+?```", "", text, flags=re.DOTALL)
    quoted = [" ".join(one.split()) for one in re.findall(r"`(nptwatch [^`]+)`", prose)]
    return [line for block in [*blocks, *quoted] for line in typed(block)]


LINES = {
    **{str(file.relative_to(ROOT)): of_file(file) for file in FILES},
    "docs/operations.md": of_page(),
}


def faults(line: str) -> list[str]:
    """Give what of a command line does not exist: its verbs and options."""
    command: click.Command = get_command(app)
    wrong = []
    words = iter(line.split())
    for word in words:
        below = getattr(command, "commands", {})
        if word.startswith("--"):
            name, _, given = word.partition("=")
            option = next((one for one in command.params if name in one.opts), None)
            if option is None:
                wrong.append(word)
            elif not (given or getattr(option, "is_flag", False)):
                next(words, None)
        elif word in below:
            command = below[word]
        elif below:
            return [*wrong, word]
    return wrong


@pytest.mark.parametrize("where", [where for where, lines in LINES.items() if lines])
def test_commands_exist(where: str) -> None:
    """Verb by verb and option by option, by the command's own parser."""
    assert {line: faults(line) for line in LINES[where] if faults(line)} == {}


def test_the_check_of_commands_finds_them_and_can_fail() -> None:
    """Commands are found where they are, and a wrong verb or option in one is seen."""
    with_some = {where for where, lines in LINES.items() if lines}
    assert {
        "deploy/systemd/nptwatch.service",
        "deploy/systemd/nptwatch-worker@.service",
        "deploy/prometheus/nptwatch.rules.yml",
        "deploy/container/compose.yaml",
        "deploy/container/compose.cuda.yaml",
        "deploy/slurm/nptwatch-worker.sbatch",
        "deploy/ray/job.sh",
    } <= with_some
    assert len(LINES["docs/operations.md"]) > 20
    assert faults("worker --workers 2 --until-emtpy") == ["--until-emtpy"]
    assert faults("wroker --workers 2") == ["wroker"]
    assert faults("db upgarde") == ["upgarde"]
    assert typed("sudo /opt/nptwatch/bin/nptwatch run /data && nptwatch status # now") == [
        "run /data",
        "status",
    ]


@pytest.mark.parametrize("file", [*FILES, PAGE], ids=lambda file: file.name)
def test_variables_are_settings(file: Path) -> None:
    """Each NPTWATCH_... that somebody may set is one that is read."""
    named = set(re.findall(r"(?<![A-Z_])NPTWATCH_[A-Z_]*[A-Z]", file.read_text()))
    unknown = {name for name in named - VARIABLES - JOURNAL if not NOT_SETTINGS.fullmatch(name)}
    assert unknown == set()


@pytest.mark.parametrize("file", [*FILES, PAGE], ids=lambda file: file.name)
def test_named_settings_exist(file: Path) -> None:
    """`worker.count` and the like."""
    named = re.findall(r"(?<![\w/.$-])([a-z]+\.[a-z_]+)\b(?![\w/(-]|\.\w)", file.read_text())
    sections = SECTIONS - {"channels", "alerts"}
    ours = {name for name in named if name.partition(".")[0] in sections}
    files = {name for name in ours if name.endswith((".md", ".py", ".json", ".ps"))}
    assert ours - files - set(FIELDS) == set()
