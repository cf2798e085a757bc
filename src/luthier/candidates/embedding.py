"""Texts as vectors: of an installed sentence-transformers model, or of the base model itself.

The base model's are the means of its last hidden states over a text's tokens. They were not trained for
search, but need no download and no other model, and a linear probe on them is a strong small classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from luthier.errors import ModelError
from luthier.forest.model import causal_lm, device_of
from luthier.models.encoder import is_encoder, mean_states, positions_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from luthier.forest.logprobs import Model

Embed = Callable[[Sequence[str]], np.ndarray]  # N texts -> [N, D] float32
LONGEST = 512  # tokens of a text that are read
BATCH_TOKENS = 4096


def base_embedder(model: Model, tokenizer: PreTrainedTokenizerBase) -> Embed:
    """Mean-pooled last hidden states of a model; the zero vector for a text without tokens."""
    base = causal_lm(model)
    width = base.config.get_text_config().hidden_size
    longest = min(LONGEST, positions_of(base)) if is_encoder(base) else LONGEST

    def embed(texts: Sequence[str]) -> np.ndarray:
        rows = [list(tokenizer(text, add_special_tokens=False).input_ids)[:longest] for text in texts]
        found = np.zeros((len(rows), width), dtype=np.float32)
        order = sorted((i for i, row in enumerate(rows) if row), key=lambda i: len(rows[i]))
        with torch.inference_mode():
            while order:
                size = max(1, BATCH_TOKENS // len(rows[order[-1]]))
                chosen, order = order[-size:], order[:-size]
                found[chosen] = _pooled(base, [rows[i] for i in chosen])
        return found

    return embed


def _pooled(base: Any, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """`[B, D]` means over each row's tokens; padding is on the right, where no token looks."""
    if is_encoder(base):
        return np.asarray(mean_states(base, rows).cpu().numpy(), dtype=np.float32)
    longest = max(map(len, rows))
    device = device_of(base)
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    hidden = base.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state.float()
    means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return np.asarray(means.cpu().numpy(), dtype=np.float32)


def sentence_embedder(name: str) -> Embed:
    """Vectors of a sentence-transformers model.

    Args:
        name: a folder, or a hub id.

    Raises:
        ModelError: the package is missing, or there is no such model.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ModelError(
            "an `embedder` needs the package sentence-transformers, which is not installed",
            fix="pip install 'luthier[embeddings]', or leave out `embedder` to use the base model's own",
        ) from None
    try:
        model = SentenceTransformer(name)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be loaded: {error}", where=name) from None
    return lambda texts: np.asarray(
        model.encode(list(texts), show_progress_bar=False, convert_to_numpy=True), dtype=np.float32
    )
