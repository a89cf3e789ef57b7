"""How texts are judged and compared, as the guide's comprehensive test does it. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FEWEST_WORDS = 3
TOO_SHORT = 0.2


def coherence(text: str) -> float:
    """Guess how coherent a text is, 0.2 to 1: by repeated words and capitals, nothing more.

    0.2 under three words; else 0.5 + 0.3 x (distinct words / words) + 0.2 if any word starts with
    a capital, at most 1.
    """
    words = text.split()
    if len(words) < FEWEST_WORDS:
        return TOO_SHORT
    capitals = any(word[0].isupper() for word in words)
    return min(0.5 + 0.3 * len(set(words)) / len(words) + 0.2 * capitals, 1.0)


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of the lower-cased word sets, 0 to 1; two empty texts are equal."""
    words, others = set(one.lower().split()), set(other.lower().split())
    if not words and not others:
        return 1.0
    return len(words & others) / len(words | others)


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the tokens that two continuations share from their beginning."""
    for place, (ours, theirs) in enumerate(zip(one, other, strict=False)):
        if ours != theirs:
            return place
    return min(len(one), len(other))
