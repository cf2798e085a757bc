"""Encoders as classifiers: BERT and its kin, whose tokens see the whole text.

Legend: S sequences, K labels.

An encoder keeps Transformers' own head, which is made with it: what comes between it and the last layer
differs by architecture. Its sequences cannot share a prefix, whose states depend on what comes after, so
they are computed as one padded batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers import PreTrainedTokenizerBase as Tokenizer

from luthier.errors import ModelError
from luthier.models.load import (
    PLAUSIBLE_LIMIT,
    LoadedModel,
    _explained,
    _source,
    model_identity,
    quiet_transformers,
)


def load_encoder(
    name: str, labels: Sequence[str] = (), *, device: str | None = None, seed: int = 0
) -> LoadedModel:
    """An encoder with a head for labels, fp32 and frozen as `load_model` gives a model.

    Args:
        name: a local folder or a hub id.
        labels: one for each output of a new head, which is drawn by `seed`; empty takes the labels that the
            folder names, with its head.
        device: as for `load_model`.

    Raises:
        ModelError: it cannot be found or read, or it is no encoder.
    """
    source = _source(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with quiet_transformers(), _explained(name), torch.random.fork_rng():
        torch.manual_seed(seed)
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        if labels:
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: i for i, label in enumerate(labels)}
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_pretrained(
            source, config=config, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        )
    if not is_encoder(model):
        raise ModelError(
            f"{type(model).__name__} is a decoder, not an encoder",
            where=f"model {name}",
            fix="load it with `load_model`, and give it a head",
        )
    model.eval()
    model.requires_grad_(False)
    model.to(device=torch.device(device))
    return LoadedModel(model, tokenizer, model_identity(name))


def is_encoder(model: PreTrainedModel | PeftModel) -> bool:
    """Whether a model was made as a classifier of whole texts, with a head of its own."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    return type(inner).__name__.endswith("ForSequenceClassification") and not hasattr(inner, "score")


def encoder_outputs(model: PreTrainedModel | PeftModel, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits of the labels, `[S, K]` float32, differentiable.

    Args:
        sequences: token ids with the tokenizer's own first and last ones, as `read_text` writes them.
    """
    ids, mask = _padded(model, sequences)
    logits: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
    return logits.float()


def mean_states(model: PreTrainedModel, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """Means of an encoder's last hidden states over each sequence's tokens, `[S, D]` float32."""
    ids, mask = _padded(model, sequences)
    states = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
    means: torch.Tensor = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return means


def _padded(
    model: PreTrainedModel | PeftModel, sequences: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, `[S, longest]`; the padding is on the right."""
    device = next(model.parameters()).device
    width = max(map(len, sequences))
    # padding is masked, whatever it is; some encoders number positions by where it is
    pad = getattr(model.config, "pad_token_id", None) or 0
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in sequences], device=device)
    lengths = torch.tensor([[len(row)] for row in sequences], device=device)
    return ids, (torch.arange(width, device=device) < lengths).long()


def read_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """A text as an encoder's token ids; what it spells never becomes a control token."""
    ids = tokenizer(text, split_special_tokens=True, verbose=False)["input_ids"]
    return [int(i) for i in ids]


def longest_text(name: str, tokenizer: Tokenizer) -> int | None:
    """How many tokens of a text an encoder takes, its first and last one counted; None: nothing says."""
    with quiet_transformers(), _explained(name), torch.random.fork_rng(), torch.device("meta"):
        config = AutoConfig.from_pretrained(_source(name), trust_remote_code=False)
        twin = AutoModel.from_config(config)
    limit = min(positions_of(twin), tokenizer.model_max_length or PLAUSIBLE_LIMIT)
    return int(limit) if limit < PLAUSIBLE_LIMIT else None


def positions_of(model: PreTrainedModel) -> int:
    """How many tokens an encoder has positions for; `PLAUSIBLE_LIMIT` where its configuration names none.

    RoBERTa and its kin number positions from behind the padding's number, so that they take fewer than their
    configuration names.
    """
    offsets = [
        table.padding_idx + 1
        for place, table in model.named_modules()
        if place.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None
    ]
    named = getattr(model.config, "max_position_embeddings", None)
    return int(named) - max(offsets, default=0) if named else PLAUSIBLE_LIMIT
