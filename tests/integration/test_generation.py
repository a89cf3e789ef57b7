"""Continuations: right samples, the same noise for both sides, a batch that changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import tiny
import torch

from nptwatch.diagnostics.generation import Continuations, Draw, decode, generate
from nptwatch.diagnostics.identity import DIAGNOSTICS_VERSION
from nptwatch.npt.base import BaseModel, load_base
from nptwatch.npt.layout import infer_layout
from nptwatch.npt.modulation import npt_layers

if TYPE_CHECKING:
    from pathlib import Path

PINNED = [14916, 82992, 46582, 79559]
PROMPTS = ("A", "The quick brown fox jumps", "2 + 2")
DRAWS = [
    Draw(prompt=prompt, temperature=temperature)
    for prompt in PROMPTS
    for temperature in (0.0, 0.7, 1.0)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """A random Llama."""
    return load_base(str(tiny.llama(tmp_path_factory.mktemp("base"))), local_files_only=True)


def test_a_batch_gives_what_each_draw_gives_alone(base: BaseModel) -> None:
    """Padding changes no token, with and without a cache, for base and NPT."""
    tensors = tiny.weights(tiny.layer(1), tiny.layer(3))
    layout = infer_layout({n: tuple(t.shape) for n, t in tensors.items()}, base.shape)
    npt = npt_layers(layout, tensors, dtype=base.dtype, device=base.device)
    for active, drop in (({}, False), (npt, False), (npt, True)):
        together = generate(base, active, DRAWS, drop=drop, seed=3)
        assert together == generate(base, active, DRAWS, drop=drop, seed=3, use_cache=False)
        for draw, tokens in zip(DRAWS, together, strict=True):
            assert generate(base, active, [draw], drop=drop, seed=3) == [tokens]
        assert len(set(together)) > len(PROMPTS)


def test_what_was_begun_is_gone_on_with(base: BaseModel) -> None:
    """Any beginning of a continuation leads to the whole of it."""
    whole = generate(base, {}, DRAWS, seed=0)
    begun = [tokens[:number] for number, tokens in enumerate(whole)]
    assert generate(base, {}, DRAWS, seed=0, begun=begun) == whole
    assert generate(base, {}, DRAWS, seed=0, begun=whole) == whole


def test_generation_ends_at_the_end_token(base: BaseModel) -> None:
    """The end token is the last one, and the others of the batch go on."""
    tokens = generate(base, {}, DRAWS[:3], seed=0, max_new_tokens=20)
    end = tokens[1][4]
    base.model.generation_config.eos_token_id = [1, end]
    try:
        ended = generate(base, {}, DRAWS[:3], seed=0, max_new_tokens=20)
    finally:
        base.model.generation_config.eos_token_id = 1
    for before, after in zip(tokens, ended, strict=True):
        cut = before.index(end) + 1 if end in before else len(before)
        assert after == before[:cut]
    assert len(ended[1]) <= 5


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_samples_follow_the_softmax(temperature: float) -> None:
    """5000 draws of one place: frequencies of 8 tokens within 5 standard errors."""
    logits_V = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, 0.9])
    p_V = (logits_V / temperature).softmax(-1)
    draw = Draw(prompt="p", temperature=temperature)
    number = 5000
    counts = torch.zeros(8)
    for position in range(number):
        counts[draw.choose(logits_V, seed=0, position=position)] += 1
    error_V = (p_V * (1 - p_V) / number).sqrt()
    assert ((counts / number - p_V).abs() < 5 * error_V).all()


def test_noise_is_of_seed_prompt_temperature_and_position_only() -> None:
    """Equal logits give equal tokens; each of the four changes the draw."""
    logits_V = torch.zeros(1000)
    draw = Draw(prompt="p", temperature=1.0)
    first = draw.choose(logits_V, seed=0, position=0)
    assert draw.choose(logits_V.clone(), seed=0, position=0) == first
    others = [
        draw.choose(logits_V, seed=1, position=0),
        draw.choose(logits_V, seed=0, position=1),
        Draw(prompt="q", temperature=1.0).choose(logits_V, seed=0, position=0),
        Draw(prompt="p", temperature=0.9).choose(logits_V, seed=0, position=0),
    ]
    assert first not in others
    assert len(set(others)) == len(others)


def test_logits_that_are_not_finite_are_an_error() -> None:
    """Never a token made of NaN; the message names the prompt."""
    logits_V = torch.tensor([0.0, float("nan")])
    with pytest.raises(FloatingPointError, match="after 3 new tokens of 'p'"):
        Draw(prompt="p", temperature=0.0).choose(logits_V, seed=0, position=3)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[[1, 2]]",
        "[1, 2, 3]",
        '[["a"], [1], [2]]',
        "[[-1], [1], [2]]",
        "[[], [1], [2]]",
        f"[{[2] * 21}, [1], [2]]",
    ],
)
def test_a_damaged_file_of_continuations_is_made_again(
    base: BaseModel, tmp_path: Path, content: str
) -> None:
    """Half a file, other shapes, no tokens or too many: computed again, and written right."""
    draws = DRAWS[:3]
    wanted = Continuations(base=base, folder=tmp_path, seed=0).of(draws)
    (kept,) = tmp_path.glob("*.json")
    kept.write_text(content)
    again = Continuations(base=base, folder=tmp_path, seed=0)
    assert again.of(draws) == wanted
    assert again.computed == 1
    third = Continuations(base=base, folder=tmp_path, seed=0)
    assert third.of(draws) == wanted
    assert third.computed == 0


def test_kept_continuations_are_of_what_was_asked_only(base: BaseModel, tmp_path: Path) -> None:
    """Another seed, length, draw or base in the same folder: each computed, none mistaken."""
    asked = Continuations(base=base, folder=tmp_path, seed=0)
    first = asked.of(DRAWS)
    assert asked.of(DRAWS) == first
    assert asked.of(DRAWS[::-1]) == first[::-1]
    assert asked.computed == 2
    others = [
        Continuations(base=base, folder=tmp_path, seed=1),
        Continuations(base=base, folder=tmp_path, seed=0, max_new_tokens=25),
        Continuations(base=replace(base, revision="another"), folder=tmp_path, seed=0),
    ]
    seeded, longer, rebased = (other.of(DRAWS) for other in others)
    assert [other.computed for other in others] == [1, 1, 1]
    assert [a == b for a, b in zip(seeded, first, strict=True)] == [True, False, False] * 3
    assert [tokens[:20] for tokens in longer] == first
    assert rebased == first


def test_without_a_place_to_keep_them_continuations_are_right(
    base: BaseModel, tmp_path: Path
) -> None:
    """A cache folder that cannot be made costs time only, and leaves nothing half written."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    asked = Continuations(base=base, folder=blocked, seed=0)
    assert asked.of(DRAWS) == Continuations(base=base, folder=None, seed=0).of(DRAWS)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_text_is_prompt_and_continuation(base: BaseModel) -> None:
    """Special tokens are left out."""
    ids = base.tokenizer("!", add_special_tokens=False)["input_ids"]
    assert decode(base, "2 + 2", [*ids, 1]) == "2 + 2!"


def test_the_noise_is_pinned() -> None:
    """Tokens drawn from flat logits: who changes them raises DIAGNOSTICS_VERSION with them."""
    draw = Draw(prompt="p", temperature=1.0)
    drawn = [draw.choose(torch.zeros(100_000), seed=0, position=place) for place in range(4)]
    assert (DIAGNOSTICS_VERSION, drawn) == (3, PINNED)
