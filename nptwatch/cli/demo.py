"""`nptwatch demo`: the main job on real input, in under three minutes."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType


def demo(
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to fill; a former demo's is replaced.")
    ] = Path("demo-output"),
    steps: Annotated[int, typer.Option(min=40, help="Training steps.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the base's weights and the training.")] = 0,
) -> None:
    """Train tiny NPTs beside a real daemon and watch them get good.

    Builds a tiny Llama from code, distils it into NPT layers in a process of its own, and lets
    `nptwatch run` watch, measure and alert meanwhile. Nothing is downloaded, nothing faked.
    Exit code: 0 it got GOOD and an alert came, 1 something of that failed.

    Example: nptwatch demo --output /tmp/demo
    """
    import signal

    from rich.console import Console

    from nptwatch.demo.folder import DemoFolder
    from nptwatch.demo.run import Demo

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    folder = DemoFolder(path=output.expanduser().resolve())
    try:
        Demo(
            folder=folder,
            steps=steps,
            seed=seed,
            command=_own_name(sys.argv[0]),
            cwd=Path.cwd(),
            env=_without_settings(os.environ),
            console=Console(),
        ).run()
    except KeyboardInterrupt:
        typer.echo(f"stopped; what was made is in {folder.path}", err=True)
        raise


def _leave(number: int, _: FrameType | None) -> NoReturn:
    """Unwind, so that trainer and daemon are stopped too."""
    sys.exit(128 + number)


def _own_name(argv0: str) -> str:
    """Say how nptwatch was called, so that it can be called so again."""
    called = Path(argv0)
    if called.name == "__main__.py":
        return f"{_typed(Path(sys.executable))} -m nptwatch"
    found = shutil.which(called.name)
    if found and Path(found).resolve() == called.resolve():
        return called.name
    return _typed(called)


def _typed(path: Path) -> str:
    path = path.absolute()
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _without_settings(env: Mapping[str, str]) -> dict[str, str]:
    """Leave out the user's own settings of nptwatch: the demo's file is to be in force."""
    return {key: value for key, value in env.items() if not key.startswith("NPTWATCH_")}
