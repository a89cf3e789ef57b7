"""Tensor names and shapes -> the structure of an NPT checkpoint. Pure: no torch, no files.

Legend: D hidden_size, F intermediate_size, R bottleneck rank, K rank-1 components (docs/npt.md).

Nothing is assumed: layers, kind, R and K are read off names and shapes, layer by layer. Every
expected tensor must be there and none other; all faults are reported in one LayoutError. The
residual rule (keep or drop) that weights were trained for is not in them: a layout does not say it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from nptwatch.errors import LayoutError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAX_FAULTS = 40
"""A hostile file could have a million; the rest is counted."""

MATRICES = ("W_down", "W_a_up", "W_b_up")

_NAME = re.compile(
    r"(?:layer_(?P<short>\d{1,6})_np|model\.layers\.(?P<long>\d{1,6})\.np_component)\.(?P<rest>.+)"
)
_REST = re.compile(
    r"(?P<matrix>W_down|W_a_up|W_b_up)(?:_(?P<projection>gate|up|down))?(?:\.(?P<component>\d{1,4}))?"
)

Shape = tuple[int, ...]


class Kind(StrEnum):
    """Which projections of the MLP a layer modulates."""

    SINGLE = "single"  # gate
    DUAL = "dual"  # gate and up
    TRIPLE = "triple"  # gate, up and down


PROJECTIONS = {
    Kind.SINGLE: ("gate",),
    Kind.DUAL: ("gate", "up"),
    Kind.TRIPLE: ("gate", "up", "down"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseShape:
    """What a checkpoint must fit: the base model's sizes."""

    num_layers: int
    hidden_size: int
    intermediate_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLayout:
    """One NPT layer.

    Attributes:
        index: layer of the base model.
        rank: R.
        num_ranks: K.
        prefix: what its tensor names begin with.
    """

    index: int
    kind: Kind
    rank: int
    num_ranks: int
    prefix: str

    @property
    def projections(self) -> tuple[str, ...]:
        """Modulated projections, gate first."""
        return PROJECTIONS[self.kind]

    def name(self, matrix: str, projection: str, component: int) -> str:
        """Return the tensor's name in the file."""
        suffix = "" if self.kind is Kind.SINGLE else f"_{projection}"
        number = "" if self.num_ranks == 1 else f".{component}"
        return f"{self.prefix}{matrix}{suffix}{number}"

    def shapes(self, hidden_size: int, intermediate_size: int) -> Iterator[tuple[str, Shape]]:
        """Yield every tensor of the layer with the shape it must have."""
        for projection in self.projections:
            inner, outer = hidden_size, intermediate_size  # of the projection: in -> out
            if projection == "down":
                inner, outer = outer, inner
            for component in range(self.num_ranks):
                yield self.name("W_down", projection, component), (hidden_size, self.rank)
                yield self.name("W_a_up", projection, component), (self.rank, inner)
                yield self.name("W_b_up", projection, component), (self.rank, outer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A whole checkpoint; `layers` in ascending order."""

    layers: tuple[LayerLayout, ...]
    hidden_size: int
    intermediate_size: int

    @property
    def num_parameters(self) -> int:
        """Trained numbers in all layers."""
        return sum(
            shape[0] * shape[1]
            for layer in self.layers
            for _, shape in layer.shapes(self.hidden_size, self.intermediate_size)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One tensor name, taken apart."""

    name: str
    prefix: str
    matrix: str
    projection: str | None
    component: int | None


def infer_layout(shapes: Mapping[str, Shape], base: BaseShape | None = None) -> Layout:
    """Read the structure off tensor names and shapes.

    Args:
        shapes: shape of every tensor in the file, by name.
        base: the base model's sizes; None checks the file against itself only.

    Raises:
        LayoutError: with every fault found, each with expected and actual.
    """
    parts, strange = _parse(shapes)
    if not parts:
        raise LayoutError([_nothing_found(shapes)])
    faults = [f"unexpected tensor {name!r} {list(shapes[name])}" for name in strange]
    hidden, intermediate = _widths(parts, shapes, base)
    layers = []
    for index in sorted(parts):
        layer, layer_faults = _infer_layer(index, parts[index], shapes)
        faults += layer_faults
        if layer is not None:
            layers.append(layer)
            faults += _compare(layer, parts[index], shapes, hidden, intermediate)
    layout = Layout(layers=tuple(layers), hidden_size=hidden, intermediate_size=intermediate)
    if base is not None:
        faults += _compare_base(layout, sorted(parts), base)
    if faults:
        raise LayoutError(_capped(faults))
    return layout


def _parse(names: Iterable[str]) -> tuple[dict[int, list[_Part]], list[str]]:
    """Sort names into layers; what is no NPT tensor's name comes second."""
    parts: dict[int, list[_Part]] = defaultdict(list)
    strange = []
    for name in names:
        outer = _NAME.fullmatch(name)
        inner = _REST.fullmatch(outer["rest"]) if outer else None
        if outer is None or inner is None:
            strange.append(name)
            continue
        parts[int(outer["short"] or outer["long"])].append(
            _Part(
                name=name,
                prefix=name[: outer.start("rest")],
                matrix=inner["matrix"],
                projection=inner["projection"],
                component=None if inner["component"] is None else int(inner["component"]),
            )
        )
    return parts, strange


def _nothing_found(shapes: Mapping[str, Shape]) -> str:
    """Say what the file holds instead of NPT layers."""
    if not shapes:
        return "No NPT layers found in checkpoint: it holds no tensors"
    first = ", ".join(repr(name) for name in list(shapes)[:3])
    more = f" and {len(shapes) - 3} more" if len(shapes) > 3 else ""  # noqa: PLR2004 - as above
    guess = ""
    if any("exp_avg" in name or name.startswith(("optimizer", "state.")) for name in shapes):
        guess = " (optimizer state)"
    elif any("self_attn" in name or "lm_head" in name for name in shapes):
        guess = " (a plain model's weights)"
    return f"No NPT layers found in checkpoint: found {first}{more}{guess} instead"


def _most_common(values: Iterable[int]) -> int | None:
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else None


def _widths(
    parts: Mapping[int, list[_Part]], shapes: Mapping[str, Shape], base: BaseShape | None
) -> tuple[int, int]:
    """D and F that most tensors of the file agree on."""
    flat = [part for layer in parts.values() for part in layer if len(shapes[part.name]) == 2]  # noqa: PLR2004 - matrices
    hidden = [shapes[p.name][0] for p in flat if p.matrix == "W_down"]
    hidden += [shapes[p.name][1] for p in flat if p.matrix == "W_a_up" and p.projection != "down"]
    wide = [shapes[p.name][1] for p in flat if p.matrix == "W_b_up" and p.projection != "down"]
    wide += [shapes[p.name][1] for p in flat if p.matrix == "W_a_up" and p.projection == "down"]
    fallback = (base.hidden_size, base.intermediate_size) if base else (0, 0)
    return _most_common(hidden) or fallback[0], _most_common(wide) or fallback[1]


def _infer_layer(
    index: int, parts: list[_Part], shapes: Mapping[str, Shape]
) -> tuple[LayerLayout | None, list[str]]:
    """Kind, R and K of one layer, and what contradicts itself in its names."""
    prefixes = sorted({part.prefix for part in parts})
    if len(prefixes) > 1:
        return None, [f"layer {index}: mixed prefixes {prefixes[0]!r} and {prefixes[1]!r}"]
    projections = {part.projection for part in parts}
    if None in projections and len(projections) > 1:
        others = sorted(p for p in projections if p)
        return None, [f"layer {index}: plain names mixed with names for {', '.join(others)}"]
    kind = Kind.SINGLE
    if None not in projections:
        kind = Kind.TRIPLE if "down" in projections else Kind.DUAL
    components = {part.component for part in parts}
    numbers = sorted(c for c in components if c is not None)
    if numbers and None in components:
        return None, [f"layer {index}: numbered names mixed with names without a number"]
    if numbers == [0]:
        return None, [
            f"layer {index}: only component .0 is there; one component has no number, "
            "more components need .1 and so on"
        ]
    if numbers and numbers[-1] >= len(shapes):
        return None, [f"layer {index}: component .{numbers[-1]} without the ones before it"]
    ranks = [
        shapes[p.name][1 if p.matrix == "W_down" else 0]
        for p in parts
        if len(shapes[p.name]) == 2  # noqa: PLR2004 - matrices
    ]
    rank = _most_common(ranks)
    if not rank:
        return None, [f"layer {index}: its rank cannot be read off: no tensor is a matrix"]
    num_ranks = numbers[-1] + 1 if numbers else 1
    layer = LayerLayout(index=index, kind=kind, rank=rank, num_ranks=num_ranks, prefix=prefixes[0])
    return layer, []


def _compare(
    layer: LayerLayout,
    parts: list[_Part],
    shapes: Mapping[str, Shape],
    hidden_size: int,
    intermediate_size: int,
) -> list[str]:
    """Missing tensors and wrong shapes of one layer."""
    expected = dict(layer.shapes(hidden_size, intermediate_size))
    faults = [
        f"missing tensor {name!r} {list(shape)}"
        for name, shape in expected.items()
        if name not in shapes
    ]
    for part in parts:
        wanted = expected.get(part.name)
        actual = shapes[part.name]
        if wanted is None:
            faults.append(f"unexpected tensor {part.name!r} {list(actual)}")
        elif actual != wanted:
            faults.append(f"{part.name!r}: expected shape {list(wanted)}, found {list(actual)}")
    return faults


def _compare_base(layout: Layout, indices: list[int], base: BaseShape) -> list[str]:
    """Where the checkpoint does not fit the base model."""
    faults = []
    for name, ours, theirs in (
        ("hidden_size (D)", layout.hidden_size, base.hidden_size),
        ("intermediate_size (F)", layout.intermediate_size, base.intermediate_size),
    ):
        if ours != theirs:
            faults.append(f"{name}: the base model has {theirs}, the checkpoint expects {ours}")
    faults += [
        f"layer {index}: the base model has layers 0 to {base.num_layers - 1} only"
        for index in indices
        if index >= base.num_layers
    ]
    return faults


def _capped(faults: list[str]) -> list[str]:
    if len(faults) <= MAX_FAULTS:
        return faults
    return [*faults[:MAX_FAULTS], f"and {len(faults) - MAX_FAULTS} more faults"]
