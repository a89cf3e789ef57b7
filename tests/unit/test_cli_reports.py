"""What `quick` and `full` have measured is told, whatever ends them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from reporting import quick

from nptwatch.cli.reports import Reports, names_of
from nptwatch.errors import BaseModelError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Report = dict[str, Any]  # Any: free JSON


def reports(total: int, *, each: bool = False, output: Path | None = None) -> Reports:
    """Reports whose text is their step, and whose table is their number."""
    return Reports(
        total=total,
        text=lambda report, _: f"text {report['step']}",
        table=lambda taken, screen: screen.say(f"table of {len(taken)}"),
        each=each,
        as_json=False,
        output=output,
    )


def one(step: int, checkpoint: str = "x.pt") -> Report:
    """A report of this step."""
    return quick(step=step, checkpoint=checkpoint)


def test_one_is_text_and_several_are_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the texts above it where they are asked for; JSON is an object, or a list."""
    output = tmp_path / "r.json"
    reports(1, output=output).tell([one(1)])
    assert capsys.readouterr().out == "text 1\n"
    assert json.loads(output.read_text())["step"] == 1
    reports(2, output=output).tell([one(1), one(2)])
    assert capsys.readouterr().out == "table of 2\n"
    assert [report["step"] for report in json.loads(output.read_text())] == [1, 2]
    reports(2, each=True).tell([one(1), one(2)])
    assert capsys.readouterr().out == "text 1\n\ntext 2\n\ntable of 2\n"


def kill(number: int) -> Callable[[], None]:
    """Give what sends this process a signal."""
    return lambda: os.kill(os.getpid(), number)


def fail() -> None:
    """End as a missing base does."""
    raise BaseModelError("no base")


def failing() -> Iterator[Report]:
    """End before the first report."""
    fail()
    yield one(1)


@pytest.mark.parametrize(
    ("happens", "error"),
    [
        (kill(signal.SIGINT), KeyboardInterrupt),
        (kill(signal.SIGTERM), SystemExit),
        (kill(signal.SIGHUP), SystemExit),
        (fail, BaseModelError),
    ],
)
def test_what_is_measured_so_far_is_told_whatever_happens(
    happens: Callable[[], None],
    error: type[BaseException],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C, a time limit, a closed terminal, an error of another kind: it goes on upwards."""

    def measured() -> Iterator[Report]:
        yield one(1)
        yield one(2)
        happens()
        yield one(3)

    handler = signal.getsignal(signal.SIGTERM)
    output = tmp_path / "r.json"
    with pytest.raises(error):
        reports(3, output=output).tell(measured())
    out, err = capsys.readouterr()
    assert [report["step"] for report in json.loads(output.read_text())] == [1, 2]
    assert out == "table of 2\n"
    assert "stopped: 2 of 3 checkpoints were measured" in err
    assert signal.getsignal(signal.SIGTERM) is handler


def test_an_interruption_before_anything_is_measured_leaves_the_output_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What an earlier call wrote there is worth more than an empty list."""
    output = tmp_path / "r.json"
    output.write_text("earlier")
    with pytest.raises(BaseModelError):
        reports(3, output=output).tell(failing())
    assert output.read_text() == "earlier"
    assert capsys.readouterr().out == ""


def test_an_output_that_breaks_does_not_lose_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    """A full disk: the error is raised, and the report printed all the same."""
    with pytest.raises(ConfigError, match="cannot write /dev/full: No space left"):
        reports(1, output=Path("/dev/full")).tell([one(1)])
    assert capsys.readouterr().out == "text 1\n"


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["c/checkpoint-1/w.pt", "c/best/w.pt"], ["checkpoint-1", "best"]),
        (["a/c/checkpoint-1/w.pt", "b/c/checkpoint-1/w.pt"], [f"{x}/c/checkpoint-1" for x in "ab"]),
        (["c/one_w.pt", "c/two_w.pt"], ["one_w.pt", "two_w.pt"]),
        (["c/w.pt", "c/sub/w.pt"], ["c", "sub"]),
        (["c/checkpoint-1/w.pt"], ["checkpoint-1"]),
    ],
)
def test_checkpoints_are_named_by_what_tells_them_apart(files: list[str], names: list[str]) -> None:
    """By folder, with as much of the path as is needed; several in one folder by file."""
    assert names_of([one(1, file) for file in files]) == names
