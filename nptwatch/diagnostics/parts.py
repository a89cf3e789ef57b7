"""Work divided into parts that are small enough. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def in_parts(costs: Sequence[int], most: int) -> Iterator[slice]:
    """Divide pieces of work, in their order, into parts that cost no more than allowed.

    Args:
        costs: of each piece; one alone may cost more than allowed.
    """
    start = used = 0
    for end, cost in enumerate(costs):
        if end > start and used + cost > most:
            yield slice(start, end)
            start, used = end, 0
        used += cost
    if start < len(costs):
        yield slice(start, len(costs))
