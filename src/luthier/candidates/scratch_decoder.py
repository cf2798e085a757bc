"""A tiny decoder trained from nothing on the examples: what free text costs without a pretrained model.

Two layers of 64 dimensions with the base model's tokenizer. The number of tokens it is trained on is fixed,
not the time, so that the same examples give the same model; on two processor cores that is under a minute.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from luthier.candidates.answer import Answer, ask
from luthier.chat import ChatFormat
from luthier.examples.example import Example
from luthier.methods import SFT, Item
from luthier.recipe import Train
from luthier.train import train

MIN_EXAMPLES = 100  # with fewer it writes noise
WIDTH = 64
TRAINED_ON = 150_000  # tokens, over all epochs
MOST_EPOCHS = 20
BATCH_TOKENS = 2048
STEPS_PER_EPOCH = 10  # at least: few short examples make smaller batches, or there is no time to learn
RATE = 3e-3


class Decoder:
    """Trained when it is made.

    Args:
        room: tokens of the longest answer.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        validation: Sequence[Example],
        chat: ChatFormat,
        *,
        seed: int,
        room: int,
    ) -> None:
        self._chat, self._room = chat, room
        method = SFT()
        items = method.items(examples, chat, None)
        held = method.items(validation, chat, None)
        items, epochs = _budget(items, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._model = _build(chat, max(len(s.ids) for i in (*items, *held) for s in i.sequences) + room)
        batch_tokens = min(BATCH_TOKENS, sum(item.tokens for item in items) // STEPS_PER_EPOCH + 1)
        settings = Train(epochs=epochs, batch_tokens=batch_tokens, replay=0.0)
        with tempfile.TemporaryDirectory() as folder:
            train(
                self._model,
                method,
                items,
                held[:64],
                settings,
                peak=RATE,
                seed=seed,
                folder=Path(folder),
                key="decoder",
            )
        self._model.eval()

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        """Answers without tokens to pay for: the model is the user's own, whatever machine it runs on."""
        asked = {example.id: example.asked for example in examples}
        answers = ask(self._model, self._chat, asked, max_new_tokens=self._room)
        return [replace(answer, prompt_tokens=None, answer_tokens=None) for answer in answers]


def _budget(items: list[Item], seed: int) -> tuple[list[Item], int]:
    """Items of at most the token budget, drawn by the seed, and for how many epochs it lasts."""
    order = list(items)
    random.Random(seed).shuffle(order)
    chosen: list[Item] = []
    tokens = 0
    for item in order:
        if chosen and tokens + item.tokens > TRAINED_ON:
            break
        chosen.append(item)
        tokens += item.tokens
    return chosen, max(1, min(MOST_EPOCHS, TRAINED_ON // tokens))


def _build(chat: ChatFormat, longest: int) -> LlamaForCausalLM:
    tokenizer = chat.tokenizer
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=max(2048, 2 * longest),
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config)
