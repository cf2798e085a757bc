"""Virtual tokens as the root of the forest: what prefix and prompt tuning put before every sequence.

Legend: n virtual tokens, G key/value heads, d head width, D width, S sequences.

A prefix is keys and values, which are a trunk that is already computed; a prompt is embeddings, which are
the first segment of the forest, whose nodes have no token id. Both are trained through PEFT's own encoder,
and take the positions 0..n-1 as they do in PEFT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel, PeftType
from transformers import PreTrainedModel

from luthier.errors import ModelError
from luthier.forest.attention import attending_by_forest
from luthier.forest.layout import KeysValues, Layout, lay_out

PROMPTS = (PeftType.PROMPT_TUNING, PeftType.P_TUNING)


@dataclass(frozen=True, eq=False)
class Root:
    """What stands before every sequence: either of the two.

    Attributes:
        length: n.
        trunk: keys and values by layer, `[1, G, n, d]` each.
        embeddings: `[n, D]`.
    """

    length: int
    trunk: KeysValues | None = None
    embeddings: torch.Tensor | None = None

    def lay_out(
        self, sequences: Sequence[Sequence[int]], needed: Sequence[Sequence[bool]] | None = None
    ) -> Layout:
        """The forest of sequences on this root; arguments and errors of `layout.lay_out`.

        Tokens of a prompt's own nodes are negative: they come first, one segment of every path.
        """
        if self.trunk is not None:
            return lay_out(sequences, needed, trunk=self.trunk, trunk_length=self.length)
        lay_out([sequence[:1] for sequence in sequences])  # refuses empty ones
        stem = list(range(-self.length, 0))
        flags: list[Sequence[bool]] = []
        for i, sequence in enumerate(sequences):
            own = [True] * (len(sequence) - 1) if needed is None else needed[i]
            if len(own) != len(sequence) - 1:
                raise ValueError(f"expected {len(sequence) - 1} flags for a sequence, got {len(own)}")
            flags.append([*[False] * self.length, *own])
        return lay_out([[*stem, *sequence] for sequence in sequences], flags)

    def embed(self, model: PeftModel, tokens: torch.Tensor) -> torch.Tensor:
        """Embeddings `[1, T, D]` of a layout's tokens `[T]`, a prompt's own ones included."""
        assert self.embeddings is not None
        whole: Any = model  # PEFT does not declare its embeddings
        words: torch.Tensor = whole.word_embeddings(tokens[self.length :])
        return torch.cat([self.embeddings.to(words.dtype), words])[None]


def has_root(model: PreTrainedModel | PeftModel) -> bool:
    """Whether virtual tokens stand before the sequences, and are not switched off."""
    return (
        isinstance(model, PeftModel)
        and model.active_peft_config.is_prompt_learning
        and model.has_active_enabled_adapter
    )


def root_of(model: PreTrainedModel | PeftModel) -> Root | None:
    """The virtual tokens of a model, differentiable in what is trained; None where there are none.

    Raises:
        ModelError: a kind of them that depends on the example.
    """
    if not has_root(model):
        return None
    assert isinstance(model, PeftModel)
    config = model.active_peft_config
    length: int = config.num_virtual_tokens
    if config.peft_type == PeftType.PREFIX_TUNING:
        return Root(length, trunk=_trunk(model.get_prompt(1), length))
    if config.peft_type in PROMPTS:
        return Root(length, embeddings=model.get_prompt(1)[0])
    raise ModelError(
        f"adapters of the type {config.peft_type.value} are not computed here",
        fix="use LoRA, prefix tuning or prompt tuning",
    )


def _trunk(cache: object, length: int) -> KeysValues:
    """Keys and values of PEFT's cache; layers with a window have dropped what nothing sees."""
    trunk: KeysValues = {}
    for index, layer in enumerate(cache.layers):  # type: ignore[attr-defined]
        if layer.keys is not None:
            gone = (0, 0, length - layer.keys.shape[2], 0)
            pad = torch.nn.functional.pad
            trunk[index] = (pad(layer.keys, gone), pad(layer.values, gone))
    return trunk


def root_trunk(model: PreTrainedModel | PeftModel) -> tuple[int, KeysValues | None]:
    """Number, keys and values of the virtual tokens, for generation; of a prompt they are computed here.

    Raises:
        ModelError: as `root_of`.
    """
    root = root_of(model)
    if root is None:
        return 0, None
    if root.embeddings is None:
        return root.length, root.trunk
    assert isinstance(model, PeftModel)
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    layout = lay_out([list(range(-root.length, 0))])
    layout.kept = {}
    device = root.embeddings.device
    with attending_by_forest(base):
        base.get_decoder()(
            inputs_embeds=root.embed(model, torch.from_numpy(layout.tokens).to(device)),
            position_ids=torch.from_numpy(layout.positions)[None].to(device),
            use_cache=False,
            forest=layout,
        )
    return root.length, layout.kept


def join_trunks(first: KeysValues, second: KeysValues) -> KeysValues:
    """Keys and values of two runs of tokens, one after the other."""
    return {
        layer: (torch.cat([first[layer][0], key], dim=2), torch.cat([first[layer][1], value], dim=2))
        for layer, (key, value) in second.items()
    }
