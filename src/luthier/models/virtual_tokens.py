"""The start of a prefix or prompt: that of a text, which disturbs the model less than random numbers.

Legend: n virtual tokens, L layers, G key/value heads, d head width.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel, PeftType
from transformers import PreTrainedTokenizerBase as Tokenizer

from luthier.errors import ModelError

TEXT = "Read the request with care and give the answer that was asked for, in the form that was asked for. "


def start_from_text(model: PeftModel, tokenizer: Tokenizer) -> None:
    """Set a fresh prefix or prompt to what the base computes for a text, repeated or cut to its length.

    "Real words" start better than random numbers for prefixes (arXiv 2101.00190, section 7.4) and prompts
    (2104.08691, section 3.2).

    Raises:
        ModelError: the architecture takes no prefix.
    """
    config = model.active_peft_config
    ids = tokenizer(TEXT, add_special_tokens=False).input_ids
    count = config.num_virtual_tokens
    words = torch.tensor([(ids * count)[:count]], device=model.device)
    parts: Any = model  # PEFT declares neither of the two
    numbers: torch.Tensor = parts.prompt_encoder[model.active_adapter].embedding.weight
    with torch.no_grad():
        if config.peft_type == PeftType.PREFIX_TUNING:
            start = _keys_and_values(model, words)
        else:
            start = parts.word_embeddings(words)[0]
        numbers.copy_(start.reshape(numbers.shape))
        try:
            refuse_misfit(model)
        except (TypeError, ValueError, KeyError, RuntimeError, AttributeError, IndexError) as error:
            raise _no_prefix(model, error) from error


def refuse_misfit(model: PeftModel) -> None:
    """Compute one token with the prefix or prompt; raises what PEFT raises where it does not fit.

    Raises:
        ValueError: a prefix for another number of layers.
    """
    config = model.active_peft_config
    base = model.get_base_model()
    layers = base.config.get_text_config().num_hidden_layers  # type: ignore[union-attr,operator]
    if config.peft_type == PeftType.PREFIX_TUNING and config.num_layers != layers:
        raise ValueError(f"a prefix of {config.num_layers} layers for a model of {layers}")
    with torch.no_grad():
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device))


def _keys_and_values(model: PeftModel, words: torch.Tensor) -> torch.Tensor:
    """What the base's cache holds after `words` `[1, n]`, as PEFT lays it out: `[n, 2 L, G, d]`."""
    base = model.get_base_model()
    try:
        cache = base(input_ids=words, use_cache=True).past_key_values
        pieces = [
            _whole(part, words.shape[1]) for layer in cache.layers for part in (layer.keys, layer.values)
        ]
        return torch.stack(pieces, dim=1)
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        raise _no_prefix(model, error) from error


def _whole(part: torch.Tensor, length: int) -> torch.Tensor:
    """`[1, G, m, d]` to `[n, G, d]`; layers with a window keep only what is still seen."""
    part = torch.nn.functional.pad(part, (0, 0, length - part.shape[2], 0))
    return part[0].transpose(0, 1)


def _no_prefix(model: PeftModel, error: Exception) -> ModelError:
    kind = "prefix" if model.active_peft_config.peft_type == PeftType.PREFIX_TUNING else "prompt"
    name = type(model.get_base_model()).__name__
    return ModelError(
        f"{name} takes no {kind} ({type(error).__name__}: {error})",
        fix="use `adapter: {kind: lora}`",
    )
