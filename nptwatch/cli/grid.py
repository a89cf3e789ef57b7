"""Tables that are wider than a screen: groups of columns that go into blocks below each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nptwatch.cli.screen import GAP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nptwatch.cli.screen import Column, Screen


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Columns that stay together.

    Attributes:
        rows: the same number in all groups of a grid.
    """

    columns: tuple[Column, ...]
    rows: Sequence[tuple[str | None, ...]]

    @property
    def width(self) -> int:
        """Characters that it takes, with a gap before each column."""
        columns = zip(*self.rows, strict=True)
        texts = zip(self.columns, columns, strict=True)
        widest = (max(len(c.title), *(len(cell or "-") for cell in cells)) for c, cells in texts)
        return sum(len(GAP) + width for width in widest)


def print_grid(screen: Screen, head: Group, groups: Sequence[Group]) -> None:
    """Print the groups beside each other, in as many blocks as the screen's width asks for.

    Args:
        head: stands at the left of each block.
    """
    for number, block in enumerate(_blocks(screen, head, groups)):
        if number:
            screen.say()
        columns = [column for group in (head, *block) for column in group.columns]
        parts = zip(head.rows, *(group.rows for group in block), strict=True)
        screen.table(columns, [[cell for part in row for cell in part] for row in parts])


def _blocks(screen: Screen, head: Group, groups: Sequence[Group]) -> list[list[Group]]:
    if screen.width is None:
        return [list(groups)]
    blocks: list[list[Group]] = [[]]
    left = screen.width + len(GAP) - head.width
    for group in groups:
        if blocks[-1] and group.width > left:
            blocks.append([])
            left = screen.width + len(GAP) - head.width
        blocks[-1].append(group)
        left -= group.width
    return blocks
