"""Answers that are empty, copied, cut off, refused, or in another form than the others."""

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from luthier.audit import Finding
from luthier.audit.answer_shape import deviations, shape_of
from luthier.audit.copied_answer import find_copied_answers
from luthier.audit.empty_answer import find_empty_answers
from luthier.audit.finding import Material, NotApplicableError
from luthier.audit.inconsistent_answers import find_inconsistent_answers
from luthier.audit.refusal import find_refusals, refusal
from luthier.audit.schema_violation import find_schema_violations
from luthier.audit.sentence_ends import Words, are_cut
from luthier.audit.unfinished_answer import find_unfinished_answers, open_answer
from luthier.examples.example import Example, Message

SAID = "the river old house walks over green hill finds small stone and keeps it near warm door"
WORDS = SAID.split(" ")


def example(answer: str, line: int = 900, asked: str = "tell me about it") -> Example:
    return Example(f"e{line}", (Message("user", asked), Message("assistant", answer)), "data.jsonl", line)


def sentences(n: int = 60) -> list[Example]:
    """Answers of 12 words and a full stop: nothing to find."""
    rng = random.Random(1)
    return [example(f"{' '.join(rng.choices(WORDS, k=12))}.", line) for line in range(1, n + 1)]


def material(examples: Sequence[Example], kind: str = "text", **more: Any) -> Material:
    return Material({"all": examples}, None, None, (), None, kind, **more)  # type: ignore[arg-type]


def lines(findings: Sequence[Finding]) -> list[list[int]]:
    return [[e.line for e in finding.examples] for finding in findings]


@pytest.mark.parametrize(
    ("answer", "severity"),
    [("", "error"), (" \n" * 40, "error"), ("...", "error"), ("TODO", "warning"), ("#N/A", "warning")],
)
def test_empty_answers(answer: str, severity: str) -> None:
    found = find_empty_answers(material([*sentences(3), example(answer)]))
    assert lines(found) == [[900]] and found[0].severity == severity


@pytest.mark.parametrize("answer", ["0", "[]", "no", "null", "-", "?", "none", "TODO list: milk", "{}"])
def test_short_answers_are_answers(answer: str) -> None:
    assert find_empty_answers(material([example(answer)])) == []


def test_copied_answers() -> None:
    asked = "where is my parcel from last week"
    (found,) = find_copied_answers(material([*sentences(), example(f" {asked}\n", asked=asked)]))
    assert lines([found]) == [[900]] and found.severity == "warning"
    assert find_copied_answers(material([*sentences(), example("thank you", asked="thank you")])) == []
    several = [example(f"{asked} {k}", 900 + k, asked=f"{asked} {k}") for k in range(10)]
    (found,) = find_copied_answers(material([*sentences(), *several]))  # where nothing is to correct
    assert found.severity == "info" and len(found.examples) == 10
    with pytest.raises(NotApplicableError):
        find_copied_answers(material(several, "label"))


OPEN = ['{"city": "Bonn", "zip": 53', '{"city": "Bo', '[{"a": 1}, {"b"', "{", "See:\n```python\nprint(1)\n"]


@pytest.mark.parametrize("answer", OPEN)
def test_open_answers(answer: str) -> None:
    found = find_unfinished_answers(material([*sentences(), example(answer)]))
    assert lines(found) == [[900]] and found[0].severity == "error"


@pytest.mark.parametrize(
    "answer",
    [
        '{"a": "}"}',
        '{"a": "\\""}',
        "[see here](http://a.b)",
        "```\nx\n```",
        "{name} is here",
        "[1] Smith",
        "{'a'",
    ],
)
def test_closed_answers(answer: str) -> None:
    assert open_answer(example(answer)) is None


def test_answers_that_stop_in_mid_sentence() -> None:
    cut = example("the old house walks over the green hill and the")
    (found,) = find_unfinished_answers(material([*sentences(), cut]))
    assert lines([found]) == [[900]] and found.severity == "warning" and "and the" in found.message
    within = example("the old house walks over the green hill and hou")  # of house, which others have
    assert find_unfinished_answers(material([*sentences(), within]))[0].severity == "warning"
    signed = example("the old house walks over the green hill with Scott")
    assert find_unfinished_answers(material([*sentences(), signed]))[0].severity == "info"
    assert find_unfinished_answers(material(without_marks(sentences()))) == []  # that is how they are written
    listed = example("You need the following things for it:\n- a house\n- a hill")
    assert find_unfinished_answers(material([*sentences(), listed])) == []


def without_marks(examples: Sequence[Example]) -> list[Example]:
    """The answers with a noun at the end instead of a mark."""
    nouns = ("river", "house", "hill", "stone", "door")
    return [example(f"{e.answer.rstrip('.')} {nouns[e.line % 5]}", e.line) for e in examples]


@pytest.mark.parametrize("part", [0.15, 0.25, 0.4, 1.0])
def test_many_answers_that_stop_in_mid_sentence_are_told_once(part: float) -> None:
    whole = sentences(200)
    cut = [example(e.answer[: 48 + e.line % 13], e.line) for e in whole[: round(200 * part)]]
    bare = [e for e in cut if not e.answer.endswith(".")]
    (found,) = find_unfinished_answers(material([*cut, *whole[len(cut) :]]))
    assert found.severity == "warning" and len(found.examples) > 0.8 * len(bare)  # the others are short
    assert f"({found.score:.0%})" in found.message and "mid-sentence" in found.message
    assert len(found.message) < 160


@pytest.mark.parametrize("part", [0.06, 0.15, 0.4, 0.9])
def test_many_answers_that_are_written_without_a_mark_are_not_told(part: float) -> None:
    whole = sentences(200)
    assert find_unfinished_answers(material([*without_marks(whole[: round(200 * part)]), *whole])) == []
    titles = [example(f"{e.line} ways in which an old house may be found", e.line) for e in whole]
    assert find_unfinished_answers(material([*titles[: round(200 * part)], *whole])) == []


def test_what_is_never_last_decides_by_several_words_and_a_share() -> None:
    """By hand: 2 of 66 answers are 3.03%, of 67 they are 2.99%; a word alone may be a habit."""
    words = Words(["one two"])
    rest = ["it is found behind the house"] * 65
    assert are_cut([*rest[1:], "it is the", "so it is and"], [], words)
    assert not are_cut([*rest, "it is the", "so it is and"], [], words)
    assert not are_cut([*rest[1:], "it is the", "so it is the"], [], words)
    assert are_cut(["it is the", "or so,"], [], words)
    assert not are_cut(["what is it for, and of", "where is it from", "grade a", "they die"], [], words)


def test_beginnings_of_words_count_where_they_are_commoner_than_by_chance() -> None:
    """By hand: 5 of 20 answers without a mark end so; three times 1 of 20 is less, three times 2 is more."""
    begun = ["over the moun", "up a mount", "on a mounta", "at mountai", "by mou"]
    bare = [*begun, *(f"it is here {n}" for n in range(15))]
    ended = [f"so it is {n}." for n in range(20)]
    once, twice = [*ended[1:], "by the wind."], [*ended[2:], "by the wind.", "at a windo."]
    known = ["a mountain", "one mountain", "a window", "one window", *bare, *twice, *ended[:2]]
    words = Words(known)
    assert [words.is_begun(answer) for answer in begun] == [True] * 5
    assert [words.is_begun(answer) for answer in twice[-2:]] == [True] * 2
    assert not any(words.is_begun(answer) for answer in ("a mountain", "it is here 3", "so it is 1."))
    assert not Words([*known, "he said moun"]).is_begun("over the moun")  # a word of its own
    assert are_cut(bare, ended, words) and are_cut(bare, once, words)
    assert not are_cut(bare, twice, words)
    assert not are_cut(bare[1:], ended, words)  # 4 may be chance
    assert not are_cut(bare, ended[:19], words)  # too few to show what is chance


def test_answers_cut_at_a_cap() -> None:
    long = [example(("word " * 60)[:200], 900 + k) for k in range(4)]
    (found,) = find_unfinished_answers(material([*sentences(), *long]))
    assert lines([found])[0][:4] == [900, 901, 902, 903] and "4 answers of 200 characters" in found.message
    assert find_unfinished_answers(material([*sentences(), *long[:1]]))[0].severity != "error"
    close = [example("w" * (200 - k), 900 + k) for k in range(10)]  # lengths that happen to be near
    assert "cap" not in " ".join(f.message for f in find_unfinished_answers(material(close * 2)))


REFUSED = [
    "I'm sorry, but I can't assist with that.",
    "I’m sorry, but I can’t help with that request.",
    "I cannot provide medical advice.",
    "I am unable to fulfill this.",
    "As an AI language model, I have no opinions.",
    "Well, as a large language model I think so.",
    "I don't have personal feelings about it.",
    "Es tut mir leid, aber ich kann dir dabei nicht helfen.",
    "Als KI kann ich das nicht sagen.",
    "Désolé, je ne peux pas vous aider avec cela.",
    "Lo siento, no puedo ayudar con eso.",
    "Como modelo de lenguaje, no opino.",
    "Desculpe, não posso ajudar com isso.",
    "Mi dispiace, non posso aiutarti.",
    "Het spijt me, ik kan je daar niet bij helpen.",
    "Извините, я не могу помочь с этим.",
    "很抱歉，我无法协助您。",
    "作为一个人工智能，我没有感受。",
    "申し訳ありませんが、お手伝いできません。",
]


@pytest.mark.parametrize("answer", REFUSED)
def test_refusals_are_found(answer: str) -> None:
    found = find_refusals(material([*sentences(), example(answer)]))
    assert lines(found) == [[900]] and found[0].severity == "warning"


@pytest.mark.parametrize(
    "answer",
    [
        "I cannot find your order, please send me its number.",
        "We are unable to refund the fee, but we can change the date.",
        "She said she can't help with the harvest.",
        "An AI is a program that learns from examples.",
        "Als Kind kann ich das nicht sagen.",
        "The language model was trained on books.",
        "Como una manzana al día.",
        "Sorry for the delay, your parcel is on its way.",
    ],
)
def test_ordinary_answers_are_no_refusals(answer: str) -> None:
    assert refusal(example(answer)) is None


TALKING = [
    "Sure! Here is the poem.",
    "  Absolutely! Here it is.",
    "Of course, here they are.",
    "Here's the list you asked for.",
    "Great question! It is so.",
    "What a good question, really.",
    "I’d be happy to help with it.",
    "Natürlich! Hier ist der Text.",
    "Selbstverständlich, ich schreibe ihn.",
    "Bien sûr ! Voici le texte.",
    "Por supuesto: aquí está.",
    "Con gusto, aquí está.",
    "Certo! Ecco il testo.",
    "Natuurlijk! Hier is het.",
    "Конечно, вот текст.",
    "好的，以下是文章。",
]


@pytest.mark.parametrize("answer", TALKING)
def test_small_talk_is_found(answer: str) -> None:
    (found,) = find_refusals(material([*sentences(), example(answer)]))
    assert lines([found]) == [[900]] and found.severity == "info" and "small talk" in found.message


def test_small_talk_and_shared_ends() -> None:
    (found,) = find_refusals(material([*sentences(), example("Sure! Here is the poem: roses are red.")]))
    assert lines([found]) == [[900]] and found.severity == "info"
    ends = "Let me know if you need anything else."
    long = [example(f"{e.answer} {e.answer} {ends if e.line % 2 else ''}", e.line) for e in sentences()]
    (found,) = find_refusals(material(long))
    assert len(found.examples) == 30 and "50% of the longer answers end with" in found.message
    everywhere = [example(f"{e.answer} {e.answer} {ends}", e.line) for e in sentences()]
    assert find_refusals(material(everywhere)) == []
    with pytest.raises(NotApplicableError):
        find_refusals(material(long, "label"))


def forms(n: int = 60, **more: Any) -> list[Example]:
    rows = [{"city": "Bonn", "zip": k, "kind": "abc"[k % 3], "tags": ["x"], **more} for k in range(n)]
    return [example(json.dumps(row), k + 1) for k, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ('{"city": "Bonn", "kind": "a", "tags": []}', "no 'zip'"),
        ('{"city": "Bonn", "zip": 1, "kind": "a", "tags": [], "plz": 2}', "'plz' is not expected"),
        ('{"city": "Bonn", "zip": "1", "kind": "a", "tags": []}', "zip is a text, not a number"),
        ('{"city": "Bonn", "zip": 1, "kind": "B", "tags": []}', "kind is 'B', not one of a, b, c"),
        ('{"city": "Bonn", "zip": 1, "kind": "a", "tags": [3]}', "tags[] is a number, not a text"),
        ('[{"city": "Bonn"}]', "the answer is a list, not an object"),
        ("Bonn", "the answer is not JSON"),
    ],
)
def test_schema_violations_of_what_most_have(answer: str, told: str) -> None:
    (found,) = find_schema_violations(material([*forms(), example(answer)], "json"))
    assert lines([found]) == [[900]] and told in found.message and found.severity == "warning"


def test_an_honest_variety_is_no_violation() -> None:
    assert find_schema_violations(material(forms(), "json")) == []
    nulls = [example('{"city": null, "zip": null, "kind": "a", "tags": null}')]
    assert find_schema_violations(material([*forms(), *nulls], "json")) == []
    names = [example(json.dumps({f"name{k}": k}), k) for k in range(60)]  # keys are data
    assert find_schema_violations(material(names, "json")) == []
    half = [*forms(30), *forms(30, more=1)]
    assert find_schema_violations(material(half, "json")) == []
    deep = [example("[" * 200 + "]" * 200, k) for k in range(30)]
    assert find_schema_violations(material(deep, "json")) == []
    for few in (forms(15), sentences()):
        with pytest.raises(NotApplicableError):
            find_schema_violations(material(few, "json"))


def test_schema_violations_of_what_was_given() -> None:
    schema = {"type": "object", "required": ["zip"], "properties": {"zip": {"type": "integer"}}}
    asked = [example('{"zip": 1}', 1), example('{"zip": "1"}', 2), example("{}", 3), example("no", 4)]
    found = find_schema_violations(material(asked, "json", schema=schema))
    assert lines(found) == [[2], [3], [4]]
    assert [f.severity for f in found] == ["error"] * 3
    assert found[0].message.startswith("zip: '1' is not of type 'integer'")
    labels = [example("yes", 1), example("Yes", 2), example("yes ", 3)]
    assert lines(find_schema_violations(material(labels, "label", labels=("yes", "no")))) == [[2], [3]]


def test_deviations_are_counted_by_hand() -> None:
    usual = shape_of([{"a": 1}] * 18 + [{"a": "x"}] * 2)  # 18 of 20 are numbers: nine in ten
    assert deviations({"a": "x"}, usual) == ["a is a text, not a number"]
    assert deviations({"a": "x"}, shape_of([{"a": 1}] * 17 + [{"a": "x"}] * 3)) == []


def test_inconsistent_types_line_ends_and_joints() -> None:
    mixed = forms(30)
    mixed += [example(json.dumps({**json.loads(e.answer), "zip": "5"}), 100 + e.line) for e in forms(20)]
    (found,) = find_inconsistent_answers(material(mixed, "json"))
    assert "zip is a number in 30, a text in 20" in found.message
    assert lines([found]) == [list(range(101, 121))]
    (found,) = find_inconsistent_answers(material([*sentences(), example("one\r\ntwo.")]))
    assert lines([found]) == [[900]] and "Windows line ends" in found.message
    labels = [example("not-spam" if k % 2 else "spam", k) for k in range(20)]
    assert find_inconsistent_answers(material(labels, "label")) == []
    (found,) = find_inconsistent_answers(material([*labels, example("not spam")], "label"))
    assert lines([found]) == [[900]] and "'not-spam', 'not spam'" in found.message
    signed = [example(str(k % 3 - 1), k) for k in range(20)]
    assert find_inconsistent_answers(material(signed, "label")) == []
