"""What is remembered of listed folders between two sweeps, and what never is."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from nptwatch.filesystem import FileSystem
from nptwatch.settings import WatchSettings
from nptwatch.watch import listings
from nptwatch.watch.discovery import Finder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SETTLED_SECONDS = 0.05
"""A tick of a file system's clock is shorter."""


class Tree:
    """A tree whose folders did not change just now, and a finder that has walked it."""

    def __init__(self, root: Path, reads: list[str]) -> None:
        self.root, self._reads = root, reads
        for step in (1, 2):
            self.write(f"run/checkpoints/checkpoint-{step}/npt_weights.pt")
        self.age()
        self.finder = Finder(WatchSettings(roots=(root,), exclude=("skipped",)))
        self.sweep()

    def write(self, path: str, content: bytes = b"x") -> Path:
        """Write a file."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def age(self) -> None:
        """Let time pass, so that no folder has changed just now."""
        time.sleep(2 * SETTLED_SECONDS)

    def sweep(self) -> tuple[set[str], list[str]]:
        """Walk; give the files found and the folders read, both below the root."""
        self._reads.clear()
        (sweep,) = self.finder.sweep()
        files = {os.path.relpath(path, self.root) for path in sweep.files}
        return files, sorted(os.path.relpath(folder, self.root) for folder in self._reads)

    def sizes(self) -> dict[str, int]:
        """Walk; give the sizes of the files found."""
        (sweep,) = self.finder.sweep()
        return {
            os.path.relpath(path, self.root): file.size_bytes for path, file in sweep.files.items()
        }


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which folders the operating system is asked to list."""
    asked: list[str] = []
    real: Callable[..., Any] = os.scandir

    def scandir(path: str) -> Any:
        asked.append(str(path))
        return real(path)

    monkeypatch.setattr(listings.os, "scandir", scandir)
    monkeypatch.setattr(listings, "SETTLED_NS", int(SETTLED_SECONDS * 1e9))
    return asked


@pytest.fixture
def tree(tmp_path: Path, reads: list[str]) -> Tree:
    """Give a walked tree of two checkpoints."""
    return Tree(tmp_path / "root", reads)


FIRST, SECOND = (f"run/checkpoints/checkpoint-{step}/npt_weights.pt" for step in (1, 2))


def test_nothing_new_is_read_from_no_folder(tree: Tree) -> None:
    """Only the root's reachability is asked for."""
    assert tree.sweep() == ({FIRST, SECOND}, ["."])


def test_a_new_checkpoint_is_found(tree: Tree) -> None:
    """Its folder and the one above are read, not those beside it."""
    third = "run/checkpoints/checkpoint-3/npt_weights.pt"
    tree.write(third)
    files, read = tree.sweep()
    assert files == {FIRST, SECOND, third}
    assert read == [".", "run/checkpoints", "run/checkpoints/checkpoint-3"]


def test_a_file_added_to_an_old_folder_is_found(tree: Tree) -> None:
    """The folder's time has changed with it."""
    (tree.root / FIRST).unlink()
    assert tree.sweep()[0] == {SECOND}
    tree.write(FIRST)
    assert tree.sweep()[0] == {FIRST, SECOND}


def test_a_file_rewritten_in_place_is_seen(tree: Tree) -> None:
    """No folder changes by it, so that files are looked at each time."""
    tree.write(FIRST, b"longer")
    assert tree.sizes() == {FIRST: 6, SECOND: 1}


def test_a_deleted_or_replaced_folder_is_seen(tree: Tree) -> None:
    """A folder of the same name and time but another inode is another one."""
    folder = (tree.root / FIRST).parent
    folder.rename(tree.root / "elsewhere")
    assert tree.sweep()[0] == {SECOND, "elsewhere/npt_weights.pt"}
    folder.mkdir()
    tree.age()
    assert tree.sweep()[0] == {SECOND, "elsewhere/npt_weights.pt"}
    (tree.root / "elsewhere").rename(tree.root / "skipped")
    tree.age()
    assert tree.sweep()[0] == {SECOND}


def test_what_is_left_out_is_told_each_time(tree: Tree) -> None:
    """Reasons are part of what is remembered."""
    tree.write("skipped/npt_weights.pt")
    tree.age()
    for _ in range(2):
        (sweep,) = tree.finder.sweep()
        assert sweep.skipped == {str(tree.root / "skipped"): "excluded by watch.exclude"}


def test_a_folder_that_changed_just_now_is_read_again(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a tick of the clock a second change would not show."""
    monkeypatch.setattr(listings, "SETTLED_NS", 60 * 10**9)
    tree.write("run/notes.txt")
    assert tree.sweep()[1] == [".", "run"]
    assert tree.sweep()[1] == [".", "run"]


def test_a_link_that_points_elsewhere_is_followed_there(tree: Tree, tmp_path: Path) -> None:
    """Real paths are those of now, though the link's name and folder are as before."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "npt_weights.pt").write_bytes(b"x")
    link = tree.root / "linked"
    for name in ("one", "two"):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / name)
        tree.age()
        (sweep,) = tree.finder.sweep()
        assert str(tmp_path / name / "npt_weights.pt") in sweep.files
        assert len(sweep.files) == 3


@pytest.mark.parametrize("found", [FileSystem(name="nfs4", network=True), None])
def test_network_file_systems_are_read_each_time(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch, found: FileSystem | None
) -> None:
    """There a folder's time may be an old one; so may it where nobody knows what it is."""
    monkeypatch.setattr(listings, "filesystem_of", lambda _: found)
    tree = Tree(tmp_path / "root", reads)
    assert len(tree.sweep()[1]) == 6


def test_now_and_then_everything_is_read(tree: Tree) -> None:
    """Should a file system not keep its times, a checkpoint is found all the same, later."""
    assert max(len(tree.sweep()[1]) for _ in range(70)) == 6
