"""Tiny byte-level tokenizers dressed in the chat templates of real models (which TRL ships)."""

from __future__ import annotations

import importlib.util
import json
import re
from functools import cache
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = (
    "The quick brown fox asks: what is the answer, please?\n\nIt is 42.\n system user assistant model "
    "think tool_call x<|y im_start im_end end_of_turn <b> | <| |> </s> [INST] \n\n\n  x == y; naïve 🙂 日本\n"
) * 20
CONTROL = re.compile(r"<[|｜]?[^<>|｜\s'\"{}.()\[\]=-]+[|｜]?>|\[/?[A-Za-z_]+\]")
# Added tokens that are not special in the real models' tokenizers.
NOT_SPECIAL = re.compile(r"</?(think|tool_call|tool_response|tools|arg_key|arg_value|answer)>")


def template_text(name: str) -> str:
    """A chat template that TRL ships, found without importing TRL."""
    spec = importlib.util.find_spec("trl")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("trl is not installed: its chat templates are the test data")
    return (Path(spec.submodule_search_locations[0]) / "chat_templates" / f"{name}.jinja").read_text("utf-8")


@cache
def _trained_vocabulary() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([CORPUS], trainer)
    return tokenizer.to_str()


def byte_level(
    template: str | None,
    special: tuple[str, ...] = (),
    words: tuple[str, ...] = (),
    *,
    bos: str = "<s>",
    eos: str = "</s>",
    rstrip: bool = False,
) -> PreTrainedTokenizerFast:
    """A trained byte-level BPE with `special` and non-special `words` added."""
    backend = Tokenizer.from_str(_trained_vocabulary())
    backend.add_special_tokens([AddedToken(t, rstrip=rstrip, normalized=False) for t in (bos, eos, *special)])
    backend.add_tokens([AddedToken(t, normalized=False) for t in words])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos)
    tokenizer.chat_template = template
    return tokenizer


def dressed(name: str, *, rstrip: bool = False) -> PreTrainedTokenizerFast:
    """A tiny tokenizer with a real template and its control tokens."""
    template = template_text(name)
    found = sorted(set(CONTROL.findall(template)) - {"<s>", "</s>"})
    words = tuple(t for t in found if NOT_SPECIAL.fullmatch(t))
    special = tuple(t for t in found if t not in words)
    return byte_level(template, special, words, rstrip=rstrip)


def metaspace(template: str) -> PreTrainedTokenizerFast:
    """A SentencePiece-like BPE: spaces as ▁, one put in front of the text, bytes for the unknown."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=pieces, show_progress=False)
    tokenizer.train_from_iterator([CORPUS], trainer)
    saved = json.loads(tokenizer.to_str())
    saved["added_tokens"] = [token for token in saved["added_tokens"] if token["content"] in special]
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(saved)),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    wrapped.chat_template = template
    return wrapped


def unigram(template: str) -> PreTrainedTokenizerFast:
    """A Unigram tokenizer whose vocabulary holds its control tokens as ordinary pieces."""
    letters = [(chr(c), -9.0) for c in range(32, 127)]
    pieces = [("<unk>", -20.0), ("<s>", -1.0), ("</s>", -1.0), ("▁", -5.0), ("\n", -5.0), *letters]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.decoder = decoders.Metaspace(prepend_scheme="never")
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = template
    return tokenizer


def word_level(template: str, special: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """Whole words and an unknown token."""
    words = ["<unk>", "</s>", "the", "user", "system", "assistant", *special]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["<unk>", "</s>", *special])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = template
    return tokenizer
