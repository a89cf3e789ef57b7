"""When folders of which no event tells are looked into: often while they change, seldom else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

_GROWTH: Final = 1.5
"""Each look that finds nothing new makes the pause so much longer."""
_SHARE: Final = 10
"""A pause is at least so many times as long as the look took: other hosts want the server too."""


@dataclass(slots=True)
class _Turn:
    """Of one folder: when it is due, after which pause, and what was there last."""

    due: float
    pause_seconds: float
    state: int | None = None


class Poller:
    """Says which folders are due. Times are monotonic seconds.

    Args:
        shortest_seconds, longest_seconds: bounds of a folder's pause; a tree whose walk takes long
            is looked into more seldom still.
    """

    def __init__(self, *, shortest_seconds: float, longest_seconds: float) -> None:
        self._shortest_seconds = shortest_seconds
        self._longest_seconds = longest_seconds
        self._turns: dict[str, _Turn] = {}

    def poll(self, folders: Collection[str], now: float) -> None:
        """Take over these folders, in place of those before; one below another is left to it."""
        wanted = {f for f in folders if not any(is_below(f, g) for g in folders if g != f)}
        for folder in self._turns.keys() - wanted:
            del self._turns[folder]
        for folder in wanted - self._turns.keys():
            due = now + self._shortest_seconds  # whoever brings a new folder has just read it
            self._turns[folder] = _Turn(due=due, pause_seconds=self._shortest_seconds)

    def due(self, now: float) -> list[str]:
        """Give the folders that are to be looked into."""
        return [folder for folder, turn in self._turns.items() if turn.due <= now]

    def next_due(self) -> float | None:
        """Give when the first of them is due."""
        return min((turn.due for turn in self._turns.values()), default=None)

    def looked(self, folder: str, state: int, *, begun: float, now: float) -> None:
        """Be told of a look.

        Args:
            state: differs where what is there does.
            begun: when the look began.
        """
        turn = self._turns[folder]
        if turn.state not in {None, state}:
            turn.pause_seconds = self._shortest_seconds
        elif turn.state is not None:
            turn.pause_seconds = min(_GROWTH * turn.pause_seconds, self._longest_seconds)
        turn.state = state
        turn.due = now + max(turn.pause_seconds, _SHARE * (now - begun))

    def put_off(self, now: float) -> None:
        """Be told that everything has just been read: nothing is due before its pause is over."""
        for turn in self._turns.values():
            turn.due = max(turn.due, now + turn.pause_seconds)

    def polls(self, path: str) -> bool:
        """Say whether a path is in or below a folder that is polled."""
        return any(is_below(path, folder) for folder in self._turns)


def is_below(path: str, folder: str) -> bool:
    """Say whether a path is a folder's, or the folder itself."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
