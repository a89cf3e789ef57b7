"""When the demo's trainer saves."""

from __future__ import annotations

import pytest

from nptwatch.demo.trainer import save_steps


def test_saves_are_denser_where_loss_falls_fastest() -> None:
    """The first saves come early enough to be POOR, later ones follow each tenth."""
    early = (25, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500)
    assert save_steps(1000) == (*early, 600, 700, 800, 900, 1000)


@pytest.mark.parametrize("steps", [1, 2, 40, 333])
def test_the_last_step_is_always_saved(steps: int) -> None:
    """Whatever the number of steps, saves ascend within it and end with it."""
    saves = save_steps(steps)
    assert saves[-1] == steps
    assert saves[0] >= 1
    assert list(saves) == sorted(set(saves))
