"""The demo's base model: a tiny Llama and its tokenizer, built from code.

The Llama is not trained, its weights are random. What an NPT learns is to do without the attention
output in front of an MLP, and for that a random function is as good a teacher as a trained one, as
long as it is like a real Llama in two ways: its logits have a standard deviation near 2.5, so that
an MSE means what it means there, and its upper attentions and MLPs matter, so that there is
something to learn.

    python -m nptwatch.demo.base --output DIR --seed N
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from nptwatch.demo.corpus import TEXT
from nptwatch.diagnostics.probes import QUICK_PROMPTS

BOS = "<|begin_of_text|>"
EOS = "<|end_of_text|>"
VOCABULARY = 512
LOGIT_STD = 2.5
"""Of a real Llama's logits, roughly."""
EMBEDDING_STD = 1.0
MLP_STD = 0.12
ATTENTION_STD = 0.09
"""Of value and output projections: how much an NPT, which sees no attention output, misses."""


def build_base(folder: Path, *, seed: int) -> None:
    """Write a tiny Llama and its tokenizer as `save_pretrained` does.

    Args:
        folder: where to; created.
        seed: of the Llama's weights.
    """
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def build_tokenizer() -> Any:  # noqa: ANN401 - transformers classes are not typed
    """Train a byte-level BPE on the demo's text; every text can be written with it."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT], trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, backend.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=EOS)


def build_model(tokenizer: Any, *, seed: int) -> Any:  # noqa: ANN401 - transformers classes
    """Draw the weights of a 4-layer, 64-wide Llama and scale its logits."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=MLP_STD,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).eval()
        model.model.embed_tokens.weight.normal_(0, EMBEDDING_STD)
        for layer in model.model.layers:
            layer.self_attn.v_proj.weight.normal_(0, ATTENTION_STD)
            layer.self_attn.o_proj.weight.normal_(0, ATTENTION_STD)
        _scale_logits(model, tokenizer)
    return model


def _scale_logits(model: Any, tokenizer: Any) -> None:  # noqa: ANN401 - transformers classes
    logits = [
        model(torch.tensor([tokenizer(prompt)["input_ids"]])).logits.flatten()
        for prompt in QUICK_PROMPTS
    ]
    model.lm_head.weight.mul_(LOGIT_STD / torch.cat(logits).std())


def main() -> int:
    """Build the base as the command line says."""
    parser = argparse.ArgumentParser(prog="nptwatch.demo.base", description=build_base.__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    transformers_logging.disable_progress_bar()
    build_base(options.output, seed=options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
