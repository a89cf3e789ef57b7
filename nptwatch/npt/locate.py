"""From what a user names (a file, its folder, a run) to weights files. No torch."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import TYPE_CHECKING

from nptwatch.errors import CheckpointDeletedError, LayoutError
from nptwatch.npt.files import step_of_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def weights_below(path: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the weights files that `path` names, in step order, unnumbered ones last.

    Args:
        path: a weights file, its folder, or any folder above.
        patterns: globs on the file name that make a file a checkpoint's weights.

    Raises:
        CheckpointDeletedError: there is nothing at `path`.
        LayoutError: a folder without any weights file; names what it holds instead.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise CheckpointDeletedError(f"{path}: no such file or folder")
    found = _matching(path, patterns) or [
        file for file in sorted(path.rglob("*")) if _is_weights(file, patterns)
    ]
    if not found:
        names = ", ".join(sorted(entry.name for entry in path.iterdir())[:5]) or "nothing"
        wanted = " or ".join(patterns)
        raise LayoutError([f"{path}: no checkpoint in it (no {wanted}); it holds {names}"])
    return sorted(found, key=_order)


def run_of(weights: Path) -> Path:
    """Return the run's directory: above `checkpoints/`, else above the checkpoint's own folder."""
    above = weights.parent.parent
    return above.parent if above.name == "checkpoints" else above


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if _is_weights(file, patterns)]


def _is_weights(file: Path, patterns: Sequence[str]) -> bool:
    hidden = file.name.startswith(".") or file.name.endswith(".tmp")
    return not hidden and any(fnmatch(file.name, p) for p in patterns) and file.is_file()


def _order(file: Path) -> tuple[bool, int, str]:
    step = step_of_folder(file)
    return step is None, step or 0, str(file)
