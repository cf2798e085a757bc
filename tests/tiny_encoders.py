"""Tiny random encoders as they are published: with a head for masked words, and a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from chat_tokenizers import byte_level
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedTokenizerFast

KINDS = ["bert", "roberta", "distilbert", "modernbert", "deberta-v2", "albert"]
SPECIAL = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
POSITIONS = 128
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "dim": 32,
    "embedding_size": 16,
    "hidden_dim": 48,
    "n_heads": 4,
    "n_layers": 2,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
# as DeBERTa-v3 is published
OWN: dict[str, dict[str, Any]] = {
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_buckets": 32,
        "max_relative_positions": -1,
        "type_vocab_size": 0,
    }
}


def write_encoder(kind: str, folder: Path, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    """A model of one architecture, and a tokenizer: of bytes, which knows no word, where none is given."""
    tokenizer = tokenizer or byte_level(None, ("<|im_end|>",))
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **(SIZES | OWN.get(kind, {})), vocab_size=len(tokenizer))
    AutoModelForMaskedLM.from_config(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def word_pieces(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A BERT tokenizer trained on texts: [CLS], pieces of words, [SEP]; nothing ends a written answer."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="[MASK]", **SPECIAL)
