"""Finding a base model in a folder or on the hub, and saying in words why it is not there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nptwatch.errors import BaseModelError
from nptwatch.npt.memory import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A base whose config and tokenizer could be read.

    Attributes:
        name: as it was asked for.
        source: folder or hub name, as transformers wants it.
        commit: of a hub model: all its parts are read of this one; None: a folder.
        config: the transformers config.
        tokenizer: the transformers tokenizer.
    """

    name: str
    source: str
    commit: str | None
    config: Any  # Any: transformers classes are not typed
    tokenizer: Any  # Any: as config
    local_files_only: bool

    @property
    def options(self) -> dict[str, Any]:  # Any: keyword arguments
        """How transformers is to look for its other parts."""
        return _options(self.commit, local_files_only=self.local_files_only)

    def attempt(self, load: Callable[[], Any]) -> Any:  # noqa: ANN401 - what transformers gives
        """Run a part of loading.

        Raises:
            BaseModelError: instead of the many errors of the hub, safetensors and json.
        """
        return _attempt(self.name, load, local_files_only=self.local_files_only)

    def has_weights_here(self) -> bool:
        """Tell whether its weights are in the folder or in the hub's cache; asks nobody."""
        from transformers.utils.hub import cached_file

        options = self.options | {"local_files_only": True}
        return any(
            cached_file(self.source, name, _raise_exceptions_for_missing_entries=False, **options)
            for name in (WEIGHTS, INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")
        )

    def weight_files(self) -> list[Path]:
        """Give the safetensors files, fetched from the hub if they are not here.

        Raises:
            BaseModelError: there are none.
        """
        paths: list[Path] = self.attempt(self._weight_files)
        if not paths:
            msg = (
                f"base model {self.name!r} has no {WEIGHTS}: layers can be streamed from "
                'safetensors files only; convert it, or set base.layers to "resident"'
            )
            raise BaseModelError(msg)
        return paths

    def _weight_files(self) -> list[Path]:
        from transformers.utils.hub import cached_file, get_checkpoint_shard_files

        for name in (WEIGHTS, INDEX):
            path = cached_file(
                self.source, name, _raise_exceptions_for_missing_entries=False, **self.options
            )
            if path is not None and name == WEIGHTS:
                return [Path(path)]
            if path is not None:
                shards, _ = get_checkpoint_shard_files(self.source, path, **self.options)
                return [Path(shard) for shard in shards]
        return []


def find_base(name: str, *, local_files_only: bool) -> Found:
    """Read a base's config and tokenizer.

    Args:
        name: folder or hub name.
        local_files_only: never ask the hub.

    Raises:
        BaseModelError: it is missing, gated or broken.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    source = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    _refuse_missing_folder(name, source)
    commit, config, tokenizer = _attempt(
        name,
        lambda: _first_parts(source, local_files_only=local_files_only),
        local_files_only=local_files_only,
    )
    return Found(
        name=name,
        source=source,
        commit=commit,
        config=config,
        tokenizer=tokenizer,
        local_files_only=local_files_only,
    )


def _first_parts(source: str, *, local_files_only: bool) -> tuple[str | None, Any, Any]:
    """Give commit, config and tokenizer."""
    from transformers import AutoConfig, AutoTokenizer
    from transformers.utils.hub import cached_file

    commit = None
    if not Path(source).is_dir():
        # the hub's cache keeps files by commit: .../snapshots/<commit>/config.json
        commit = Path(cached_file(source, CONFIG, local_files_only=local_files_only)).parent.name
    options = _options(commit, local_files_only=local_files_only)
    config = AutoConfig.from_pretrained(source, **options)
    return commit, config, AutoTokenizer.from_pretrained(source, **options)


def _options(commit: str | None, *, local_files_only: bool) -> dict[str, Any]:  # Any: as options
    revision = {} if commit is None else {"revision": commit}
    return {"local_files_only": local_files_only, **revision}


def _refuse_missing_folder(name: str, source: str) -> None:
    """A path that is not there must not be asked of the hub."""
    looks_local = name.startswith(("/", "./", "../", "~")) or name.count("/") > 1
    if looks_local and not Path(source).is_dir():
        msg = (
            f"base model {name!r}: no such folder. Set base.model (or --model-name) to the folder "
            "that save_pretrained wrote, or to a hub name"
        )
        raise BaseModelError(msg)


def _attempt(name: str, load: Callable[[], Any], *, local_files_only: bool) -> Any:  # noqa: ANN401
    try:
        return load()
    except Exception as exc:  # one boundary to many trees: the hub's, safetensors', json's
        if is_out_of_memory(exc):
            raise
        raise BaseModelError(_why_not(name, exc, local_files_only=local_files_only)) from exc


def _why_not(name: str, exc: Exception, *, local_files_only: bool) -> str:
    """Turn the hub's many errors into what the user can do."""
    causes = [exc]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and len(causes) < 10:  # noqa: PLR2004
        causes.append(cause)  # type: ignore[arg-type]  # BaseException in theory
    kinds = {type(cause).__name__ for cause in causes}
    text = str(exc).strip().split("\n")[0][:300]
    if "GatedRepoError" in kinds or "gated repo" in str(exc):
        fix = "it is gated: accept its licence on the hub and set HF_TOKEN"
    elif "RepositoryNotFoundError" in kinds:
        fix = "the hub has no such model (or it is private: set HF_TOKEN)"
    elif local_files_only or kinds & {"LocalEntryNotFoundError", "OfflineModeIsEnabled"}:
        fix = "it is not on this machine, and the hub was not asked or did not answer"
    elif Path(name).is_dir():
        fix = "the folder is there but cannot be loaded"
    else:
        fix = "it is neither a folder here nor a model that the hub gives"
    return f"base model {name!r} cannot be loaded: {fix} ({text})"
