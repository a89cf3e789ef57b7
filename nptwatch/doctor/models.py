"""Whether the base models can be had: config, tokenizer, weights, and what they compute."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nptwatch.doctor.answering import only_answering
from nptwatch.doctor.finding import Finding, fail, ok, warn
from nptwatch.errors import BaseModelError
from nptwatch.npt.files import base_model_of
from nptwatch.watch.discovery import Finder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nptwatch.settings import Settings

NAME: Final = "base model"
_RUNS: Final = 100
"""Of so many runs, those with the newest checkpoints, the base is asked for."""
_MODELS: Final = 5
_FIX: Final = "until it is there its jobs wait, and are tried again with growing pauses"


def can_be_had(settings: Settings) -> Iterator[Finding]:
    """Look for the base that the settings name, else for those that checkpoints name."""
    named = settings.base.model
    names = [named] if named is not None else wanted_by_checkpoints(only_answering(settings))
    if not names:
        yield ok(NAME, "none is named yet: base.model is not set, and no checkpoint names one")
    for name in names[:_MODELS]:
        yield _found(name, settings)


def wanted_by_checkpoints(settings: Settings) -> list[str]:
    """Give the bases that runs name, of the newest checkpoints first."""
    newest: dict[str, tuple[int, str]] = {}
    for sweep in Finder(settings.watch, settings.paths.is_named).sweep():
        for file in sweep.files.values():
            newest[file.run_path] = max(
                newest.get(file.run_path, (0, "")), (file.mtime_ns, file.path)
            )
    names: dict[str, None] = {}
    for run, (_, path) in sorted(newest.items(), key=lambda item: item[1], reverse=True)[:_RUNS]:
        name = base_model_of(Path(path), Path(run))
        if name is not None:
            names[name] = None
    return list(names)


def _found(name: str, settings: Settings) -> Finding:
    os.environ["HF_HUB_DOWNLOAD_TIMEOUT"] = "10"  # of this check's process
    from nptwatch.npt.families import require_same_code
    from nptwatch.npt.finding import find_base

    check = f"{NAME} {name}"
    try:
        found = find_base(name, local_files_only=settings.base.local_files_only)
        require_same_code(name, found.config)
    except BaseModelError as error:
        return fail(check, str(error).removeprefix(f"base model {name!r} "), _FIX)
    text = f"a {found.config.model_type} of {found.config.num_hidden_layers} layers"
    if found.has_weights_here():
        return ok(check, f"{text}, weights are here")
    if found.commit is None or settings.base.local_files_only:
        return fail(check, f"{text}, but its weights are not here", _FIX)
    fix = f"fetch them now: hf download {name}; else the first job waits for them"
    return warn(check, f"{text}; its weights are not here yet", fix)
