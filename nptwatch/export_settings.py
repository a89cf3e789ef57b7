"""The tables [exports.NAME]: results where people look already. Off unless switched on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import StringConstraints, field_validator

from nptwatch.channel_settings import Variable  # noqa: TC001 - pydantic reads it
from nptwatch.errors import ConfigError
from nptwatch.sections import PositiveSeconds, Section

if TYPE_CHECKING:
    from collections.abc import Callable


class ExportSection(Section):
    """What every export has."""

    on: bool = False
    """Whether it is made."""
    runs: tuple[str, ...] = ("**",)
    """Globs on the run's name; a run is exported if it matches one."""
    folder: Path | None = None
    """Where its files are; unset: exports/NAME in the state folder."""


class JsonlSettings(ExportSection):
    """A file for each run, a line of JSON for each result."""


class TensorBoardSettings(ExportSection):
    """A log directory for each run."""


class WandbSettings(ExportSection):
    """A run at Weights & Biases for each run."""

    mode: Literal["online", "offline"] = "online"
    """Offline: written below the folder, for `wandb sync`."""
    project: Annotated[str, StringConstraints(min_length=1)] = "nptwatch"
    entity: str | None = None
    """Team or user; unset: the key's own."""
    group: str = "{run}"
    """The trainer's group; {run}, {parent} (the folder above) and {root} are filled in."""
    key_env: Variable | None = None
    """Environment variable with the API key."""
    key_file: Path | None = None
    """File with the API key."""
    base_url: str | None = None
    """A server of one's own; unset: the public one."""
    every_seconds: PositiveSeconds = 60.0
    """How often what is new is sent."""
    timeout_seconds: PositiveSeconds = 120.0
    """A run that takes longer is broken off and tried again."""

    @field_validator("group")
    @classmethod
    def _can_be_filled_in(cls, group: str) -> str:
        try:
            group.format(run="", parent="", root="")
        except (LookupError, ValueError, AttributeError) as exc:
            raise ValueError("only {run}, {parent} and {root} can be filled in") from exc
        return group


class ExportSettings(Section):
    """Where results go beside the database."""

    jsonl: JsonlSettings = JsonlSettings()
    tensorboard: TensorBoardSettings = TensorBoardSettings()
    wandb: WandbSettings = WandbSettings()


def require_key(wandb: WandbSettings) -> None:
    """Hold that an export that needs a key says where one is.

    Raises:
        ConfigError: it does not, or names two.
    """
    named = [name for name in ("key_env", "key_file") if getattr(wandb, name) is not None]
    needed = wandb.on and wandb.mode == "online"
    if len(named) > 1 or (needed and not named):
        raise ConfigError(
            "exports.wandb needs key_env (a variable) or key_file (a file) with the API key, one"
            ' of the two; none with mode = "offline"'
        )


def anchored(exports: ExportSettings, absolute: Callable[[Path, str], Path]) -> ExportSettings:
    """Make its paths absolute.

    Args:
        absolute: given a path and the key that it is the value of.
    """
    return exports.model_copy(
        update={
            name: section.model_copy(
                update={
                    field: absolute(path, f"exports.{name}.{field}")
                    for field, path in section
                    if isinstance(path, Path)
                }
            )
            for name, section in exports
        }
    )
