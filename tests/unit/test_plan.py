"""The plan of a sweep computes everything that is asked, and nothing twice."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from nptwatch.diagnostics.plan import Plan, State, Variant, make_plan

LAYERS = 6


def works(plan: Plan) -> int:
    """How many prompts are sent through layers."""
    return sum(len(layer.work) for layer in plan.layers)


def test_each_layer_alone_starts_at_that_layer() -> None:
    """What lies below a variant's first active layer is the base's and is not computed."""
    alone = [Variant(active=frozenset({index})) for index in range(2, LAYERS)]
    plan = make_plan(alone, num_layers=LAYERS, num_prompts=1)
    assert plan.start == 2
    assert [len(layer.work) for layer in plan.layers] == [1, 2, 3, 4]


def test_shared_beginnings_are_computed_once() -> None:
    """The first n of all layers, n = 1.., run as one until they part."""
    first = [Variant(active=frozenset(range(1, n))) for n in range(2, 5)]
    plan = make_plan(first, num_layers=LAYERS, num_prompts=1)
    # layer 1: all together; layer 2: {1} parts from {1,2}; layer 3 likewise; then three each
    assert [len(layer.work) for layer in plan.layers] == [1, 2, 3, 3, 3]


def test_residual_rules_share_the_first_layer() -> None:
    """Until a rule was applied once there is nothing to tell them apart."""
    both = [Variant(active=frozenset({3, 4}), drop=drop) for drop in (False, True)]
    plan = make_plan(both, num_layers=LAYERS, num_prompts=2)
    assert [len(layer.work) for layer in plan.layers] == [2, 4, 4]
    assert len(plan.layers[0].states) == 4


def test_standard_mode_is_really_computed() -> None:
    """A variant without active layers passes through every layer of the sweep beside the others."""
    standard = Variant(active=frozenset(), prompts=(1,))
    plan = make_plan(
        [Variant(active=frozenset({2}), prompts=(0,)), standard],
        num_layers=LAYERS,
        num_prompts=2,
    )
    for layer in plan.layers:
        assert [work.active for work in layer.work if work.prompt == 1] == [False]
    assert plan.finals[1] == (State(1, frozenset(), drop=False),)


def test_a_layer_s_own_error_needs_the_base_s_input() -> None:
    """Each NPT layer is fed the base's own stream, at its place, and is not carried further."""
    plan = make_plan(
        [Variant(active=frozenset({1, 3}))],
        num_layers=LAYERS,
        num_prompts=1,
        probe_layers=(1, 3),
        probe_prompts=(0,),
    )
    probed = [sum(map(len, layer.probed.values())) for layer in plan.layers]
    assert probed == [1, 0, 1, 0, 0]
    # at layer 1 the variant itself is in that state; at 3 it takes one more work, only there
    assert [len(layer.work) for layer in plan.layers] == [1, 1, 2, 1, 1]


subsets = st.frozensets(st.integers(0, LAYERS - 1), max_size=4)


@given(
    st.lists(st.builds(Variant, active=subsets, drop=st.booleans()), min_size=1, max_size=6).filter(
        lambda variants: any(variant.active for variant in variants)
    ),
    st.integers(1, 3),
)
def test_every_final_state_follows_from_the_base(variants: list[Variant], prompts: int) -> None:
    """Each work's source is a state of the layer before, or the base; every variant has its end."""
    plan = make_plan(variants, num_layers=LAYERS, num_prompts=prompts)
    known: set[State] = set()
    for layer in plan.layers:
        assert len(set(layer.work)) == len(layer.work)
        assert all(work.source is None or work.source in known for work in layer.work)
        known = set(layer.states)
    assert [len(final) for final in plan.finals] == [prompts] * len(variants)
    assert {state for final in plan.finals for state in final} <= known
    for (a, one), (b, other) in combinations(enumerate(plan.finals), 2):
        same = variants[a].active == variants[b].active and (
            variants[a].drop == variants[b].drop or not variants[a].active
        )
        assert (one == other) == same
    assert works(plan) <= sum(
        prompts * (LAYERS - min(variant.active, default=0)) for variant in variants
    )
