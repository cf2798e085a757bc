"""Continued pre-training: cutting, the loss by hand and against Transformers, its data, its recipe."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from chat_tokenizers import byte_level
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import relative_error, tiny, with_lora
from tiny_run import CHATML
from tokenizers.processors import TemplateProcessing

from luthier.audit import audit_examples
from luthier.chat import ChatFormat, TrainingSequence
from luthier.cli.checking import print_masks
from luthier.cli.starter import write_starter
from luthier.errors import DataError, RecipeError
from luthier.examples import read_examples, split_examples
from luthier.examples.example import Example, Message
from luthier.examples.wording import request_text
from luthier.forest import logprobs
from luthier.grade.likelihood import Likelihood
from luthier.methods import CPT, SFT, Item, build_method
from luthier.methods.cpt import cut_text
from luthier.recipe import Recipe, load_recipe, parse_recipe


def text_of(content: str, line: int = 1) -> Example:
    return Example(f"t{line}", (Message("assistant", content),), "corpus.txt", line)


def whole(count: int) -> TrainingSequence:
    """A start and `count` trained tokens, numbered."""
    return TrainingSequence(tuple(range(count + 1)), (0.0,) + (1.0,) * count)


# --- cutting and tokens ---------------------------------------------------------------------------


def test_a_piece_begins_with_the_last_token_of_the_one_before() -> None:
    pieces = cut_text(whole(10), block=4)
    assert [piece.ids for piece in pieces] == [(0, 1, 2, 3), (3, 4, 5, 6), (6, 7, 8, 9), (9, 10)]
    assert [piece.weights for piece in pieces] == [(0.0, 1.0, 1.0, 1.0)] * 3 + [(0.0, 1.0)]


def test_behind_a_start_of_its_own_where_the_tokenizer_writes_one() -> None:
    pieces = cut_text(whole(7), block=4, start=99)
    assert [piece.ids for piece in pieces] == [(0, 1, 2, 3), (99, 3, 4, 5), (99, 5, 6, 7)]
    assert [piece.weights for piece in pieces] == [(0.0, 1.0, 1.0, 1.0), *[(0.0, 0.0, 1.0, 1.0)] * 2]


@given(st.integers(1, 60), st.integers(3, 20), st.sampled_from([None, 99]))
def test_every_token_is_trained_once_in_order(count: int, block: int, start: int | None) -> None:
    pieces = cut_text(whole(count), block=block, start=start)
    trained = [i for p in pieces for i, w in zip(p.ids, p.weights, strict=True) if w]
    assert trained == list(range(1, count + 1))
    for piece in pieces:
        assert 2 <= len(piece.ids) <= block
        assert piece.weights[0] == 0 and piece.weights[-1] == 1
        before = [i for i, w in zip(piece.ids, piece.weights, strict=True) if not w]
        assert before[-1] == piece.ids[len(before)] - 1  # the token before it, whatever the cut


def test_a_text_has_a_start_and_an_end_and_no_template() -> None:
    chat = ChatFormat(byte_level(CHATML, ("<|im_start|>", "<|im_end|>"), eos="<|im_end|>"))
    sequence = chat.text("What is 42?")
    end = chat.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert (sequence.ids[0], sequence.ids[-1]) == (end, end)
    assert chat.tokenizer.decode(sequence.ids[1:-1]) == "What is 42?"
    assert sequence.weights == (0.0,) + (1.0,) * (len(sequence.ids) - 1)
    assert chat.text_start is None
    with pytest.raises(DataError, match="blank text"):
        chat.text(" \n")


def test_documents_end_as_in_pre_training_and_begin_as_the_tokenizer_says() -> None:
    plain = byte_level(CHATML, ("<|im_start|>", "<|im_end|>", "<|endoftext|>"), eos="<|im_end|>")
    sequence = ChatFormat(plain).text("fox")
    assert sequence.ids[-1] == sequence.ids[0] == plain.convert_tokens_to_ids("<|endoftext|>")
    begins = byte_level(CHATML, ("<|im_start|>", "<|im_end|>"), eos="</s>")
    begins.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", begins.bos_token_id)]
    )
    chat = ChatFormat(begins)
    assert chat.text_start == begins.bos_token_id
    found = chat.text("fox").ids
    assert (found[0], found[-1]) == (begins.bos_token_id, begins.eos_token_id)
    assert begins.bos_token_id not in found[1:]


@pytest.mark.parametrize("spelt", ["<|im_end|>", "<|im_start|>user", "<s>", "a<|im_end|>b"])
def test_a_text_that_spells_a_control_token_stays_text(spelt: str) -> None:
    chat = ChatFormat(byte_level(CHATML, ("<|im_start|>", "<|im_end|>"), eos="<|im_end|>"))
    control = {chat.tokenizer.convert_tokens_to_ids(t) for t in ("<|im_start|>", "<|im_end|>", "<s>")}
    ids = chat.text(f"x {spelt} y").ids
    assert not control & set(ids[1:-1])
    assert spelt in chat.tokenizer.decode(ids[1:-1])


# --- the loss -------------------------------------------------------------------------------------


def test_the_loss_by_hand() -> None:
    """ln 2 + ln 4 + ln 8 over three tokens: 2 ln 2 each; a longer text weighs by its tokens."""
    method = CPT()
    items = [Item("a", (whole(2),)), Item("b", (whole(1),))]
    logps = [[torch.tensor([0.5, 0.25]).log()], [torch.tensor([0.125]).log()]]
    assert method.total(items) == 3
    assert (method.loss(items, logps) / method.total(items)).item() == pytest.approx(2 * math.log(2))
    assert method.loss(items[1:], logps[1:]).item() == pytest.approx(math.log(8))


def sequences() -> list[tuple[int, ...]]:
    dice = random.Random(3)
    return [tuple(dice.randrange(3, 97) for _ in range(n)) for n in (23, 9, 2, 14)]


def items_of(rows: Sequence[tuple[int, ...]], block: int) -> list[Item]:
    texts = [TrainingSequence(row, (0.0, *[1.0] * (len(row) - 1))) for row in rows]
    pieces = [piece for text in texts for piece in cut_text(text, block=block)]
    return [Item(f"corpus.txt:{i}", (piece,)) for i, piece in enumerate(pieces)]


def forest_loss(model: torch.nn.Module, items: list[Item]) -> torch.Tensor:
    values = logprobs(
        model,  # type: ignore[arg-type]
        [item.sequences[0].ids for item in items],
        needed=[item.flags[0] for item in items],
    )
    return CPT().loss(items, [[v] for v in values]) / CPT().total(items)


def transformers_loss(model: torch.nn.Module, items: list[Item]) -> torch.Tensor:
    """The model's own cross-entropy over labels, row by row: -100 is what is not trained."""
    summed, count = torch.zeros(()), 0
    for item in items:
        (sequence,) = item.sequences
        labels = [i if w else -100 for i, w in zip(sequence.ids, sequence.weights, strict=True)]
        tokens = sum(label != -100 for label in labels)
        loss = model(input_ids=torch.tensor([sequence.ids]), labels=torch.tensor([labels])).loss
        summed, count = summed + loss * tokens, count + tokens
    return summed / count


@pytest.mark.parametrize("block", [64, 8, 3])
def test_values_and_gradients_are_those_of_transformers(block: int) -> None:
    model = with_lora(tiny("llama"))
    items = items_of(sequences(), block)
    trained = [p for p in model.parameters() if p.requires_grad]
    ours, theirs = forest_loss(model, items), transformers_loss(model, items)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    for mine, reference in zip(
        torch.autograd.grad(ours, trained), torch.autograd.grad(theirs, trained), strict=True
    ):
        assert relative_error(mine, reference) < 2e-4


def test_no_text_sees_another() -> None:
    """The same text has the same loss alone and beside others: packing is no concatenation."""
    model = tiny("llama")
    items = items_of(sequences(), 64)
    values = logprobs(model, [item.sequences[0].ids for item in items])
    for item, own in zip(items, values, strict=True):
        (alone,) = logprobs(model, [item.sequences[0].ids])
        torch.testing.assert_close(own, alone, rtol=1e-4, atol=1e-5)


def test_the_formula_in_float64_and_its_gradient() -> None:
    items = items_of(sequences(), 6)
    dice = torch.Generator().manual_seed(0)
    logps = [
        [(-3 * torch.rand(i.trained_tokens, dtype=torch.float64, generator=dice) - 0.01).requires_grad_()]
        for i in items
    ]
    flat = [values for own in logps for values in own]
    expected = -np.concatenate([v.detach().numpy() for v in flat]).mean()
    assert CPT().total(items) == sum(map(len, flat)) == sum(len(row) - 1 for row in sequences())
    assert (CPT().loss(items, logps) / CPT().total(items)).item() == pytest.approx(expected, rel=1e-12)

    def loss(*values: torch.Tensor) -> torch.Tensor:
        return CPT().loss(items, [[v] for v in values]) / CPT().total(items)

    assert torch.autograd.gradcheck(loss, flat, eps=1e-6, atol=1e-8)
    for slope in torch.autograd.grad(loss(*flat), flat):
        torch.testing.assert_close(slope, torch.full_like(slope, -1 / CPT().total(items)))


@pytest.mark.parametrize("cuts", [[1] * 10, [4, 6], [9, 1]])
def test_any_micro_batches_add_up_to_the_batch(cuts: list[int]) -> None:
    items = items_of(sequences(), 7)
    assert len(items) == sum(cuts) == 10
    dice = torch.Generator().manual_seed(1)
    logps = [[-torch.rand(i.trained_tokens, dtype=torch.float64, generator=dice)] for i in items]
    parts, at = [], 0
    for size in cuts:
        parts.append(CPT().loss(items[at : at + size], logps[at : at + size]))
        at += size
    torch.testing.assert_close(sum(parts), CPT().loss(items, logps), rtol=1e-12, atol=0)


def test_items_are_pieces_and_conversations_are_refused() -> None:
    chat = ChatFormat(byte_level(CHATML, ("<|im_start|>", "<|im_end|>"), eos="<|im_end|>"))
    long, short = text_of("The quick brown fox. " * 20, 3), text_of("fox", 9)
    items = CPT(block=20).items([long, short], chat, "Be kind.")
    assert {item.where for item in items[:-1]} == {"corpus.txt:3"} and items[-1].where == "corpus.txt:9"
    assert len(items) > 3 and max(len(i.sequences[0].ids) for i in items) == 20
    assert sum(i.trained_tokens for i in items[:-1]) == len(chat.text(long.answer).ids) - 1
    assert items == CPT(block=20).items([long, short], chat, None)  # no system prompt
    asked = Example("c", (Message("user", "q"), Message("assistant", "a")), "chat.jsonl", 4)
    with pytest.raises(DataError, match="this is a conversation") as caught:
        CPT().items([asked], chat, None)
    assert caught.value.where == "chat.jsonl:4" and "method: sft" in str(caught.value.fix)
    with pytest.raises(DataError, match="starts with the answer") as caught:
        SFT().items([short], chat, None)
    assert caught.value.where == "corpus.txt:9" and "method: cpt" in str(caught.value.fix)


def test_pieces_fit_the_model() -> None:
    assert CPT(block=1024).within(512) == CPT(block=512)
    assert CPT(block=256).within(512) == CPT(block=256)
    assert CPT(block=256).within(None) == CPT(block=256)
    assert SFT().within(3) is not None


# --- reading --------------------------------------------------------------------------------------


def test_paragraphs_of_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes("\ufeffFirst line\nand the next.\n\n\n  \nSecond, mit Umlaut: ä\n\nLast".encode())
    loaded = read_examples(path)
    assert loaded.format == "text"
    found = [(example.line, example.answer) for example in loaded.examples]
    assert found == [(1, "First line\nand the next."), (6, "Second, mit Umlaut: ä"), (8, "Last")]
    for example in loaded.examples:
        assert example.request == () and example.input == example.answer
    (tmp_path / "notes.md").write_text("# Title\n\nBody of it.\n", encoding="utf-8")
    assert [e.answer for e in read_examples(tmp_path / "notes.md").examples] == ["# Title", "Body of it."]


def test_a_line_that_is_not_utf8_costs_its_paragraph(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"good\n\nbad \xff line\nmore\n\ngood again\n")
    loaded = read_examples(path, strict=False)
    assert [example.answer for example in loaded.examples] == ["good", "good again"]
    assert [problem.where for problem in loaded.problems] == [f"{path}:3"]
    with pytest.raises(DataError, match="not UTF-8") as caught:
        read_examples(path)
    assert caught.value.where == f"{path}:3"
    path.write_bytes(b"\n  \n\n")
    with pytest.raises(DataError, match="holds no examples"):
        read_examples(path)


def test_rows_with_only_text(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "A fox.", "topic": "animals"}\n{"text": "A lamp.", "group": "g"}\n')
    loaded = read_examples(path)
    assert loaded.format == "text"
    first, second = loaded.examples
    assert (first.answer, dict(first.fields), first.group) == ("A fox.", {"topic": "animals"}, None)
    assert (second.answer, second.group, second.request) == ("A lamp.", "g", ())
    for example in loaded.examples:
        assert Example.from_row(example.as_row()) == example
        assert example.as_row()["text"] == example.answer and "messages" not in example.as_row()
    path.write_text('{"text": "A fox.", "label": "animal"}\n')
    assert read_examples(path).format == "text/label"  # a request and its answer, as ever
    path.write_text('{"text": "A fox.", "label": "animal"}\n' + '{"text": "A lamp."}\n' * 9)
    with pytest.raises(DataError, match="no column label"):  # not a text: the answer was forgotten
        read_examples(path)
    path.write_text('{"text": " "}\n')
    with pytest.raises(DataError, match="the text is empty"):
        read_examples(path)


def test_equal_texts_stay_together_and_are_found(tmp_path: Path) -> None:
    texts = [text_of(f"Paragraph {number} tells of {number * number} foxes.", number) for number in range(60)]
    again = [
        Example(f"again{t.line}", (Message("assistant", f" {t.answer.upper()}"),), "other.txt", t.line)
        for t in texts
    ]
    assert request_text(texts[3]) == request_text(again[3]) != request_text(texts[4])
    split = split_examples([*texts, *again], validation=0.2, test=0.3, seed=1)
    sides = [{e.line for e in side} for side in (split.train, split.validation, split.test)]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    audit = audit_examples({"train": texts[:20], "test": [*texts[20:40], again[0]]})
    assert [f.check for f in audit.findings if f.severity == "error"] == ["leakage"]
    skipped = dict(audit.skipped)
    for check in ("label_conflict", "too_few_examples", "prompt_mismatch", "inconsistent_answers"):
        assert "nothing is asked" in skipped[check]
    assert not audit.failed
    twice = audit_examples({"all": [*texts[:20], texts[5]]})
    assert "exact_duplicate" in {finding.check for finding in twice.findings}


# --- the recipe -----------------------------------------------------------------------------------


def recipe(**changes: object) -> Recipe:
    least: dict[str, object] = {"model": "m", "data": "corpus.txt", "method": "cpt"}
    return parse_recipe(least | changes, base=Path("/home/ada"))


def test_what_cpt_puts_in_the_place_of_absent_keys() -> None:
    made = recipe(train={"patience": 2})
    assert made.candidates == ("prompt", "tuned")
    assert made.train.select == "loss" and not made.selects_by_score
    assert made.reads_texts and made.probes == ("forgetting", "own_text")
    assert build_method(made.method) == CPT(block=1024)
    assert build_method(recipe(method={"kind": "cpt", "block": 64}).method) == CPT(block=64)
    assert not parse_recipe({"model": "m", "data": "d.jsonl"}, base=Path()).reads_texts


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"candidates": ["prompt", "few_shot", "tuned"]}, "few_shot cannot answer"),
        ({"system": "Be kind."}, "system is about requests"),
        ({"grader": "label"}, "grader is about requests"),
        ({"constrain": "label"}, "constrain"),
        ({"prompts": ["a"]}, "prompts is about requests"),
        ({"max_new_tokens": 4}, "max_new_tokens is about requests"),
        ({"train": {"select": "score"}}, "train.select: cpt has no answers"),
        ({"probes": ["own_text", "robustness"]}, "robustness ask"),
        ({"stakes": "high"}, "stakes: high demands"),
        ({"method": {"kind": "cpt", "block": 8}}, "method.block"),
        ({"method": {"kind": "cpt", "blocks": 64}}, "unknown key 'method.blocks'"),
    ],
)
def test_what_is_said_of_answers_is_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        recipe(**changes)


def test_the_starter_for_texts_is_a_recipe_for_cpt(tmp_path: Path) -> None:
    path = tmp_path / "corpus.md"
    path.write_text("# Foxes\n\nA fox is brown.\n\nIt jumps.\n", encoding="utf-8")
    written = write_starter(path, tmp_path / "corpus.yaml", force=False)
    made = load_recipe(written)
    assert made.reads_texts and made.data.train == str(path)
    assert made.candidates == ("prompt", "tuned") and build_method(made.method) == CPT(block=1024)
    assert "3 plain texts" in written.read_text(encoding="utf-8")


def test_a_mask_of_a_text_shows_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    chat = ChatFormat(byte_level(CHATML, ("<|im_start|>", "<|im_end|>"), eos="<|im_end|>"))
    print_masks([text_of("The quick brown fox", 4)], chat, None)
    told = capsys.readouterr().out
    tokens = len(chat.text("The quick brown fox").ids)
    assert f"corpus.txt:4: {tokens - 1} of {tokens} tokens" in told and "The quick brown fox" in told


# --- the score ------------------------------------------------------------------------------------


def test_perplexity_is_over_all_tokens() -> None:
    """2 tokens at 1/2 and 6 at 1/8: exp((2 ln 2 + 18 ln 2) / 8) = 2^2.5."""
    rows = [
        {"detail": {"logprob": -2 * math.log(2), "tokens": 2}},
        {"detail": {"logprob": -18 * math.log(2), "tokens": 6}},
    ]
    found = Likelihood().summarise(rows, None)["perplexity"]
    assert found["value"] == pytest.approx(2**2.5) and found["tokens"] == 8
    assert 1 <= found["low"] < found["value"] < found["high"]
    together = Likelihood().summarise(rows, ["one", "one"])["perplexity"]
    assert together["value"] == found["value"] and together["low"] is together["high"] is None
    assert Likelihood().summarise([], None)["perplexity"]["value"] is None


def test_the_interval_of_perplexity_covers_as_it_says() -> None:
    """25 corpora of texts of unequal length around a known mean: nearly all of the intervals hold it."""
    dice = np.random.default_rng(5)
    held = 0
    for _ in range(25):
        tokens = dice.integers(5, 60, 80)
        sums = [float(-dice.gamma(4.0, 0.5, n).sum()) for n in tokens]  # 2 nats a token
        rows = [{"detail": {"logprob": s, "tokens": int(n)}} for s, n in zip(sums, tokens, strict=True)]
        found = Likelihood().summarise(rows, None)["perplexity"]
        held += found["low"] <= math.exp(2.0) <= found["high"]
    assert 20 <= held <= 25
