"""The command `nptwatch`: its verbs, and the one place where errors become text and exit codes."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from nptwatch import __version__
from nptwatch.errors import NptwatchError

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """A command that is imported when it is called.

    Attributes:
        target: `module:attribute`, below nptwatch.cli; a function or a Typer application.
        summary: first line of its help, kept here so that `--help` imports none of them.
        short: it reads, prints and ends, and so needs no garbage collection (0.1 s of imports).
    """

    target: str
    summary: str
    short: bool = False


VERBS = {
    "quick": Verb(
        target="quick:quick",
        summary="Measure a checkpoint, or every checkpoint of a folder, against its base model.",
    ),
    "full": Verb(
        target="full:full",
        summary="Run all five tests on a checkpoint, or on every checkpoint of a folder.",
    ),
    "inspect": Verb(
        target="inspect:inspect_",
        summary=(
            "Show a checkpoint's structure: layers, kind, rank, components, dtypes, step, CRCs."
        ),
    ),
    "compare": Verb(
        target="compare:compare",
        summary="Compare checkpoints side by side, or runs step by step.",
    ),
    "run": Verb(
        target="run:run",
        summary="Watch directories and measure every new checkpoint, until told to stop.",
    ),
    "worker": Verb(
        target="worker:worker", summary="Measure what a daemon elsewhere queues; watch nothing."
    ),
    "scan": Verb(
        target="scan:scan", summary="Find checkpoints and queue them, without measuring any."
    ),
    "status": Verb(
        target="status:status",
        summary="Show queue, workers, the newest result of each run, and what changed.",
        short=True,
    ),
    "runs": Verb(
        target="history:runs",
        summary="List the runs with their status and newest measured checkpoint.",
        short=True,
    ),
    "history": Verb(
        target="history:history", summary="List a run's checkpoints with their results.", short=True
    ),
    "best": Verb(
        target="best:best", summary="Show the best measured checkpoint of a run.", short=True
    ),
    "forecast": Verb(
        target="forecast:forecast",
        summary="Say at which step a run is due to be GOOD and EXCELLENT, from its own history.",
        short=True,
    ),
    "show": Verb(
        target="history:show",
        summary="Show everything that is known of one checkpoint.",
        short=True,
    ),
    "jobs": Verb(
        target="jobs:app",
        summary="List jobs, try failed ones again, cancel queued ones.",
        short=True,
    ),
    "rerun": Verb(
        target="rerun:rerun",
        summary="Have known checkpoints measured at once, by the quick or the full diagnostic.",
        short=True,
    ),
    "alerts": Verb(
        target="alerts:app",
        summary="List alerts, acknowledge them, send them again, try a channel.",
    ),
    "kept": Verb(
        target="kept:app",
        summary="List the checkpoints that are kept, release them, copy one out.",
        short=True,
    ),
    "wait": Verb(target="wait:wait", summary="Wait until a run's status is good enough."),
    "db": Verb(
        target="db:app", summary="Create, upgrade, check, copy, vacuum or look at the database."
    ),
    "config": Verb(
        target="config:app", summary="Check the settings, or show those in force.", short=True
    ),
    "init": Verb(
        target="init:init",
        summary="Write a first settings file, with every setting explained; ask for what matters.",
    ),
    "service": Verb(
        target="service:app", summary="Install the daemon as a service of systemd, or remove it."
    ),
    "doctor": Verb(
        target="doctor:doctor",
        summary="Look at everything that the daemon needs, and say what to do about it.",
    ),
    "demo": Verb(
        target="demo:demo", summary="Train tiny NPTs beside a real daemon and watch them get good."
    ),
}


@dataclass(slots=True)
class Invocation:
    """What one call of the command knows beside its arguments."""

    debug: bool


class LazyCommands(MutableMapping[str, Any]):  # Any: Typer's command class is private
    """The verbs as Typer wants them: names are known, the rest is imported on demand."""

    def __init__(self) -> None:
        self._added: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - see the class
        verb = VERBS[name]
        if name not in self._added:
            if not verb.short:
                gc.enable()
            module, _, attribute = verb.target.partition(":")
            target = getattr(import_module(f"nptwatch.cli.{module}"), attribute)
            self._added[name] = get_command(_application(target))
        return self._added[name]

    def __setitem__(self, name: str, command: Any) -> None:  # noqa: ANN401 - see the class
        self._added[name] = command

    def __delitem__(self, name: str) -> None:
        del self._added[name]

    def __iter__(self) -> Iterator[str]:
        return iter(VERBS)

    def __len__(self) -> int:
        return len(VERBS)


class LazyGroup(TyperGroup):
    """A group that imports a command only when it is called."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - Typer's
        super().__init__(**attributes)
        self.commands = LazyCommands()

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - Typer's
        """Give the verbs in the order in which they are documented."""
        return list(VERBS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002 - Typer's
        """Write the summaries without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.summary) for name, verb in VERBS.items()])


def _application(target: Any) -> typer.Typer:  # noqa: ANN401 - a function or a Typer
    if isinstance(target, typer.Typer):
        return target
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command()(target)
    return single


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"nptwatch {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    rich_markup_mode=None,  # rich costs `--help` 0.1 s
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def nptwatch(
    ctx: typer.Context,
    *,
    config: Annotated[
        Path | None, typer.Option(help="Settings file; every command takes it too.")
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks (or set NPTWATCH_DEBUG).")
    ] = False,
    version: Annotated[  # noqa: ARG001 - its callback prints and ends
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Measure NPT checkpoints beside training, keep their history, and say when one is good.

    Exit codes: 0 done, 1 a condition asked for is not met, 2 usage or settings, 3 checkpoint,
    4 base model, 5 database, 6 device.

    Example: nptwatch run ~/experiments --base-model meta-llama/Llama-3.2-1B
    """
    ctx.obj.debug |= debug
    if config is not None:
        # becomes the default of every command's own --config
        below = {"config": config}
        names = ["list", "retry", "cancel", "release", "export"]
        names += ["upgrade", "current", "check", "show", "test", "ack", "replay"]
        names += ["install", "uninstall"]
        ctx.default_map = dict.fromkeys(VERBS, below | dict.fromkeys(names, below))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; give its exit code. Errors go to stderr as one message each."""
    gc.disable()  # nothing of an import is garbage; long commands enable it again
    invocation = Invocation(debug=bool(os.environ.get("NPTWATCH_DEBUG")))
    code = _invoke(sys.argv[1:] if argv is None else list(argv), invocation)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader has enough; the interpreter must not complain of it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    gc.freeze()  # the interpreter's last collection has nothing to look at
    gc.enable()
    return code


def _invoke(argv: Sequence[str], invocation: Invocation) -> int:
    try:
        get_command(app).main(args=argv, prog_name="nptwatch", obj=invocation)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except NptwatchError as exc:
        _complain(str(exc), invocation)
        return exc.exit_code
    except Exception as exc:  # noqa: BLE001 - outermost: a bug must not greet the user with a traceback
        hint = "" if invocation.debug else " (a bug; `nptwatch --debug ...` shows where)"
        _complain(f"unexpected {type(exc).__name__}: {exc}{hint}", invocation)
        return 1
    return 0


def _complain(message: str, invocation: Invocation) -> None:
    if invocation.debug:
        import traceback

        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
