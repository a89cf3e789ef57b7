"""From what a user names (a file, its folder, a run) to weights files, as the watcher sees them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nptwatch.errors import CheckpointDeletedError, LayoutError
from nptwatch.npt.files import base_model_of, step_of, step_of_folder
from nptwatch.watch.discovery import Finder
from nptwatch.watch.sighting import run_of

if TYPE_CHECKING:
    from nptwatch.settings import WatchSettings


def weights_below(path: Path, settings: WatchSettings) -> list[Path]:
    """Return the weights files that `path` names: by run, in step order, unnumbered ones last.

    Args:
        path: a weights file, its folder, or any folder above.
        settings: what makes a file a checkpoint's weights; what the watcher is told to include or
            exclude does not count for a path that a user names.

    Raises:
        CheckpointDeletedError: there is nothing at `path`.
        LayoutError: a folder without any weights file; names what it holds instead.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise CheckpointDeletedError(f"{path}: no such file or folder")
    here = {"roots": (path,), "include": ("**",), "exclude": ()}
    (sweep,) = Finder(settings.model_copy(update=here)).sweep()
    found = sweep.files
    if not found:
        names = ", ".join(sorted(entry.name for entry in path.iterdir())[:5]) or "nothing"
        wanted = " or ".join(settings.weights)
        raise LayoutError([f"{path}: no checkpoint in it (no {wanted}); it holds {names}"])
    return sorted((_as_named(Path(file), path) for file in found), key=_order)


def base_named_by(weights: Path) -> str | None:
    """Return the base model that a checkpoint or its run names."""
    absolute = weights.absolute()
    return base_model_of(absolute, Path(run_of(str(absolute))))


def _as_named(file: Path, folder: Path) -> Path:
    """Show a file below the folder as it was named, not by its real path."""
    real = folder.resolve()
    return folder / file.relative_to(real) if file.is_relative_to(real) else file


def _order(file: Path) -> tuple[str, bool, int, str]:
    """Keep a run together: runs may have different bases, and one is in memory at a time."""
    run = run_of(str(file.absolute()))
    step = step_of_folder(file)
    if step is None:
        return run, True, step_of(file) or 0, str(file)
    return run, False, step, str(file)
