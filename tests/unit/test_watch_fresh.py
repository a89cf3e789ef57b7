"""A file is seen as it is, though a network file system remembers it as it was."""

from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from nptwatch.settings import WatchSettings
from nptwatch.watch.discovery import Finder
from nptwatch.watch.readiness import look_at
from nptwatch.watch.sighting import is_gone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nptwatch.store.records import SeenFile


class NfsClient:
    """Remembers what stat said below a folder until something is opened, as an NFS client does.

    Opening asks the server of what is opened; of names in a folder it then looks anew.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = str(root)
        self._stat: Callable[..., Any] = os.stat
        self._open: Callable[..., Any] = os.open
        self._scandir: Callable[..., Any] = os.scandir
        self._known: dict[str, os.stat_result | OSError] = {}
        monkeypatch.setattr(os, "stat", self.stat)
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(os, "scandir", self.scandir)

    def stat(self, path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        """Answer from memory."""
        if isinstance(path, int) or not os.fspath(path).startswith(self._root):
            return self._stat(path, *args, **kwargs)
        name = os.fspath(path)
        if name not in self._known:
            try:
                self._known[name] = self._stat(path, *args, **kwargs)
            except OSError as exc:
                self._known[name] = exc
        known = self._known[name]
        if isinstance(known, OSError):
            raise known
        return known

    def open(self, path: Any, *args: Any, **kwargs: Any) -> int:
        """Open, and forget what was remembered of it; a name that was not there stays unknown."""
        name = os.fspath(path)
        known = self._known.get(name)
        if isinstance(known, OSError):
            raise known
        self._renew(name)
        return self._open(path, *args, **kwargs)

    def scandir(self, path: Any) -> Any:
        """List, which opens."""
        self._renew(os.fspath(path))
        return self._scandir(path)

    def _renew(self, name: str) -> None:
        if name in self._known:
            self._known[name] = self._stat(name)
        for other in [n for n, k in self._known.items() if isinstance(k, OSError)]:
            if other.rpartition("/")[0] == name:
                del self._known[other]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A checkpoint's file."""
    file = tmp_path / "run/checkpoints/checkpoint-1/npt_weights.pt"
    file.parent.mkdir(parents=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("npt_weights/data.pkl", b"\x80\x02}.")
    return file


@pytest.fixture
def nfs(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> NfsClient:
    """A client whose memory is empty."""
    assert weights.exists()
    return NfsClient(tmp_path, monkeypatch)


def seen(tmp_path: Path) -> SeenFile:
    """Find the file."""
    (sweep,) = Finder(WatchSettings(roots=(tmp_path,))).sweep()
    (file,) = sweep.files.values()
    return file


def seen_nothing(tmp_path: Path) -> bool:
    """Find no file."""
    (sweep,) = Finder(WatchSettings(roots=(tmp_path,))).sweep()
    return not sweep.files


@pytest.mark.usefixtures("nfs")
def test_a_growing_file_is_seen_to_grow(tmp_path: Path, weights: Path) -> None:
    """Two looks never agree on a remembered size."""
    file = seen(tmp_path)
    first = look_at(file, (), at=0.0, wall=0.0)
    with weights.open("ab") as more:
        more.write(b"y" * 50)
    assert weights.stat().st_size == first.file.size_bytes  # what others still believe
    second = look_at(file, (), at=1.0, wall=1.0)
    assert second.file.size_bytes == first.file.size_bytes + 50


@pytest.mark.usefixtures("nfs")
def test_a_new_marker_is_seen(tmp_path: Path, weights: Path) -> None:
    """Though the name was looked up in vain before; an old one's new time is seen too."""
    marker = weights.with_name("done")
    file = seen(tmp_path)

    def fault() -> str | None:
        return look_at(file, (marker.name,), at=0.0, wall=0.0).fault

    assert fault() is None
    marker.touch()
    os.utime(marker, (1, 1))
    assert fault() == "done beside it is older"
    os.utime(marker, None)
    assert fault() is None


@pytest.mark.usefixtures("nfs")
def test_a_file_that_is_back_is_not_called_gone(tmp_path: Path, weights: Path) -> None:
    """Deleted and written anew: that it was absent is not believed from memory."""
    content = weights.read_bytes()
    weights.unlink()
    assert seen_nothing(tmp_path)
    assert is_gone(str(weights))
    weights.write_bytes(content)
    assert not weights.exists()  # what others still believe
    assert not is_gone(str(weights))


@pytest.mark.usefixtures("nfs")
def test_a_new_checkpoint_is_found_by_the_next_walk(tmp_path: Path, weights: Path) -> None:
    """Each folder above it is listed, which asks the server."""
    finder = Finder(WatchSettings(roots=(tmp_path,)))
    assert len(finder.sweep()[0].files) == 1
    other = weights.parent.with_name("checkpoint-2") / weights.name
    other.parent.mkdir()
    other.touch()
    assert str(other) in finder.sweep()[0].files
