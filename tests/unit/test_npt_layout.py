"""Structure is read off names and shapes, and every fault is told at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nptwatch.errors import LayoutError
from nptwatch.npt.layout import BaseShape, Kind, LayerLayout, Layout, infer_layout

if TYPE_CHECKING:
    from nptwatch.npt.layout import Shape

BASE = BaseShape(num_layers=6, hidden_size=8, intermediate_size=24)


def shapes_of(*layers: LayerLayout, hidden: int = 8, intermediate: int = 24) -> dict[str, Shape]:
    """All tensors that a checkpoint with these layers has."""
    return {name: shape for layer in layers for name, shape in layer.shapes(hidden, intermediate)}


def layer(
    index: int = 1, kind: Kind = Kind.DUAL, rank: int = 4, num_ranks: int = 1, prefix: str = ""
) -> LayerLayout:
    """Return a layer's layout with the short prefix."""
    return LayerLayout(
        index=index,
        kind=kind,
        rank=rank,
        num_ranks=num_ranks,
        prefix=prefix or f"layer_{index}_np.",
    )


def faults_of(shapes: dict[str, Shape], base: BaseShape | None = BASE) -> list[str]:
    """Return the faults that the error lists."""
    with pytest.raises(LayoutError) as caught:
        infer_layout(shapes, base)
    return caught.value.faults


@given(data=st.data())
def test_any_layout_is_read_back_from_its_own_names_and_shapes(data: st.DataObject) -> None:
    """Kind, R, K, index and prefix of each layer come back, whatever the mixture."""
    indices = data.draw(st.lists(st.integers(0, 90), min_size=1, max_size=4, unique=True))
    hidden, wide = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 90))
    layers = tuple(
        layer(
            index,
            data.draw(st.sampled_from(list(Kind))),
            data.draw(st.integers(1, 32)),
            data.draw(st.integers(1, 5)),
            data.draw(
                st.sampled_from([f"layer_{index}_np.", f"model.layers.{index}.np_component."])
            ),
        )
        for index in sorted(indices)
    )
    base = BaseShape(num_layers=91, hidden_size=hidden, intermediate_size=wide)
    shapes = shapes_of(*layers, hidden=hidden, intermediate=wide)
    layout = infer_layout(shapes, base)
    assert layout == Layout(layers=layers, hidden_size=hidden, intermediate_size=wide)
    assert layout.num_parameters == sum(a * b for a, b in shapes.values())


@given(data=st.data())
def test_a_missing_tensor_is_always_found(data: st.DataObject) -> None:
    """Whichever tensor is taken away, the file is refused."""
    kind = data.draw(st.sampled_from(list(Kind)))
    shapes = shapes_of(layer(1, kind, 4, data.draw(st.integers(1, 4))), layer(3, kind, 4, 2))
    gone = data.draw(st.sampled_from(sorted(shapes)))
    del shapes[gone]
    assert faults_of(shapes)


def test_all_faults_are_listed_in_one_error() -> None:
    """Missing, extra, misshapen, beyond the base: one error names each with expected and actual."""
    shapes = shapes_of(layer(1), layer(2), layer(7))
    del shapes["layer_1_np.W_a_up_gate"]
    shapes["layer_1_np.W_q"] = (8, 8)
    shapes["layer_2_np.W_b_up_up"] = (4, 23)
    text = "\n".join(faults_of(shapes))
    assert "missing tensor 'layer_1_np.W_a_up_gate' [4, 8]" in text
    assert "unexpected tensor 'layer_1_np.W_q' [8, 8]" in text
    assert "'layer_2_np.W_b_up_up': expected shape [4, 24], found [4, 23]" in text
    assert "layer 7: the base model has layers 0 to 5 only" in text


def test_a_checkpoint_of_another_base_says_so_once() -> None:
    """D and F of another base are two faults, not one for each tensor."""
    faults = faults_of(shapes_of(layer(1), hidden=16, intermediate=48))
    assert faults == [
        "hidden_size (D): the base model has 8, the checkpoint expects 16",
        "intermediate_size (F): the base model has 24, the checkpoint expects 48",
    ]


def test_mixed_prefixes_within_a_layer_are_a_fault() -> None:
    """One layer never has both prefixes."""
    shapes = shapes_of(layer(1))
    shapes["model.layers.1.np_component.W_down_up"] = shapes.pop("layer_1_np.W_down_up")
    assert "mixed prefixes" in faults_of(shapes)[0]


def test_mixed_kinds_and_numberings_within_a_layer_are_faults() -> None:
    """Names of single and dual, or with and without numbers, do not mix."""
    kinds = shapes_of(layer(1)) | {"layer_1_np.W_down": (8, 4)}
    assert "plain names mixed" in faults_of(kinds)[0]
    numbers = shapes_of(layer(1, num_ranks=2)) | {"layer_1_np.W_down_up": (8, 4)}
    assert "numbered names mixed" in faults_of(numbers)[0]
    assert (
        "only component .0"
        in faults_of({name + ".0": shape for name, shape in shapes_of(layer(1)).items()})[0]
    )


def test_a_huge_component_number_costs_nothing() -> None:
    """A hostile number is a fault, not a million expected tensors."""
    shapes = shapes_of(layer(1, num_ranks=2)) | {"layer_1_np.W_down_gate.9999": (8, 4)}
    assert "component .9999" in faults_of(shapes)[0]


def test_no_npt_layers_names_what_was_found_instead() -> None:
    """The message is the guide's, and says what the file is."""
    found = faults_of({"state.0.exp_avg": (8, 4), "state.0.step": ()}, None)[0]
    assert found.startswith("No NPT layers found in checkpoint")
    assert "'state.0.exp_avg'" in found
    assert "optimizer state" in found
    assert "no tensors" in faults_of({}, None)[0]


def test_faults_are_capped() -> None:
    """A file of a thousand wrong names gives a readable error."""
    shapes = shapes_of(layer(1)) | {f"junk.{n}": (1,) for n in range(1000)}
    faults = faults_of(shapes)
    assert len(faults) == 41
    assert faults[-1] == "and 960 more faults"


def test_without_a_base_the_file_is_checked_against_itself() -> None:
    """`inspect` needs no base: widths come from the file, and contradictions are still faults."""
    layout = infer_layout(shapes_of(layer(99, Kind.TRIPLE, 2, 3)))
    assert (layout.hidden_size, layout.intermediate_size) == (8, 24)
    shapes = shapes_of(layer(1), layer(2))
    shapes["layer_2_np.W_down_up"] = (9, 4)
    assert "expected shape [8, 4], found [9, 4]" in faults_of(shapes, None)[0]
