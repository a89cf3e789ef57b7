"""Which decoders can be a base: those whose layers compute what a Llama's do.

Attention may differ (biases, norms of queries and keys, sliding windows): it stays transformers'
own code. Everything around it is computed here layer by layer, so it must be known: the same parts
in each layer, and, since a scalar in a forward pass is no part, the same numbers.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from nptwatch.errors import BaseModelError
from nptwatch.npt.attention import register
from nptwatch.npt.modulation import layer_forward

if TYPE_CHECKING:
    from torch import Tensor

    from nptwatch.npt.base import BaseModel

LAYER_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
MLP_PARTS = {"gate_proj", "up_proj", "down_proj", "act_fn"}
MODEL_PARTS = {"embed_tokens", "layers", "norm", "rotary_emb"}
KNOWN_TO_AGREE = frozenset({"llama"})
"""Not checked by numbers at each load: it is what the tests and golden cases are made of."""
TOKENS = 12
SMALL = 64
"""Sizes of the model that code is checked on."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Greatest difference of any logit, in units of their standard deviation."""


def require_known_parts(name: str, model: Any) -> None:  # noqa: ANN401 - transformers model
    """Hold that a model is made of the parts that are computed here.

    Raises:
        BaseModelError: it has others; says which.
    """
    inner: Any = getattr(model, "model", None)  # a torch module, or nothing
    missing = MODEL_PARTS - _parts(inner)
    if missing or not hasattr(model, "lm_head"):
        raise _other(name, model, f"has no {', '.join(sorted(missing)) or 'lm_head'}")
    for index, layer in enumerate(inner.layers):
        for parts, wanted in ((_parts(layer), LAYER_PARTS), (_parts(layer.mlp), MLP_PARTS)):
            if parts != wanted:
                others = ", ".join(sorted(parts ^ wanted))
                raise _other(name, model, f"its layer {index} differs in: {others}")


def require_same_numbers(base: BaseModel) -> None:
    """Hold that a base, computed layer by layer, gives what its library's own pass gives.

    Raises:
        BaseModelError: it does not: it scales or adds something that is no part of it.
    """
    config = base.model.config
    if config.model_type in KNOWN_TO_AGREE:
        return
    tokens = min(TOKENS, getattr(config, "sliding_window", None) or TOKENS)
    ids_1T = torch.arange(tokens, device=base.device)[None] % config.vocab_size
    with torch.inference_mode():
        theirs_TV = base.model(input_ids=ids_1T, use_cache=False).logits[0].float()
        ours_TV = _by_layers(base, ids_1T)
    difference = ((ours_TV - theirs_TV).abs().max() / theirs_TV.std()).item()
    if not difference <= TOLERANCE[base.dtype]:
        raise _other(
            base.name,
            base.model,
            f"computed layer by layer its logits differ by {difference:.2g} standard deviations",
        )


def require_same_code(name: str, config: Any) -> None:  # noqa: ANN401 - transformers config
    """Do what `require_same_numbers` does for a base whose own weights are not in memory.

    A small random model is made of its config: the same code with the same scalars. One layer of
    each kind is in it, and heads keep their size, so that nothing that depends on it changes.

    Raises:
        BaseModelError: it computes something else, or no small one can be made.
    """
    from nptwatch.npt.base import BaseModel

    if config.model_type in KNOWN_TO_AGREE:
        return
    try:
        model = _small_model(config)
    except Exception as exc:  # whatever a config of any kind raises
        raise BaseModelError(
            f"base model {name!r} is a {config.model_type!r} and cannot be checked before it is "
            f'streamed ({exc}); set base.layers to "resident"'
        ) from exc
    require_same_numbers(BaseModel(name=name, revision="", model=model, tokenizer=None))


def _small_model(config: Any) -> Any:  # noqa: ANN401 - transformers config and model
    """Build a random model of two heads, with one layer of each kind, in float32."""
    from transformers import AutoModelForCausalLM

    small = copy.deepcopy(config)
    kinds: list[str] = list(dict.fromkeys(getattr(config, "layer_types", None) or []))
    sizes = {
        "head_dim": getattr(config, "head_dim", None)
        or config.hidden_size // config.num_attention_heads,
        "hidden_size": SMALL,
        "intermediate_size": 2 * SMALL,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": max(2, len(kinds)),
        "vocab_size": SMALL,
        "initializer_range": 0.1,
        "pad_token_id": None,
        **({"layer_types": kinds * (2 if len(kinds) == 1 else 1)} if kinds else {}),
    }
    for key, value in sizes.items():
        setattr(small, key, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(
            small, dtype=torch.float32, attn_implementation=register()
        )
    return model.requires_grad_(requires_grad=False).eval()


def _by_layers(base: BaseModel, ids_1T: Tensor) -> Tensor:
    """Logits as the sweep computes them, (T,V)."""
    h_1TD = base.embed(ids_1T)
    rotary = base.rotary(h_1TD, torch.arange(ids_1T.shape[1], device=base.device))
    for _, layer in base.each_layer():
        h_1TD = layer_forward(layer, h_1TD, position_embeddings=rotary)
    return base.head(base.norm(h_1TD))[0]


def _parts(module: Any) -> set[str]:  # noqa: ANN401 - torch module or None
    return {name for name, _ in module.named_children()} if module is not None else set()


def _other(name: str, model: Any, why: str) -> BaseModelError:  # noqa: ANN401 - transformers model
    return BaseModelError(
        f"base model {name!r} is a {model.config.model_type!r} and cannot be a base: {why}. "
        "Bases are decoders built as Llama is (Llama, Mistral, Qwen2, Qwen3)"
    )
