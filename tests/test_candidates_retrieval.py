"""What retrieval shows: documents in passages, near by words or vectors, and nothing of the held-out side."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_candidates import TRAIN, example, shown_turns
from tiny_models import tiny
from tiny_run import write_examples, write_model, write_recipe

import luthier
from luthier.candidates import Nearby, retrieval_messages
from luthier.candidates.documents import Passage, cut_passages, read_documents
from luthier.candidates.embedding import base_embedder, sentence_embedder
from luthier.candidates.retrieval import Index
from luthier.chat import ChatFormat
from luthier.errors import DataError, ModelError
from luthier.models import LoadedModel
from luthier.pipeline import Run

TEXTS = ["the cat sat on the mat", "stock prices fell in May", "a recipe for onion soup", "?"]


def letters(texts: Sequence[str]) -> np.ndarray:
    """A stand-in for an embedding model: how often each letter occurs."""
    return np.array([[t.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts], dtype=np.float32)


# --- documents --------------------------------------------------------------------------------------


def test_documents_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.md").write_text("# Returns\n\nWithin 30 days.")
    (tmp_path / "deep/a.txt").write_text("Opening hours: 9 to 5.")
    (tmp_path / "c.jsonl").write_text('{"title": "T", "text": "one"}\n\n"two"\n{"content": "three"}\n')
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    found = [(d.title, d.text) for d in read_documents(tmp_path)]
    assert sorted(found) == sorted(
        [
            *(("b", "# Returns\n\nWithin 30 days."), ("a", "Opening hours: 9 to 5.")),
            *(("T", "one"), ("c", "two"), ("c", "three")),
        ]
    )
    assert [d.title for d in read_documents(tmp_path / "b.md")] == ["b"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.jsonl", '{"text": "x"}\n{"body": 1}\n', r"a\.jsonl:2: no document"),
        ("a.jsonl", "\n{\n", r"a\.jsonl:2: not valid JSON"),
        ("a.jsonl", "[1]\n", r"a\.jsonl:1: no document"),
        ("a.txt", "  \n", "no documents were found"),
        ("a.csv", "x", "no documents were found"),
    ],
)
def test_documents_that_cannot_be_read(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=told):
        read_documents(tmp_path)


def test_paragraphs_stay_whole_where_they_fit() -> None:
    text = "a b c\n\nd e\n\nf g h i j k l m\n\nn"
    passages, left_out = cut_passages([Passage("T", text)], [], words=5)
    assert [p.text for p in passages] == ["a b c d e", "f g h i j", "k l m n"]
    assert {p.title for p in passages} == {"T"}
    assert left_out == 0


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=9), max_size=6), st.integers(1, 7))
def test_passages_hold_every_word_once_in_order(paragraphs: list[list[str]], words: int) -> None:
    text = "\n\n".join(" ".join(paragraph) for paragraph in paragraphs)
    passages, _ = cut_passages([Passage("T", text)], [], words=words)
    assert [word for p in passages for word in p.text.split()] == text.split()
    assert all(0 < len(p.text.split()) <= words for p in passages)


def test_a_passage_with_a_held_out_request_is_left_out() -> None:
    asked = "Where is my parcel from the 3rd of March?"
    text = f"one two three\n\nfour {asked.upper()} five\n\nsix seven"
    for words in (3, 5, 40):  # the request may lie across several passages
        passages, left_out = cut_passages([Passage("T", text)], [f"  {asked}\n"], words=words)
        assert left_out > 0
        kept = " ".join(p.text for p in passages).casefold()
        assert not set(asked.casefold().split()) & set(kept.split())
        assert left_out + len(passages) == len(cut_passages([Passage("T", text)], [], words=words)[0])
    assert cut_passages([Passage("T", "How much is it? 9 euros")], ["How much is it?"], words=9)[1] == 0


def test_every_place_of_a_request_is_found() -> None:
    asked = "abcdefghij klmnopqrst"
    passages, left_out = cut_passages([Passage("T", f"{asked}\n\nx\n\n{asked}")], [asked], words=2)
    assert ([p.text for p in passages], left_out) == (["x"], 2)


# --- what is near -----------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["bm25", "embeddings", "both"])
def test_the_nearest_comes_first(by: Any) -> None:
    index = Index(TEXTS, by=by, embed=letters)
    assert index.nearest(["onion soup recipe", "the cat on the mat"], 1) == [[2], [0]]
    (order,) = index.nearest(["anything"], 9)
    assert sorted(order) == [0, 1, 2, 3]


def test_both_add_up_reciprocal_ranks() -> None:
    def planted(texts: Sequence[str]) -> np.ndarray:
        places = {"x x": (1, 0), "x y": (0.9, 0.3), "z": (0.95, 0.1), "x": (0.99, 0.0)}
        return np.array([places[text] for text in texts], dtype=np.float32)

    texts = ["x x", "x y", "z"]
    words = Index(texts, by="bm25").nearest(["x"], 3)[0]
    vectors = Index(texts, by="embeddings", embed=planted).nearest(["x"], 3)[0]
    ranks = {t: 1 / (61 + words.index(t)) + 1 / (61 + vectors.index(t)) for t in range(3)}
    both = Index(texts, by="both", embed=planted).nearest(["x"], 3)[0]
    assert all(ranks[a] >= ranks[b] for a, b in pairwise(both))


def test_passages_stand_before_the_request(chat: ChatFormat) -> None:
    passages = [Passage("Hours", "The library opens at nine."), Passage("Fees", "Late books cost a euro.")]
    nearby = Nearby(TRAIN, passages, shown_passages=1)
    (messages,) = retrieval_messages(
        [example(99, "when does the library open?", "?")], nearby, chat, "Help.", shots=2
    ).values()
    assert messages[0] == {"role": "system", "content": "Help."}
    assert len(shown_turns(messages)) == 2
    assert messages[-1]["content"] == (
        "Passages that may help:\n\n[Hours]\nThe library opens at nine.\n\nwhen does the library open?"
    )


# --- vectors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
def test_the_base_models_vectors_are_means_of_its_hidden_states(kind: str, tokenizer: Any) -> None:
    model = tiny(kind, vocab_size=len(tokenizer))
    texts = ["a cat", "", "a much longer text about cats and dogs", "x"]
    found = base_embedder(model, tokenizer)(texts)
    assert (found.shape, found.dtype) == ((4, 32), np.float32)
    assert not found[1].any()
    for text, vector in zip(texts, found, strict=True):
        if text:
            ids = torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])
            with torch.inference_mode():
                hidden = model(ids, output_hidden_states=True).hidden_states[-1][0]
            np.testing.assert_allclose(vector, hidden.mean(0).numpy(), rtol=1e-3, atol=1e-5)


def test_more_texts_than_fit_at_once(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from luthier.candidates import embedding

    texts = [f"text {i} {'word ' * (i % 7)}" for i in range(20)]
    whole = base_embedder(loaded.model, loaded.tokenizer)(texts)
    monkeypatch.setattr(embedding, "BATCH_TOKENS", 50)
    np.testing.assert_allclose(base_embedder(loaded.model, loaded.tokenizer)(texts), whole, atol=1e-5)


def test_an_installed_embedding_model_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class SentenceTransformer:
        def __init__(self, name: str) -> None:
            if name != "small":
                raise OSError("no such model")

        def encode(self, texts: list[str], **options: Any) -> np.ndarray:
            return letters(texts)

    package = ModuleType("sentence_transformers")
    package.SentenceTransformer = SentenceTransformer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    np.testing.assert_array_equal(sentence_embedder("small")(TEXTS), letters(TEXTS))
    with pytest.raises(ModelError, match="large: cannot be loaded"):
        sentence_embedder("large")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ModelError, match=r"luthier\[embeddings\]"):
        sentence_embedder("small")


# --- in a run ---------------------------------------------------------------------------------------


def test_a_run_with_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    write_examples(tmp_path / "tickets.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "tickets.jsonl").read_text().splitlines()]
    requests = [row["messages"][0]["content"] for row in lines]
    (tmp_path / "docs").mkdir()
    # every example is in the documents: those that are held out must not be shown
    text = "\n\n".join(f"{request} secret{i}" for i, request in enumerate(requests))
    (tmp_path / "docs/all.md").write_text(text)
    write_recipe(
        tmp_path,
        write_model(tmp_path / "model"),
        candidates=["retrieval"],
        probes=[],
        documents="docs",
        retrieval={"by": "both", "passages": 2, "words": 12},
        shots=[1, 2],
    )
    run = Run(luthier.load_recipe(tmp_path / "recipe.yaml"), tmp_path / "run")
    run.evaluate()
    held_out = {e.input for side in ("validation", "test") for e in run.split().sides()[side]}
    secrets = {f"secret{i}" for i, request in enumerate(requests) if request in held_out}
    rows = run.record.read_jsonl("predictions/retrieval.jsonl")
    assert len(rows) == len(run.split().test)
    for row in rows:
        assert row["prompt"].count("Passages that may help:") == 1
        assert not secrets & set(row["prompt"].replace("\n", " ").split())
        assert row["prompt"].count(row["input"]) == 1
        assert sum(row["prompt"].count(request) for request in held_out) == 1
    before = run.record.stage_memo("answer-retrieval")
    (tmp_path / "docs/all.md").write_text(text + " more")
    run.evaluate()
    assert run.record.stage_memo("answer-retrieval") != before
