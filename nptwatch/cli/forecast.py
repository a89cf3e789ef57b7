"""`nptwatch forecast`: at which step a run is likely to be GOOD and EXCELLENT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nptwatch.cli.curve import wrapped
from nptwatch.cli.screen import Screen, as_mapping, number, plain, print_json
from nptwatch.cli.session import (
    ConfigOption,
    DatabaseUrlOption,
    JsonOption,
    StateDirOption,
    reading,
    settings_of,
)
from nptwatch.diagnostics.identity import bounds_of
from nptwatch.service.forecasting import due_text, forecast_of, living

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.diagnostics.forecast import Forecast
    from nptwatch.store.records import HistoryRow


def forecast(
    run: Annotated[
        str, typer.Argument(help="The run's name, its folder, or how its name ends uniquely.")
    ],
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Say at which step a run is due to be GOOD and EXCELLENT, from its own history.

    Beside it stands the guide's table, which knows the newest MSE only. A run that levels off,
    rises, or was measured too seldom gets no forecast, and the reason.

    Example: nptwatch forecast equivalence
    """
    settings = settings_of(config, state_dir, database_url)
    with reading(settings) as stores:
        name = stores.history.run(run).run
        rows = stores.history.history(run)
    made = forecast_of(rows, bounds_of(settings))
    if as_json:
        print_json({"run": name} | as_mapping(made) | {"targets": plain(made.targets)})
    else:
        _print(name, rows, made, Screen.of_stdout())


def _print(name: str, rows: Sequence[HistoryRow], made: Forecast, screen: Screen) -> None:
    newest = next((row for row in reversed(living(rows)) if row.mse is not None), None)
    if newest is None:
        screen.say(f"{name}: no forecast: {made.why_not}")
        return
    steps = f"{made.points_used} step{'' if made.points_used == 1 else 's'} measured"
    mse, cosine = number(newest.mse, 4), number(newest.cosine, 4)
    lines = [
        f"{name} at step {newest.step}: MSE {mse}, cosine {cosine}, {steps}",
        *(f"{f'{grade}:':<10} {due_text(due)}" for grade, due in made.targets.items()),
    ]
    if made.model is not None:
        lines.append(f"Best fit:  {made.model}")
    if made.guide is not None:
        lines.append(f"Guide:     {made.guide.estimate:.0%} done, {made.guide.remaining}")
    for line in lines:
        for part in wrapped(line, screen):
            screen.say(part)
