"""The folder `kept/`: one turn at a time, everything in and out by one rename.

kept/.place                             whose folder it is, wherever it is mounted
kept/RUN/GOOD.json                      the best GOOD checkpoint of the run
kept/RUN/STEP-CONTENT/card.json         what is known of one
kept/RUN/STEP-CONTENT/checkpoint-STEP/  its weights, and the base model's name in config.json
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nptwatch.worker.cards import CARD, CONFIG, POINTER, checkpoint_folder, pin_folder, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from nptwatch.store.records import KeptRow

MAKING = ".making-"
"""So begin names of what is not whole yet, or not any more. Whoever has the turn may remove it."""

LOCK, PLACE = ".lock", ".place"

_PARTS_BELOW = 4
"""Of a weights file's path: run, pin, checkpoint, file."""


class Shelf:
    """Files of one folder. Methods but `exists` and `turn` want the turn.

    Args:
        roots: watched directories, which it must not lie in: its files would be new checkpoints.

    Raises (every method):
        OSError: the folder cannot be used.
    """

    def __init__(self, folder: Path, roots: Sequence[Path]) -> None:
        self.folder = folder
        self._roots = roots

    def exists(self) -> bool:
        """Whether anything was ever kept here."""
        return self.folder.exists()

    @contextmanager
    def turn(self, *, wait: bool) -> Iterator[bool]:
        """Have the folder to oneself; gives False where somebody else has, unless waited for.

        The lock ends with its process, however that ends.
        """
        real = Path(os.path.realpath(self.folder))
        for root in self._roots:
            if real.is_relative_to(os.path.realpath(root)):
                raise OSError(
                    errno.EPERM, f"lies below the watched root {root}: set state_dir elsewhere"
                )
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    def place(self) -> str:
        """Give the folder's identity, made when it is first used."""
        path = self.folder / PLACE
        try:
            return str(uuid.UUID(path.read_text(encoding="ascii").strip()))
        except FileNotFoundError:
            new = self.folder / f"{MAKING}{PLACE}"
            new.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
            _sync(new)
            new.replace(path)
            return self.place()
        except ValueError as exc:
            raise OSError(errno.EINVAL, f"{path} is damaged: remove it") from exc

    def sweep(self) -> int:
        """Remove what was half made or half removed; give how many."""
        left = list(self.folder.glob(f"{MAKING}*"))
        for path in left:
            _remove(path)
        return len(left)

    def found(self, row: KeptRow) -> Path | None:
        """Find the weights of a checkpoint that was put here, and the database not told."""
        folder = self.folder / pin_folder(row) / checkpoint_folder(row)
        if folder.is_symlink() or not folder.is_dir():
            return None
        files = [path for path in folder.iterdir() if path.name != CONFIG]
        return files[0] if len(files) == 1 and files[0].is_file() else None

    def located(self, path: str) -> Path:
        """Give where a weights file is now: the folder may have moved since."""
        return self.folder.joinpath(*Path(path).parts[-_PARTS_BELOW:])

    def put(
        self,
        row: KeptRow,
        name: str,
        make: Callable[[Path], Mapping[str, Any]],  # Any: free JSON
    ) -> Path:
        """Add a checkpoint, whole or not at all.

        Args:
            name: of the weights file.
            make: makes that file and gives the card.

        Returns:
            Where the weights file is.
        """
        final = self.folder / pin_folder(row)
        making = self.folder / f"{MAKING}{uuid.uuid4()}"
        inner = making / checkpoint_folder(row)
        inner.mkdir(parents=True)
        try:
            card = make(inner / name)
            if row.base_model is not None:
                write_json(inner / CONFIG, {"model_name": row.base_model})
            write_json(making / CARD, dict(card))
            _sync(inner)
            _sync(making)
            self._run_folder(final.parent)
            self.take_away(final)  # what is there under this name is not what it should be
            making.rename(final)
            _sync(final.parent)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        return final / inner.name / name

    def take_away(self, pin: Path) -> None:
        """Remove a checkpoint's folder: it is gone at once, its blocks a little later."""
        if self.folder not in pin.parents or pin.parent.is_symlink():
            return
        aside = self.folder / f"{MAKING}{uuid.uuid4()}"
        try:
            pin.rename(aside)
        except FileNotFoundError:
            return
        _remove(aside)

    def point(self, pointers: Mapping[Path, Mapping[str, Any]]) -> None:  # Any: free JSON
        """Write the pointers of runs, by their folders; other runs have none.

        A run's folder goes when nothing is left in it.
        """
        for folder in self._run_folders():
            if folder in pointers:
                write_json(folder / POINTER, dict(pointers[folder]))
                continue
            (folder / POINTER).unlink(missing_ok=True)
            try:
                folder.rmdir()
            except OSError as exc:
                if exc.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise

    def _run_folders(self) -> list[Path]:
        return [
            path
            for path in self.folder.iterdir()
            if not path.name.startswith(".") and not path.is_symlink() and path.is_dir()
        ]

    def _run_folder(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        if folder.is_symlink():
            raise OSError(errno.ELOOP, f"{folder} is a symbolic link: remove it")


def _remove(path: Path) -> None:
    """Remove a file or folder; of a link only itself."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def _sync(path: Path) -> None:
    """Have a file or folder on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
