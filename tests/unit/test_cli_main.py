"""The verbs' table, and the funnel that turns errors into text and exit codes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
import typer

from nptwatch.cli import main as cli
from nptwatch.cli.main import VERBS, main
from nptwatch.errors import BaseModelError, CheckpointError, ConfigError, DatabaseError, DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable


def documentation(name: str) -> list[str]:
    """Give the help texts behind a verb, its own first."""
    module, _, attribute = VERBS[name].target.partition(":")
    target = getattr(import_module(f"nptwatch.cli.{module}"), attribute)
    if not isinstance(target, typer.Typer):
        return [target.__doc__]
    callback = target.registered_callback
    own = callback.callback.__doc__ if callback and callback.callback else target.info.help
    return [
        own or "",
        *(c.callback.__doc__ or "" for c in target.registered_commands if c.callback),
    ]


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_help_with_an_example(name: str) -> None:
    """The summary in the table is the help's first line; each help shows a call."""
    texts = documentation(name)
    assert texts[0].splitlines()[0] == VERBS[name].summary
    for text in texts:
        assert f"Example: nptwatch {name}" in text


@pytest.mark.parametrize(
    "error", [ConfigError, CheckpointError, BaseModelError, DatabaseError, DeviceError]
)
def test_our_errors_have_their_exit_code(
    error: Any, failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on stderr, no traceback, the exit code of the class."""
    failing(error("what is wrong"))
    assert main(["fail"]) == error.exit_code
    assert capsys.readouterr() == ("", "error: what is wrong\n")


def test_a_bug_is_told_in_one_line(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """An unexpected error exits 1, says that it is a bug and how to see where."""
    failing(KeyError("x"))
    assert main(["fail"]) == 1
    message = capsys.readouterr().err
    assert (
        message == "error: unexpected KeyError: 'x' (a bug; `nptwatch --debug ...` shows where)\n"
    )


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_debug_shows_the_traceback(
    by: str,
    failing: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """--debug or NPTWATCH_DEBUG shows where an error comes from."""
    failing(ConfigError("x"))
    if by == "variable":
        monkeypatch.setenv("NPTWATCH_DEBUG", "1")
    assert main(["--debug", "fail"] if by == "flag" else ["fail"]) == ConfigError.exit_code
    assert "Traceback" in capsys.readouterr().err


def test_interrupt_exits_130(failing: Callable[[BaseException], None]) -> None:
    """As shells have it: 128 + SIGINT."""
    failing(KeyboardInterrupt())
    assert main(["fail"]) == 130


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Give a function that adds the verb `fail`, which raises."""

    def add(error: BaseException) -> None:
        def fail() -> None:
            raise error

        # a verb of the test's own: the real ones fail for real in tests/acceptance
        monkeypatch.setitem(VERBS, "fail", cli.Verb(target="main:_test_fail", summary="Fail."))
        monkeypatch.setattr(cli, "_test_fail", fail, raising=False)

    return add
