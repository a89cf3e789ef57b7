"""Shared by the tests of kept checkpoints: real files, and what watcher and worker say of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stocking import QUICK, claimed, measured, no_alerts
from watching import archive

from nptwatch.npt.files import fingerprint
from nptwatch.settings import KeptSettings
from nptwatch.store.catalog import Catalog
from nptwatch.store.kept import Kept
from nptwatch.store.queue import Queue
from nptwatch.store.records import FileState, KeptRow, KeptState, SeenFile, WholeFile
from nptwatch.worker.keeper import Keeper
from nptwatch.worker.policy import KeepPolicy
from nptwatch.worker.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable

    from nptwatch.store.engine import Database

KIB = 1024


class Keep:
    """An experiment directory, a folder `kept/`, and the database of both."""

    def __init__(self, database: Database, folder: Path, kept: Path | None = None) -> None:
        self.root = Path(os.path.realpath(folder)) / "experiments"
        self.folder = kept or self.root.parent / "state" / "kept"
        self.catalog = Catalog(database)
        self.queue = Queue(database)
        self.store = Kept(database)
        self.settings = KeptSettings(reserve_gib=0)

    def checkpoint(self, name: str, mse: float, *, run: str = "run1", kilobytes: int = 8) -> Path:
        """Write, admit and measure a checkpoint, with the policy of the settings."""
        weights = self.root / run / "checkpoints" / name / "npt_weights.pt"
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.write_bytes(archive(f"{run}/{name}/{mse}", kilobytes=kilobytes))
        self.admit(weights)
        self.measure(mse)
        return weights

    def admit(self, weights: Path) -> None:
        """Say what the watcher says of a whole file."""
        step = weights.parent.name.partition("-")[2]
        whole = WholeFile(
            file=self.seen(weights),
            fingerprint=fingerprint(weights),
            step=int(step) if step else None,
            base_model="base/of-run",
        )
        self.catalog.admit(whole, QUICK)

    def seen(self, weights: Path) -> SeenFile:
        """Give a file as the watcher sees it."""
        about = weights.stat()
        run = weights.parents[2]
        return SeenFile(
            run_path=str(run),
            run_name=run.name,
            root=str(self.root),
            path=str(weights),
            signature=f"{about.st_size}:{about.st_mtime_ns}:{about.st_ino}",
            mtime_ns=about.st_mtime_ns,
            size_bytes=about.st_size,
        )

    def measure(self, mse: float, /, **changes: Any) -> None:  # Any: fields of a result
        """Record the next job's result."""
        grade = "GOOD" if mse < 0.1 else "FAIR" if mse < 0.5 else "POOR"
        if mse < 0.01:
            grade = "EXCELLENT"
        self.queue.finish(
            claimed(self.queue),
            "w",
            measured(**{"grade": grade, "mse": mse} | changes),
            no_alerts,
            keep=KeepPolicy(self.settings).why,
        )

    def rotate(self, weights: Path) -> None:
        """Delete a file as trainers do, and have the watcher notice."""
        weights.unlink()
        self.catalog.gone([str(weights)])

    def rewriting(self, weights: Path) -> None:
        """Have the watcher notice that a file is being written."""
        self.catalog.note(self.seen(weights), FileState.SETTLING, "changed")

    def keeper(self, stopping: Callable[[], bool] = lambda: False, **changes: Any) -> Keeper:
        """Give what minds the folder, as one process has it."""
        return Keeper(
            store=self.store,
            shelf=Shelf(self.folder, [self.root]),
            settings=self.settings.model_copy(update=changes),
            stopping=stopping,
        )

    def row(self, step: int | None, run: str = "run1") -> KeptRow:
        """Give what is known of a step."""
        (row,) = (row for row in self.store.rows() if (row.run, row.step) == (run, step))
        return row

    def states(self) -> dict[int | None, KeptState]:
        """Give the state of each step."""
        return {row.step: row.state for row in self.store.rows()}

    def file(self, step: int | None, run: str = "run1") -> Path:
        """Give where a step is kept; it must be."""
        file = self.row(step, run).file
        assert file is not None
        return Path(file.path)

    def card(self, step: int | None) -> dict[str, Any]:  # Any: free JSON
        """Give a kept step's card."""
        return self.json(self.file(step).parents[1] / "card.json")

    def pointer(self, run: str = "run1") -> dict[str, Any] | None:  # Any: free JSON
        """Give a run's GOOD.json; None: it has none."""
        (found,) = [*self.folder.glob(f"{run}-*/GOOD.json")] or [None]
        return None if found is None else self.json(found)

    def json(self, path: Path) -> dict[str, Any]:  # Any: free JSON
        """Read a JSON object."""
        content: dict[str, Any] = json.loads(path.read_text())
        return content

    def files(self) -> list[str]:
        """List what lies below the folder, its own two files aside."""
        own = {".lock", ".place"}
        every = (path for path in self.folder.rglob("*") if path.name not in own)
        return sorted(str(path.relative_to(self.folder)) for path in every if not path.is_dir())


def tree_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Give all files below a folder with content and time of writing."""
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
