"""What a sweep computes at each layer, so that nothing is computed twice. Pure: no tensors.

Two variants of a prompt that have the same active layers so far have the same state so far: it is
computed once, and forks where they part. A state without any active layer yet is the base's own,
which is known. So "each layer alone" begins at that layer, and "the first n layers" share their
beginnings with "all layers".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One model among those that a checkpoint and its base can form, on some of the prompts.

    Attributes:
        active: indices of the layers on the NPT path; none: standard mode, which is really
            computed beside the others, not taken from the base's known states.
        drop: the residual rule: True leaves the attention output out of the sum.
        prompts: which prompts of the probes; None: all.
    """

    active: frozenset[int]
    drop: bool = False
    prompts: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class State:
    """The residual stream of one prompt, by all that it depends on.

    Attributes:
        active: layers on the NPT path so far.
        drop: the rule among them; False while there are none.
    """

    prompt: int
    active: frozenset[int]
    drop: bool


@dataclass(frozen=True, slots=True)
class Work:
    """One prompt to be sent through one layer.

    Attributes:
        source: the state that it comes from; None: the base's own.
        active: it takes the NPT path.
    """

    prompt: int
    source: State | None
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlan:
    """What one layer does.

    Attributes:
        work: what is sent through it, each once.
        states: what is kept of it: a state after the layer -> the number of the work that gives
            it. The residual rules share one work.
        probed: those among the states that tell the layer's own error, by rule: the layer alone,
            fed the base's own stream.
    """

    work: tuple[Work, ...]
    states: dict[State, int]
    probed: dict[bool, tuple[State, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A sweep over the layers from `start` on.

    Attributes:
        finals: each variant's states after the last layer, in the order of its prompts.
    """

    start: int
    layers: tuple[LayerPlan, ...]
    finals: tuple[tuple[State, ...], ...]


def make_plan(
    variants: Sequence[Variant],
    *,
    num_layers: int,
    num_prompts: int,
    probe_layers: Sequence[int] = (),
    probe_prompts: Sequence[int] = (),
) -> Plan:
    """Plan a sweep.

    Args:
        variants: at least one with an active layer.
        probe_layers: layers whose own error is wanted.
        probe_prompts: on which prompts; under each residual rule that a variant has.
    """
    start = min(min(variant.active) for variant in variants if variant.active)
    rules = sorted({variant.drop for variant in variants if variant.active})
    paths = [(variant, prompt) for variant in variants for prompt in _prompts(variant, num_prompts)]
    layers = []
    for index in range(start, num_layers):
        probes = probe_prompts if index in probe_layers else ()
        work: dict[Work, int] = {}
        states: dict[State, int] = {}
        probed: dict[bool, tuple[State, ...]] = {}
        for variant, prompt in paths:
            after = _state(variant, prompt, index + 1, start)
            if after is not None:
                source = _state(variant, prompt, index, start)
                does = Work(prompt, source, index in variant.active)
                states[after] = work.setdefault(does, len(work))
        for drop in rules if probes else ():
            alone = [State(prompt, frozenset({index}), drop) for prompt in probes]
            for state in alone:
                does = Work(state.prompt, None, active=True)
                states[state] = work.setdefault(does, len(work))
            probed[drop] = tuple(alone)
        layers.append(LayerPlan(work=tuple(work), states=states, probed=probed))
    return Plan(start=start, layers=tuple(layers), finals=tuple(_finals(variants, num_prompts)))


def _prompts(variant: Variant, num_prompts: int) -> Sequence[int]:
    return range(num_prompts) if variant.prompts is None else variant.prompts


def _state(variant: Variant, prompt: int, before: int, start: int) -> State | None:
    """Give the state in front of layer `before`; None: the base's own."""
    active = frozenset(index for index in variant.active if index < before)
    if before <= start or (variant.active and not active):
        return None
    return State(prompt, active, variant.drop and bool(active))


def _finals(variants: Sequence[Variant], num_prompts: int) -> Iterator[tuple[State, ...]]:
    for variant in variants:
        drop = variant.drop and bool(variant.active)
        yield tuple(
            State(prompt, variant.active, drop) for prompt in _prompts(variant, num_prompts)
        )
