"""A base that does not fit into memory: its layers come from disk one at a time, in each walk.

Legend: B rows, T tokens, N tokens of all rows, D hidden_size, V vocabulary.

What is resident is a skeleton without weights (torch's meta device), the last norm and rotary's
few numbers. Of the embedding only the rows asked for are read; the head comes in slices of the
vocabulary. In memory are two layers, or two slices, never more.
"""

from __future__ import annotations

import copy
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from nptwatch.errors import BaseModelError
from nptwatch.npt.attention import register
from nptwatch.npt.base import BaseModel, base_revision
from nptwatch.npt.families import require_known_parts, require_same_code
from nptwatch.npt.read_ahead import Piece, read_ahead

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from torch import Tensor

    from nptwatch.npt.finding import Found
    from nptwatch.npt.weight_files import Stored, WeightFiles

EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"

SLICE_BYTES = 64 * 1024**2
"""Of the head, in the dtype that is computed in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedBase(BaseModel):
    """A base whose layers are read when they are needed.

    Attributes:
        model: the skeleton: config and modules as ever, but without the weights.
        files: where the weights are.
        stored: where each of the skeleton's weights lies, by its name in the skeleton.
        place: where to compute.
        computed_in: the dtype.
    """

    files: WeightFiles
    stored: Mapping[str, Stored]
    place: torch.device
    computed_in: torch.dtype

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return self.place

    @property
    def dtype(self) -> torch.dtype:
        """In what it is computed."""
        return self.computed_in

    def each_layer(self, start: int = 0) -> Iterator[tuple[int, Any]]:  # Any: as `layers`
        """Go through the decoder layers in order, each with its index.

        A layer has weights until the next one is asked for; then it is an empty skeleton again.
        """
        skeletons = list(enumerate(self.layers))[start:]
        parts = [
            {key: self._whole(f"model.layers.{index}.{key}") for key in skeleton.state_dict()}
            for index, skeleton in skeletons
        ]
        with closing(self._read(parts)) as read:
            for (index, skeleton), tensors in zip(skeletons, read, strict=True):
                # of its own for each walk: one that was left early cannot empty another's layer
                layer = copy.deepcopy(skeleton, {id(self.model.config): self.model.config})
                layer.load_state_dict(tensors, assign=True)
                try:
                    yield index, layer
                finally:
                    layer.to("meta")

    def embed(self, ids_BT: Tensor) -> Tensor:
        """Return the residual stream before the first layer, (B,T,D); reads these rows only."""
        stored = self.stored[EMBEDDING]
        vocabulary, width = stored.shape
        ids_U, which_BT = torch.unique(ids_BT, return_inverse=True)
        if not 0 <= int(ids_U[0]) <= int(ids_U[-1]) < vocabulary:
            raise IndexError(f"token {int(ids_U[-1])} of a vocabulary of {vocabulary}")
        rows_UD = torch.empty(len(ids_U), width, dtype=stored.dtype)
        for row_D, token in zip(rows_UD, ids_U.tolist(), strict=True):
            self.files.read(stored, token * width, row_D)
        self.files.require_unchanged()
        return rows_UD.to(self.place, self.computed_in)[which_BT]

    def head(self, normed: Tensor) -> Tensor:
        """Return float32 logits, (..., V), of a normed stream."""
        stored = self.stored[HEAD]
        vocabulary, width = stored.shape
        step = max(1, SLICE_BYTES // (width * self.computed_in.itemsize))
        parts = [
            {
                "rows_SD": Piece(
                    stored=stored, start=row * width, shape=(min(step, vocabulary - row), width)
                )
            }
            for row in range(0, vocabulary, step)
        ]
        logits = torch.empty(*normed.shape[:-1], vocabulary, dtype=torch.float32, device=self.place)
        for number, tensors in enumerate(self._read(parts)):
            rows_SD = tensors["rows_SD"]
            place = number * step
            logits[..., place : place + len(rows_SD)] = functional.linear(normed, rows_SD).float()
        return logits

    def _whole(self, name: str) -> Piece:
        stored = self.stored[name]
        return Piece(stored=stored, start=0, shape=stored.shape)

    def _read(self, parts: list[dict[str, Piece]]) -> Generator[dict[str, Tensor]]:
        return read_ahead(self.files, parts, dtype=self.computed_in, device=self.place)


def open_streamed(
    found: Found, files: WeightFiles, dtype: str, device: torch.device
) -> StreamedBase:
    """Make a streamed base.

    Raises:
        BaseModelError: weights are missing, or it is not built as Llama is.
    """
    computed_in = getattr(torch, dtype)
    model = found.attempt(lambda: skeleton_of(found, computed_in))
    require_known_parts(found.name, model)
    require_plain_ends(found.name, model)
    stored = stored_of(found.name, model, files)
    require_same_code(found.name, found.config)
    inner = model.model
    with device:
        inner.rotary_emb = type(inner.rotary_emb)(config=model.config)
    norm = [{"weight": Piece(stored=stored[NORM], start=0, shape=stored[NORM].shape)}]
    for tensors in read_ahead(files, norm, dtype=computed_in, device=device):
        inner.norm.load_state_dict(tensors, assign=True)
    return StreamedBase(
        name=found.name,
        revision=base_revision(found),
        model=model,
        tokenizer=found.tokenizer,
        files=files,
        stored=stored,
        place=device,
        computed_in=computed_in,
    )


def skeleton_of(found: Found, dtype: torch.dtype) -> Any:  # noqa: ANN401 - transformers model
    """Build the model without weights."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            found.config, dtype=dtype, attn_implementation=register()
        )
    with suppress(OSError):  # where there is none, what follows from the config is in force
        model.generation_config = GenerationConfig.from_pretrained(found.source, **found.options)
    return model.requires_grad_(requires_grad=False).eval()


def require_plain_ends(name: str, model: Any) -> None:  # noqa: ANN401 - transformers model
    """Hold that embedding and head are tables and nothing else: their code is not run."""
    for end, plain in (
        (model.model.embed_tokens, torch.nn.Embedding),
        (model.lm_head, torch.nn.Linear),
    ):
        if type(end) is not plain or set(end.state_dict()) != {"weight"}:
            msg = (
                f"base model {name!r}: its {type(end).__name__} cannot be streamed; "
                'set base.layers to "resident"'
            )
            raise BaseModelError(msg)


def stored_of(name: str, model: Any, files: WeightFiles) -> dict[str, Stored]:  # noqa: ANN401
    """Find each of the skeleton's weights.

    Raises:
        BaseModelError: some are missing, or of another shape.
    """
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    # files of the decoder alone have no "model." in front
    bare = EMBEDDING not in files.tensors and EMBEDDING.removeprefix("model.") in files.tensors
    found = {key: files.tensors.get(key.removeprefix("model.") if bare else key) for key in wanted}
    if model.config.tie_word_embeddings:
        found[HEAD] = found[HEAD] or found[EMBEDDING]
        found[EMBEDDING] = found[EMBEDDING] or found[HEAD]
    stored = {
        key: tensor
        for key, tensor in found.items()
        if tensor is not None and tensor.shape == wanted[key]
    }
    bad = sorted(wanted.keys() - stored.keys())
    if bad:
        msg = (
            f"base model {name!r} is incomplete: {len(bad)} weights missing or of another shape, "
            f"first {bad[0]!r}"
        )
        raise BaseModelError(msg)
    return stored
