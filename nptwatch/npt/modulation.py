"""What one layer computes, for tokens that may each take the NPT or the standard path.

Legend: B rows, T tokens, D hidden_size, F intermediate_size, R rank, K components, X a projection's
input width, Y its output width. Formulas: docs/npt.md, "What one layer computes".

Everything here is differentiable: the demo trains through these same functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from nptwatch.npt.layout import MATRICES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nptwatch.npt.attention import Segments
    from nptwatch.npt.layout import LayerLayout, Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One rank-1 component of a modulated projection.

    Attributes:
        down_DR: attention output -> bottleneck.
        a_RX: bottleneck -> what the projection's input is compared with.
        b_RY: bottleneck -> what is added to the projection's output.
    """

    down_DR: Tensor
    a_RX: Tensor
    b_RY: Tensor

    def delta(self, x_BTX: Tensor, attn_BTD: Tensor) -> Tensor:
        """Return vb * <va, x>, shape (B,T,Y)."""
        z_BTR = attn_BTD @ self.down_DR
        # <va, x> = <z W_a, x> = <z, x W_a^T>: never builds va (B,T,X)
        match_BTR = z_BTR * functional.linear(x_BTX, self.a_RX)
        return (z_BTR * match_BTR.sum(-1, keepdim=True)) @ self.b_RY


@dataclass(frozen=True, slots=True, kw_only=True)
class Modulation:
    """The trained weights of one modulated projection: K components, as they were read."""

    components: tuple[Component, ...]

    def delta(self, x_BTX: Tensor, attn_BTD: Tensor) -> Tensor:
        """Return sum_k vb_k * <va_k, x>, shape (B,T,Y).

        Args:
            x_BTX: the projection's own input.
            attn_BTD: the layer's attention output.
        """
        first, *others = self.components
        delta_BTY = first.delta(x_BTX, attn_BTD)
        for component in others:
            delta_BTY = delta_BTY + component.delta(x_BTX, attn_BTD)
        return delta_BTY


@dataclass(frozen=True, slots=True, kw_only=True)
class NptLayer:
    """One NPT layer's trained weights; `gate` always, `up` for dual, `down` for triple."""

    index: int
    gate: Modulation
    up: Modulation | None = None
    down: Modulation | None = None


def npt_layers(
    layout: Layout, tensors: Mapping[str, Tensor], *, dtype: torch.dtype, device: torch.device
) -> dict[int, NptLayer]:
    """Put a checkpoint's tensors where they are computed with, by layer index.

    Copies only what has another dtype or lies on another device.
    """
    return {
        layer.index: NptLayer(
            index=layer.index,
            **{
                projection: _modulation(layer, projection, tensors, dtype, device)
                for projection in layer.projections
            },
        )
        for layer in layout.layers
    }


def _modulation(
    layer: LayerLayout,
    projection: str,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
    device: torch.device,
) -> Modulation:
    components = []
    for component in range(layer.num_ranks):
        down_DR, a_RX, b_RY = (
            tensors[layer.name(matrix, projection, component)].to(device=device, dtype=dtype)
            for matrix in MATRICES
        )
        components.append(Component(down_DR=down_DR, a_RX=a_RX, b_RY=b_RY))
    return Modulation(components=tuple(components))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Which tokens take the NPT path at one layer, and under which residual rule.

    Attributes:
        active: places along T that are on the NPT path, or None for all.
        drop_B11: True where the attention output is left out of the sum, or None for nowhere.
    """

    active: Tensor | None
    drop_B11: Tensor | None


def layer_forward(
    layer: Any,  # noqa: ANN401 - a transformers decoder layer; its class has no stable type
    h_BTD: Tensor,
    *,
    position_embeddings: tuple[Tensor, Tensor],
    npt: NptLayer | None = None,
    rows: Rows | None = None,
    mask: Segments | Tensor | None = None,
    cache: Any = None,  # noqa: ANN401 - transformers Cache
) -> Tensor:
    """Run one decoder layer: standard path, or NPT path for the tokens named.

    Args:
        h_BTD: the residual stream.
        npt: the layer's trained weights; None: standard layer.
        rows: which tokens are active; None with `npt`: all of them, residual rule keep.
        mask: segments of a packed sequence; (B,1,T,S), True where the row's token sees the
            column's; None: plain causal.
        cache: keys and values of earlier tokens.

    Returns:
        The residual stream after the layer, (B,T,D).
    """
    rows = rows or Rows(active=None, drop_B11=None)
    attn_BTD, mlp_BTD = layer_parts(
        layer,
        h_BTD,
        position_embeddings=position_embeddings,
        npt=npt,
        active=rows.active,
        mask=mask,
        cache=cache,
    )
    if npt is not None and rows.drop_B11 is not None:
        return torch.where(rows.drop_B11, h_BTD, h_BTD + attn_BTD) + mlp_BTD
    return h_BTD + attn_BTD + mlp_BTD


def layer_parts(
    layer: Any,  # noqa: ANN401 - a transformers decoder layer
    h_BTD: Tensor,
    *,
    position_embeddings: tuple[Tensor, Tensor],
    npt: NptLayer | None = None,
    active: Tensor | None = None,
    mask: Segments | Tensor | None = None,
    cache: Any = None,  # noqa: ANN401 - transformers Cache
) -> tuple[Tensor, Tensor]:
    """Compute what a layer adds to the stream; arguments as for `layer_forward`.

    Attention is shared by both paths, and so is each product with a base weight, so a weight is
    read once whatever the mixture. Both residual rules are sums of the same parts: h + a + m (keep,
    and the standard path) and h + m (drop).

    Args:
        active: places along T on the NPT path; None with `npt`: all.

    Returns:
        Attention output a and MLP output m, each (B,T,D).
    """
    attn_BTD: Tensor = layer.self_attn(
        hidden_states=layer.input_layernorm(h_BTD),
        position_embeddings=position_embeddings,
        attention_mask=mask,
        past_key_values=cache,
    )[0]
    if npt is None:
        return attn_BTD, layer.mlp(layer.post_attention_layernorm(h_BTD + attn_BTD))
    return attn_BTD, _mlp(layer, npt, active, h_BTD, attn_BTD)


def _mlp(
    layer: Any,  # noqa: ANN401 - a transformers decoder layer
    npt: NptLayer,
    active: Tensor | None,
    h_BTD: Tensor,
    attn_BTD: Tensor,
) -> Tensor:
    """SwiGLU with the active tokens' projections modulated; active ones see h, others h + a."""
    seen_BTD = h_BTD
    if active is not None:
        seen_BTD = (h_BTD + attn_BTD).index_copy(1, active, h_BTD[:, active])
    x_BTD = layer.post_attention_layernorm(seen_BTD)
    gate_BTF = _modulated(layer.mlp.gate_proj(x_BTD), npt.gate, active, x_BTD, attn_BTD)
    up_BTF = _modulated(layer.mlp.up_proj(x_BTD), npt.up, active, x_BTD, attn_BTD)
    s_BTF = layer.mlp.act_fn(gate_BTF) * up_BTF
    return _modulated(layer.mlp.down_proj(s_BTF), npt.down, active, s_BTF, attn_BTD)


def _modulated(
    out_BTY: Tensor,
    modulation: Modulation | None,
    active: Tensor | None,
    x_BTX: Tensor,
    attn_BTD: Tensor,
) -> Tensor:
    """Add the delta of one projection to the tokens that are active."""
    if modulation is None:
        return out_BTY
    if active is None:
        return out_BTY + modulation.delta(x_BTX, attn_BTD)
    return out_BTY.index_add(1, active, modulation.delta(x_BTX[:, active], attn_BTD[:, active]))
