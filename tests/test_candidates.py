"""Candidates: prompts built from training examples only, answers with their cost, and the scratch model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from luthier.candidates import (
    Nearby,
    answer_from_scratch,
    ask,
    few_shot_messages,
    prompt_messages,
    retrieval_messages,
)
from luthier.chat import ChatFormat
from luthier.examples.example import Example, Message
from luthier.models import LoadedModel


def example(number: int, text: str, answer: str, system: str | None = None) -> Example:
    head = (Message("system", system),) if system else ()
    turns = (*head, Message("user", text), Message("assistant", answer))
    return Example(id=f"e{number}", messages=turns, file="data.jsonl", line=number)


def examples(rows: Sequence[tuple[str, str]], start: int = 1) -> list[Example]:
    return [example(number, text, answer) for number, (text, answer) in enumerate(rows, start)]


TRAIN = examples([(f"train question {i}", "AABBC"[i % 5]) for i in range(20)])
TEST = examples([(f"test question {i}", "ABC"[i % 3]) for i in range(6)], start=100)


# Prompts ------------------------------------------------------------------------------------------


def test_the_plain_prompt(chat: ChatFormat) -> None:
    assert prompt_messages(TEST[0], chat, "Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "test question 0"},
    ]
    own = example(1, "hello", "x", system="Mine.")
    assert prompt_messages(own, chat, "Be brief.")[0] == {"role": "system", "content": "Mine."}


def shown_turns(messages: Sequence[dict[str, str]]) -> list[tuple[str, str]]:
    """The examples in a prompt: (question, answer) turns before the request."""
    turns = [m for m in messages if m["role"] != "system"][:-1]
    assert [m["role"] for m in turns] == ["user", "assistant"] * (len(turns) // 2)
    return [(q["content"], a["content"]) for q, a in zip(turns[::2], turns[1::2], strict=True)]


@pytest.mark.parametrize("kind", ["few_shot", "retrieval"])
def test_only_training_examples_are_shown(kind: str, chat: ChatFormat) -> None:
    if kind == "few_shot":
        prompts = few_shot_messages(TEST, TRAIN, chat, "Sort.", shots=4, seed=0)
    else:
        prompts = retrieval_messages(TEST, Nearby(TRAIN), chat, "Sort.", shots=4)
    known = {(e.input, e.answer) for e in TRAIN}
    assert list(prompts) == [e.id for e in TEST]
    for test in TEST:
        messages = prompts[test.id]
        assert messages[0] == {"role": "system", "content": "Sort."}
        assert messages[-1] == {"role": "user", "content": test.input}
        shown = shown_turns(messages)
        assert len(shown) == len(set(shown)) == 4
        assert set(shown) <= known


def test_few_shot_shows_the_same_to_everyone_and_answers_evenly(chat: ChatFormat) -> None:
    prompts = few_shot_messages(TEST, TRAIN, chat, None, shots=7, seed=3)
    shown = [shown_turns(messages) for messages in prompts.values()]
    assert all(s == shown[0] for s in shown)
    assert {answer for _, answer in shown[0][:3]} == {"A", "B", "C"}
    assert sorted(Counter(answer for _, answer in shown[0]).values()) == [2, 2, 3]
    again = few_shot_messages(TEST, TRAIN, chat, None, shots=7, seed=3)
    other = few_shot_messages(TEST, TRAIN, chat, None, shots=7, seed=4)
    assert again == prompts != other


def test_fewer_examples_than_shots(chat: ChatFormat) -> None:
    for prompts in (
        few_shot_messages(TEST, TRAIN[:2], chat, None, shots=9, seed=0),
        retrieval_messages(TEST, Nearby(TRAIN[:2]), chat, None, shots=9),
    ):
        assert all(len(shown_turns(messages)) == 2 for messages in prompts.values())


def test_own_system_and_developer_messages_stay_in_front(chat: ChatFormat) -> None:
    asked = Example(
        id="d",
        messages=(Message("developer", "Rules."), Message("user", "q"), Message("assistant", "a")),
        file="f",
        line=1,
    )
    (messages,) = few_shot_messages([asked], TRAIN, chat, "Ignored.", shots=1, seed=0).values()
    assert [m["role"] for m in messages] == ["developer", "user", "assistant", "user"]


def test_retrieval_shows_the_nearest_last(chat: ChatFormat) -> None:
    train = examples(
        [
            ("the weather in Paris is sunny", "w1"),
            ("refund for a broken kettle", "r1"),
            ("refund for a broken toaster that arrived late", "r2"),
            ("opening hours of the library", "h1"),
            ("my kettle leaks", "k1"),
        ]
    )
    asked = examples([("please refund the broken kettle", "?"), ("library opening hours", "?")], start=50)
    prompts = retrieval_messages(asked, Nearby(train), chat, None, shots=2)
    # three words of the query are in r1, two in r2, one in k1
    assert [answer for _, answer in shown_turns(prompts["e50"])] == ["r2", "r1"]
    assert shown_turns(prompts["e51"])[-1][1] == "h1"


@pytest.mark.parametrize("text", ["zzz qqq", "the of and", "", "?!", "日本"])
def test_retrieval_of_a_query_that_matches_nothing(text: str, chat: ChatFormat) -> None:
    (messages,) = retrieval_messages([example(99, text, "?")], Nearby(TRAIN), chat, None, shots=2).values()
    assert [q for q, _ in shown_turns(messages)] == ["train question 1", "train question 0"]


def test_retrieval_from_texts_without_words(chat: ChatFormat) -> None:
    train = examples([("?", "a"), ("!", "b"), ("the", "c")])
    (messages,) = retrieval_messages(
        [example(99, "is it?", "?")], Nearby(train), chat, None, shots=2
    ).values()
    assert len(shown_turns(messages)) == 2


# Asking -------------------------------------------------------------------------------------------


def test_ask_reports_what_was_asked_and_what_it_cost(loaded: LoadedModel, chat: ChatFormat) -> None:
    conversations = {e.id: prompt_messages(e, chat, "Sort.") for e in TEST}
    finished: list[int] = []
    answers = ask(loaded.model, chat, conversations, max_new_tokens=5, advance=finished.append)
    assert [a.id for a in answers] == [e.id for e in TEST]
    assert sum(finished) == len(TEST)
    for answer in answers:
        ids = chat.prompt(conversations[answer.id])
        assert answer.prompt == chat.render(conversations[answer.id], generation=True)
        assert answer.prompt_tokens == len(ids)
        assert answer.answer_tokens is not None
        assert answer.answer_tokens <= 5
        assert answer.confidence is not None
        assert 0 <= answer.confidence <= 1
        json.dumps(answer.as_row(), allow_nan=False)


def test_confidence_is_the_probability_of_the_whole_answer(loaded: LoadedModel, chat: ChatFormat) -> None:
    conversations = {e.id: prompt_messages(e, chat, None) for e in TEST}
    for answer in ask(loaded.model, chat, conversations, max_new_tokens=1):
        ids = chat.prompt(conversations[answer.id])
        with torch.inference_mode():
            chances = torch.softmax(loaded.model(torch.tensor([ids])).logits[0, -1], dim=-1)
        assert answer.confidence == pytest.approx(chances.max().item(), rel=1e-4)


# From scratch ---------------------------------------------------------------------------------------

SPAM = [("win money now", "spam"), ("free money prize", "spam"), ("claim your prize money", "spam")]
HAM = [("meeting at noon", "ham"), ("lunch meeting tomorrow", "ham"), ("notes of the meeting", "ham")]


def test_scratch_learns_an_obvious_label() -> None:
    asked = examples([("prize money for you", "?"), ("another meeting", "?")], start=50)
    answers = answer_from_scratch(asked, examples(SPAM + HAM), seed=0)
    assert [(a.id, a.answer) for a in answers] == [("e50", "spam"), ("e51", "ham")]
    assert all(a.confidence is not None and 0.5 < a.confidence <= 1 for a in answers)
    assert all(a.prompt is None and a.prompt_tokens is None and a.seconds > 0 for a in answers)


def test_scratch_learns_fields_of_objects() -> None:
    rows = [
        (text, json.dumps({"kind": kind, "urgent": "money" in text, "tags": ["x"], "note": None}))
        for text, kind in SPAM + HAM
    ]
    (answer,) = answer_from_scratch([example(50, "prize money for you", "?")], examples(rows), seed=0)
    assert json.loads(answer.answer) == {"kind": "spam", "urgent": True, "tags": ["x"], "note": None}
    assert answer.confidence is not None
    assert 0.25 < answer.confidence <= 1


def test_scratch_learns_when_a_field_is_absent() -> None:
    rows = [
        (text, json.dumps({"kind": kind} | ({"sum": 5} if kind == "spam" else {})))
        for text, kind in SPAM + HAM
    ]
    asked = examples([("prize money", "?"), ("a meeting", "?")], start=50)
    answers = answer_from_scratch(asked, examples(rows), seed=0)
    assert [json.loads(a.answer) for a in answers] == [{"kind": "spam", "sum": 5}, {"kind": "ham"}]


def test_scratch_with_a_field_of_ever_new_values() -> None:
    rows = [(text, json.dumps({"kind": kind, "id": i})) for i, (text, kind) in enumerate(SPAM + HAM)]
    (answer,) = answer_from_scratch([example(50, "prize money", "?")], examples(rows), seed=0)
    assert json.loads(answer.answer)["kind"] == "spam"
    assert json.loads(answer.answer)["id"] in range(6)
    assert answer.confidence is not None
    assert answer.confidence <= 1 / 6  # the most common value of six different ones


def test_scratch_with_a_single_class() -> None:
    answers = answer_from_scratch(TEST, examples([("a b", "yes"), ("c d", "yes"), ("e f", "yes")]), seed=0)
    assert {a.answer for a in answers} == {"yes"}
    assert {a.confidence for a in answers} == {1.0}


def test_scratch_copies_the_nearest_free_text() -> None:
    train = examples([("boil an egg", "Seven minutes."), ("bake bread", "Forty minutes at 220.")])
    (answer,) = answer_from_scratch([example(50, "how to bake good bread", "?")], train, seed=0)
    assert answer.answer == "Forty minutes at 220."
    assert answer.confidence is None


@pytest.mark.parametrize(
    "texts", [["1 + 2", "3 + 4", "5 - 1", "6 - 2"], ["🙂", "🙂", "☹", "☹"], ["a", "a", "b", "b"]]
)
def test_scratch_reads_texts_of_single_characters(texts: list[str]) -> None:
    train = examples(list(zip(texts, ["x", "x", "y", "y"], strict=True)))
    assert [a.answer for a in answer_from_scratch(train, train, seed=0)] == ["x", "x", "y", "y"]


def test_scratch_meets_words_it_never_saw() -> None:
    (answer,) = answer_from_scratch([example(50, "日本", "?")], examples(SPAM + HAM), seed=0)
    assert answer.answer in ("spam", "ham")


def test_scratch_is_reproducible() -> None:
    first, again = (answer_from_scratch(TEST, TRAIN, seed=1) for _ in range(2))
    assert [(a.answer, a.confidence) for a in first] == [(a.answer, a.confidence) for a in again]
