"""Continuations of prompts by a checkpoint, or by the base alone, drawn with the same noise.

Legend: B draws (rows), T tokens, S tokens seen, D hidden_size, V vocabulary.

A token is argmax(logits / temperature + noise) with Gumbel noise, which samples softmax(logits /
temperature) exactly. The noise depends on (seed, prompt, temperature, position) only: both sides
draw with the same, so that equal models give equal texts and a difference is the checkpoint's.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import torch

from nptwatch.diagnostics.reference import LOGITS_BYTES
from nptwatch.npt.finite import all_finite
from nptwatch.npt.modulation import Rows, layer_forward

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import Tensor

    from nptwatch.npt.base import BaseModel
    from nptwatch.npt.modulation import NptLayer

MAX_NEW_TOKENS = 20

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One continuation to be drawn.

    Attributes:
        temperature: 0: the most likely token each time.
    """

    prompt: str
    temperature: float

    def choose(self, logits_V: Tensor, *, seed: int, position: int) -> int:
        """Draw a token.

        Args:
            logits_V: float32.
            position: the token's place in the continuation, from 0.

        Raises:
            FloatingPointError: NaN or infinity in the logits.
        """
        if not all_finite(logits_V):
            raise FloatingPointError(
                f"NaN or infinity in the logits after {position} new tokens of {self.prompt!r}"
            )
        if self.temperature == 0:
            return int(logits_V.argmax())
        noise_V = self._noise(len(logits_V), seed, position).to(logits_V.device)
        return int((logits_V / self.temperature + noise_V).argmax())

    def _noise(self, vocabulary: int, seed: int, position: int) -> Tensor:
        """Gumbel noise, on the CPU: the same on every device."""
        facts = json.dumps([seed, self.prompt, self.temperature, position])
        digest = hashlib.sha256(facts.encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        # four times as fast as exponential_(), and as Gumbel
        return torch.rand(vocabulary, generator=generator).log_().neg_().log_().neg_()


@torch.inference_mode()
def generate(
    base: BaseModel,
    npt: Mapping[int, NptLayer],
    draws: Sequence[Draw],
    *,
    drop: bool = False,
    seed: int,
    max_new_tokens: int = MAX_NEW_TOKENS,
    use_cache: bool = True,
    begun: Sequence[Sequence[int]] | None = None,
) -> list[tuple[int, ...]]:
    """Draw all continuations as one batch, token by token, until the end-of-sequence token.

    Args:
        npt: active layers, by index; empty: the base alone.
        drop: the residual rule of the NPT layers.
        seed: of the noise.
        use_cache: keep keys and values of earlier tokens (same tokens, less work).
        begun: what each draw has already.

    Returns:
        Each draw's new tokens, those begun and the end token included where it came.

    Raises:
        FloatingPointError: NaN or infinity in the logits; names the draw.
    """
    ends = end_tokens(base)
    found = [list(tokens) for tokens in begun] if begun else [[] for _ in draws]
    open_rows = [row for row, tokens in enumerate(found) if _is_open(tokens, ends, max_new_tokens)]
    if not open_rows:
        return [tuple(tokens) for tokens in found]
    prompts = [[*base.tokenizer(draws[row].prompt)["input_ids"], *found[row]] for row in open_rows]
    decoder = _Decoder(base, npt, prompts, drop=drop, use_cache=use_cache)
    new: list[list[int]] = [[] for _ in open_rows]
    while any(_is_open(found[row], ends, max_new_tokens) for row in open_rows):
        for row, more, logits_V in zip(open_rows, new, decoder.next_logits(new), strict=True):
            if _is_open(found[row], ends, max_new_tokens):
                position = len(found[row])
                token = draws[row].choose(logits_V, seed=seed, position=position)
                found[row].append(token)
                more.append(token)
    return [tuple(tokens) for tokens in found]


def _is_open(tokens: Sequence[int], ends: Collection[int], max_new_tokens: int) -> bool:
    return len(tokens) < max_new_tokens and not (tokens and tokens[-1] in ends)


class _Decoder:
    """Prompts of several lengths as rows of one batch, padded on the left."""

    def __init__(
        self,
        base: BaseModel,
        npt: Mapping[int, NptLayer],
        prompts: Sequence[Sequence[int]],
        *,
        drop: bool,
        use_cache: bool,
    ) -> None:
        from transformers import DynamicCache

        self._base, self._npt = base, npt
        self._prompts = prompts
        self._padding = [max(map(len, self._prompts)) - len(ids) for ids in self._prompts]
        self._cache = DynamicCache(config=base.model.config) if use_cache else None
        self._rows = Rows(
            active=None, drop_B11=torch.ones(1, 1, 1, dtype=torch.bool, device=base.device)
        )
        if not drop:
            self._rows = Rows(active=None, drop_B11=None)
        self._done = 0

    def next_logits(self, new: Sequence[Sequence[int]]) -> Tensor:
        """Logits of the token after all that are there, float32, (B,V)."""
        longest = max(map(len, new))
        rows = [
            [ids[0]] * padding + list(ids) + list(tokens) + [ids[0]] * (longest - len(tokens))
            for ids, padding, tokens in zip(self._prompts, self._padding, new, strict=True)
        ]
        h_BTD = self._forward(torch.tensor(rows, device=self._base.device)[:, self._done :])
        if self._cache is not None:
            self._done = len(rows[0])
        return self._base.head(self._base.norm(h_BTD[:, -1]))

    def _forward(self, ids_BT: Tensor) -> Tensor:
        base = self._base
        seen, now = self._done + ids_BT.shape[1], ids_BT.shape[1]
        place_S = torch.arange(seen, device=base.device)
        padding_B1 = torch.tensor(self._padding, device=base.device)[:, None]
        positions_BT = (place_S[None, -now:] - padding_B1).clamp(min=0)
        h_BTD = base.embed(ids_BT)
        rotary = base.rotary(h_BTD, positions_BT)
        mask = self._mask(place_S, now, padding_B1)
        for index, layer in base.each_layer():
            h_BTD = layer_forward(
                layer,
                h_BTD,
                position_embeddings=rotary,
                npt=self._npt.get(index),
                rows=self._rows,
                mask=mask,
                cache=self._cache,
            )
        return h_BTD

    def _mask(self, place_S: Tensor, now: int, padding_B1: Tensor) -> Tensor:
        """Not later, and no padding; padding sees itself, as a row that sees nothing gives NaN."""
        query_T1, key_1S = place_S[-now:, None], place_S[None, :]
        real_B1S = key_1S[None] >= padding_B1[:, :, None]
        seen_BTS = ((key_1S <= query_T1)[None] & real_B1S) | (key_1S == query_T1)[None]
        return seen_BTS[:, None]


@dataclass(slots=True, kw_only=True)
class Continuations:
    """What the base itself continues prompts with; computed once for all checkpoints.

    They are settled by a sweep, as a checkpoint's are drawn: see drafting.py.

    Args:
        folder: where they are kept between processes; None: in memory only.
        logits_bytes, batch_tokens: see Reference.
    """

    base: BaseModel
    folder: Path | None
    seed: int
    max_new_tokens: int = MAX_NEW_TOKENS
    logits_bytes: int = LOGITS_BYTES
    batch_tokens: int = 0
    computed: int = 0
    _kept: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)

    def of(self, draws: Sequence[Draw]) -> list[tuple[int, ...]]:
        """Return the base's new tokens for each draw, from memory, disk, or the base itself."""
        key = self._key(draws)
        if key not in self._kept:
            self._kept[key] = self._load(key, len(draws)) or self._compute(key, draws)
        return self._kept[key]

    def _key(self, draws: Sequence[Draw]) -> str:
        base = self.base
        facts = json.dumps(
            [
                base.revision,
                str(base.dtype),
                base.device.type,
                f"torch {torch.__version__} transformers {version('transformers')} 3",
                self.seed,
                self.max_new_tokens,
                [[draw.prompt, draw.temperature] for draw in draws],
            ]
        )
        return hashlib.sha256(facts.encode()).hexdigest()[:32]

    def _compute(self, key: str, draws: Sequence[Draw]) -> list[tuple[int, ...]]:
        from nptwatch.diagnostics.drafting import settle  # which draws with this module

        seed, most = self.seed, self.max_new_tokens
        decoded = generate(self.base, {}, draws, seed=seed, max_new_tokens=most)
        tokens = settle(
            self.base,
            draws,
            decoded,
            seed=seed,
            max_new_tokens=most,
            logits_bytes=self.logits_bytes,
            batch_tokens=self.batch_tokens,
        )
        self.computed += 1
        self._save(key, tokens)
        return tokens

    def _load(self, key: str, count: int) -> list[tuple[int, ...]] | None:
        if self.folder is None:
            return None
        path = self.folder / f"{key}.json"
        try:
            return self._checked(json.loads(path.read_text()), count)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            log.warning("continuations_unreadable", path=str(path), error=str(exc))
            return None

    def _checked(self, kept: Any, count: int) -> list[tuple[int, ...]]:  # noqa: ANN401 - JSON
        """Hold that a file has what was asked of it.

        Raises:
            ValueError: it has something else.
        """
        vocabulary = self.base.model.config.vocab_size
        if isinstance(kept, list) and len(kept) == count:
            good = all(
                isinstance(tokens, list)
                and 0 < len(tokens) <= self.max_new_tokens
                and all(isinstance(token, int) and 0 <= token < vocabulary for token in tokens)
                for tokens in kept
            )
            if good:
                return [tuple(tokens) for tokens in kept]
        raise ValueError("not the tokens of these draws")

    def _save(self, key: str, tokens: Sequence[Sequence[int]]) -> None:
        """Write beside and rename, so that no process ever reads half a file."""
        if self.folder is None:
            return
        part = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=self.folder, suffix=".part")
            with os.fdopen(handle, "w") as file:
                json.dump(tokens, file)
            Path(part).replace(self.folder / f"{key}.json")
        except OSError as exc:  # a cache: without it all is slower, not wrong
            log.warning("continuations_not_kept", folder=str(self.folder), error=str(exc))
            if part is not None:
                Path(part).unlink(missing_ok=True)


def decode(base: BaseModel, prompt: str, ids: Sequence[int]) -> str:
    """Give prompt and continuation as one text, special tokens left out."""
    text: str = base.tokenizer.decode(
        [*base.tokenizer(prompt)["input_ids"], *ids], skip_special_tokens=True
    )
    return text


def end_tokens(base: BaseModel) -> set[int]:
    """Give the tokens that end a text."""
    end = base.model.generation_config.eos_token_id
    return set(end) if isinstance(end, list) else {end}
