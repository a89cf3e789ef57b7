"""`nptwatch rerun`: have a known checkpoint measured at once, or by the full diagnostic."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.screen import Screen, print_json
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    StateDirOption,
    reading,
    settings_of,
)
from nptwatch.settings import FULL, QUICK
from nptwatch.store.records import Asked, Asking

if TYPE_CHECKING:
    from collections.abc import Sequence

BY_A_PERSON = "asked with rerun"


class Profile(StrEnum):
    """Which diagnostic."""

    QUICK = QUICK
    FULL = FULL


def rerun(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="Weights files or their folders, or numbers of their jobs."
        ),
    ],
    *,
    profile: Annotated[Profile, typer.Option(help="Which diagnostic to run.")] = Profile.FULL,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Have known checkpoints measured at once, by the quick or the full diagnostic.

    They are queued in front of all others, for the daemon's worker; what is measured already is
    only told. `nptwatch full PATH` measures here and now.

    Example: nptwatch rerun experiments/run/checkpoints/checkpoint-8000 --profile full
    """
    from nptwatch.service.build import request_of

    settings = settings_of(config, state_dir, database_url)
    request = request_of(settings, profile)
    asked: list[Asked] = []
    try:
        with reading(settings) as stores:
            for each in checkpoints:
                one = stores.queue.ask(each, request, because=BY_A_PERSON)
                asked.append(one)
    finally:  # what is queued is told, though a later one is not known
        if asked and as_json:
            print_json(asked)
        elif asked:
            _tell(asked, Screen.of_stdout())


def _tell(asked: Sequence[Asked], screen: Screen) -> None:
    for each in asked:
        which = f"{each.run} " + ("" if each.step is None else f"step {each.step} ")
        screen.say(f"{which}({each.profile}, job {each.job_id}): {_fate(each, screen)}")


def _fate(asked: Asked, screen: Screen) -> str:
    match asked.did:
        case Asking.QUEUED:
            return "queued, goes first"
        case Asking.WAITS:
            return "was queued, goes first now"
        case Asking.RUNS:
            return f"is being measured by {asked.worker_id}"
        case Asking.KNOWN:
            when = screen.when(asked.measured_at)
            return f"measured already: {asked.grade} ({when}); `nptwatch show {asked.job_id}`"
