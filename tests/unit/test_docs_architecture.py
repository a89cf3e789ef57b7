"""ARCHITECTURE.md and CONTRIBUTING.md name only what there is, and leave out nothing large."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from nptwatch.store.records import FileState, JobState
from nptwatch.store.tables import Base

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "nptwatch"
PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md")

NAMED_FILE = re.compile(r"`([\w./-]+(?:\.py|\.toml|\.txt|\.md|/)|\.ci/run|Makefile)`")
NAMED_TEST = re.compile(r"`(test_\w+)`")
THE_TRAINERS = {"best/", "final/"}
"""Folders that are named and are not of this repository."""


@cache
def page(name: str) -> str:
    """Read a page of the documentation."""
    return (ROOT / name).read_text()


def places() -> list[Path]:
    """Folders that a name may be relative to: the checkout, the package, a package's own line."""
    return [ROOT, PACKAGE, *(folder for folder in PACKAGE.iterdir() if folder.is_dir())]


@pytest.mark.parametrize("name", PAGES)
def test_named_files_and_folders_exist(name: str) -> None:
    """Every module, folder and file in backquotes is there."""
    named = set(NAMED_FILE.findall(page(name))) - THE_TRAINERS
    assert len(named) > 5
    assert not {n for n in named if not any((place / n).exists() for place in places())}


def map_lines() -> dict[str, str]:
    """Give each package's entry in the map, with the lines that go on below it."""
    section = page("ARCHITECTURE.md").partition("## Map")[2].partition("\n## ")[0]
    entries = re.findall(r"^- `(\w+)/` (.+(?:\n  .+)*)", section, flags=re.MULTILINE)
    return dict(entries)


def test_every_package_has_its_line_in_the_map() -> None:
    """Neither a package that is missing in the map nor one that is gone from the code."""
    packages = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert set(map_lines()) == packages


@pytest.mark.parametrize("package", sorted(map_lines()))
def test_modules_in_a_packages_line_are_its_own(package: str) -> None:
    """A module named in a package's line lies in that package."""
    named = re.findall(r"`(\w+\.py)`", map_lines()[package])
    assert not [name for name in named if not (PACKAGE / package / name).is_file()]


def test_modules_of_the_shared_ground_have_their_line() -> None:
    """Every module at the top of the package, entry points aside, is in the map."""
    named = set(re.findall(r"`(\w+\.py)`", page("ARCHITECTURE.md")))
    top = {file.name for file in PACKAGE.glob("*.py")}
    assert top - {"__init__.py", "__main__.py"} <= named


@pytest.mark.parametrize("name", PAGES)
def test_named_tests_exist(name: str) -> None:
    """A failure that is said to be held by a test is held by one of that name."""
    tests = {
        found
        for file in (ROOT / "tests").rglob("test_*.py")
        for found in [file.stem, *re.findall(r"def (test_\w+)\(", file.read_text())]
    }
    assert not set(NAMED_TEST.findall(page(name))) - tests


def test_every_failure_names_the_test_that_holds_it() -> None:
    """No row of the failure table is a mere promise."""
    section = page("ARCHITECTURE.md").partition("## When things fail")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    assert not [row for row in rows if not NAMED_TEST.search(row)]


def test_every_table_has_its_row() -> None:
    """The tables of the page are the tables of the code."""
    section = page("ARCHITECTURE.md").partition("## Tables")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)) == set(
        Base.metadata.tables
    )


@pytest.mark.parametrize("states", [FileState, JobState])
def test_every_state_is_in_the_graph(states: type[FileState | JobState]) -> None:
    """A checkpoint's life on the page knows every state of the code."""
    section = page("ARCHITECTURE.md").partition("## Life of a checkpoint")[2].partition("\n## ")[0]
    graph = "\n".join(line for line in section.splitlines() if line.startswith("    "))
    assert not [state for state in states if not re.search(rf"\b{state}\b", graph)]
