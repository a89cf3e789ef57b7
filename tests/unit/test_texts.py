"""How texts are judged: the guide's formulas, at their edges."""

from __future__ import annotations

import pytest

from nptwatch.diagnostics.texts import coherence, common_prefix, similarity


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", 0.2),
        ("Two words", 0.2),
        ("three small words", 0.8),
        ("Three small words", 1.0),
        ("so so so so", 0.575),
        ("So so so so", 0.85),  # "So" and "so" are two words
        ("a b C a", 0.925),
    ],
)
def test_coherence(text: str, wanted: float) -> None:
    """0.2 under three words; else repetition and capitals count."""
    assert coherence(text) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ("", "", 1.0),
        ("  ", "", 1.0),
        ("a", "", 0.0),
        ("The cat", "the CAT", 1.0),
        ("a b c", "b c d", 0.5),
        ("a a a", "a", 1.0),
    ],
)
def test_similarity(one: str, other: str, wanted: float) -> None:
    """Jaccard of lower-cased word sets, the same both ways."""
    assert similarity(one, other) == similarity(other, one) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ([], [], 0),
        ([1, 2], [], 0),
        ([1, 2, 3], [1, 2, 4], 2),
        ([1, 2], [1, 2, 3], 2),
        ([1], [2], 0),
    ],
)
def test_common_prefix(one: list[int], other: list[int], wanted: int) -> None:
    """Tokens up to the first that differs, or up to the shorter one's end."""
    assert common_prefix(one, other) == wanted
