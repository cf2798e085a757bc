"""Characters, languages, lengths and prompts that are not as they should be."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.audit import Finding
from luthier.audit.encoding import encoding_faults, find_encoding_faults, repair_misread
from luthier.audit.finding import Material, NotApplicableError
from luthier.audit.language_mix import find_language_mix
from luthier.audit.languages import language_of, prose_of
from luthier.audit.length_outlier import find_length_outliers, robust_scores
from luthier.audit.prompt_mismatch import find_prompt_mismatch
from luthier.examples.example import Example, Message

GERMAN = "Wo ist meine Bestellung? Ich habe letzte Woche bezahlt und noch nichts bekommen."
STARTS = ("Where is", "I would like to return", "Please tell me what happened to", "Can you help me with")
THINGS = (
    "the parcel that I ordered",
    "my broken kettle",
    "the invoice for this month",
    "a new pair of shoes",
)
ENDS = ("before the weekend?", "because it does not work.", "as soon as you can.", "and what does it cost?")


def example(asked: str, line: int = 900, answer: str = "ok", system: str | None = None) -> Example:
    head = () if system is None else (Message("system", system),)
    said = (*head, Message("user", asked), Message("assistant", answer))
    return Example(f"e{line}", said, "data.jsonl", line)


def english(n: int = 60) -> list[str]:
    rng = random.Random(2)
    return [f"{rng.choice(STARTS)} {rng.choice(THINGS)} {rng.choice(ENDS)}" for _ in range(n)]


def clean(n: int = 60) -> list[Example]:
    return [example(text, line) for line, text in enumerate(english(n), start=1)]


def material(examples: Sequence[Example], kind: str = "text", **more: Any) -> Material:
    options = {"system": None, "tokens": None, "special_tokens": (), "max_tokens": None} | more
    return Material({"all": examples}, answer_kind=kind, **options)  # type: ignore[arg-type]


def lines(findings: Sequence[Finding]) -> list[list[int]]:
    return [[e.line for e in finding.examples] for finding in findings]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("un cafÃ© noir", "misread character"),
        ("it isnâ€™t so", "misread character"),
        ("the Ã–tztal", "misread character"),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "misread character"),
        ("fun ðŸ˜€", "misread character"),
        ("\x93quoted\x94", "misread character"),
        ("lost \ufffd letter", "lost character"),
        ("zero\u200bwidth", "zero-width character"),
        ("\ufeffstart", "zero-width character"),
        ("a\u200db", "zero-width character"),
        ("evil\u202egnp.exe", "direction control"),
        ("hid\U000e0041den", "hidden tag character"),
        ("so\u00adft", "soft hyphen"),
        ("no\u00a0break here", "no-break space"),
        ("bell\x07", "control character"),
        ("Tom &amp; Jerry", "HTML entity"),
        ("it&#39;s", "HTML entity"),
    ],
)
def test_encoding_faults(text: str, kind: str) -> None:
    for planted in (example(text), example("a", answer=text)):
        (found,) = find_encoding_faults(material([*clean(3), planted]))
        assert lines([found]) == [[900]]
        assert kind in found.message and found.severity == ("info" if kind == "no-break space" else "warning")
    assert {name for name, _ in encoding_faults(text)} == {kind}


@pytest.mark.parametrize(
    "text",
    [
        "« Voilà » : 10\u00a0kg, c’est ça !",
        "SÃO PAULO, MITÄ”, KÖ–A, É… Ångström âge",
        "می‌خواهم",
        "👨‍👩‍👧 🏴\U000e0067\U000e0062\U000e007f",
        "שלום \u200eABC",
        "<p>Tom &amp; Jerry</p>",
        "use `&nbsp;` here",
        "AT&T; R&D, a=1&b=2",
        "tabs\tand\r\nlines",
        "Привет, 你好, こんにちは, naïve façade",
    ],
)
def test_what_scripts_need_is_left_alone(text: str) -> None:
    assert find_encoding_faults(material([example(text)])) == []


@given(st.text(alphabet="äöüßéèàçñóíúÄÖÜÉłščž€„“”’–… abc", max_size=30))
def test_misread_text_is_repaired_or_left(text: str) -> None:
    misread = text.encode().decode("cp1252", "replace")
    if "\ufffd" not in misread and "�" not in text:
        repaired = repair_misread(misread)
        assert repaired == text or len(repaired) <= len(misread)
    assert repair_misread("café ’tis — Österreich") == "café ’tis — Österreich"


def test_repair_is_told() -> None:
    assert repair_misread("cafÃ© Ã–tztal isnâ€™t ðŸ˜€") == "café Ötztal isn’t 😀"
    (found,) = find_encoding_faults(material([example("zwei cafÃ© bitte")]))
    assert "'cafÃ©'" in found.message


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (english(1)[0], "en"),
        (GERMAN, "de"),
        ("Je voudrais savoir où se trouve ma commande, s'il vous plaît.", "fr"),
        ("¿Dónde está mi pedido? Pagué la semana pasada y no ha llegado nada.", "es"),
        ("Где мой заказ? Я заплатил на прошлой неделе и ничего не получил.", "ru"),
        ("我的订单在哪里？我上周付款了，还没有收到。", "zh"),
        ("注文はどこですか？先週支払いましたが、まだ届いていません。", "ja"),
    ],
)
def test_languages(text: str, language: str) -> None:
    prose = prose_of(text)
    assert prose is not None and language_of(prose) == language


@pytest.mark.parametrize(
    "text",
    ["ok", "refund", '{"where": "the old house by the river and the hill"}', "x = 1;\ny = 2;\nreturn x"],
)
def test_no_prose(text: str) -> None:
    assert prose_of(text) is None


def test_language_mix() -> None:
    found = find_language_mix(material([*clean(), example(GERMAN)], "label"))
    assert lines(found) == [[900]] and found[0].severity == "info"
    assert "1 input in German" in found[0].message
    assert find_language_mix(material(clean(), "label")) == []
    with pytest.raises(NotApplicableError):
        find_language_mix(material(clean(5)))


@pytest.mark.parametrize(("english_ones", "german"), [(70, 30), (50, 50), (89, 11), (30, 70)])
def test_a_mix_of_languages_is_told_once_as_a_fact(english_ones: int, german: int) -> None:
    mixed = [*clean(english_ones), *(example(f"{GERMAN} Nummer {k}", 100 + k) for k in range(german))]
    (found,) = find_language_mix(material(mixed, "label"))
    assert (found.severity, found.examples) == ("info", ())
    assert found.score == pytest.approx(min(english_ones, german) / 100)
    first, second = sorted([(english_ones, "English"), (german, "German")], reverse=True)
    told = f"{first[0]}% {first[1]}, {second[0]}% {second[1]}"
    told = "50% English, 50% German" if german == 50 else told
    assert found.message == f"inputs in several languages: {told}"


def test_languages_that_a_few_texts_are_taken_for_are_no_mix() -> None:
    """Of 60 texts 4 in one language may be errors; 5 and more are told where all such are a tenth, 6."""
    spanish = "¿Dónde está mi pedido? Pagué la semana pasada y no ha llegado nada."
    french = "Je voudrais savoir où se trouve ma commande, s'il vous plaît."

    def mixed(*counts: int) -> list[Finding]:
        texts = [
            f"{text} {'!' * k}" for text, n in zip((spanish, french), counts, strict=True) for k in range(n)
        ]
        few = [example(text, 100 + k) for k, text in enumerate(texts)]
        return find_language_mix(material([*clean(60 - len(few)), *few], "label"))

    assert mixed(4, 4) == mixed(5, 4) == []
    (found,) = mixed(6, 2)
    assert found.message == "inputs in several languages: 87% English, 10% Spanish"
    (found,) = mixed(5, 5)
    assert found.message == "inputs in several languages: 83% English, 8% Spanish, 8% French"


def test_some_answers_in_another_language_are_told_once() -> None:
    def mixed(n: int) -> list[Finding]:
        said = [(text, GERMAN if k < n else text) for k, text in enumerate(english(100))]
        return find_language_mix(material([example(a, k, answer=b) for k, (a, b) in enumerate(said)]))

    (found,) = mixed(30)
    assert (found.severity, found.score, len(found.examples)) == ("info", 0.3, 30)
    assert found.message == ("30% of the answers in another language than their input: 30% German to English")
    assert mixed(91) == []  # a task
    assert [f.severity for f in mixed(10)] == ["warning"]


def test_answers_in_another_language_than_their_input() -> None:
    pairs = [example(text, line, answer=text) for line, text in enumerate(english(), start=1)]
    assert find_language_mix(material(pairs)) == []
    (found,) = find_language_mix(material([*pairs, example(english(1)[0], answer=GERMAN)]))
    assert lines([found]) == [[900]] and found.severity == "warning"
    assert "1 answer in German to an input in English" in found.message
    translated = [example(text, line, answer=GERMAN) for line, text in enumerate(english(), start=1)]
    assert find_language_mix(material(translated)) == []
    both = find_language_mix(material([*pairs, example(GERMAN, answer=GERMAN)]))
    assert [f.severity for f in both] == ["info"]  # a German pair is no wrong answer


def test_length_outliers() -> None:
    assert find_length_outliers(material(clean())) == []
    counted = material([*clean(), example("word " * 2000)], tokens=lambda e: len(e.input.split()))
    (found,) = find_length_outliers(counted)
    assert lines([found]) == [[900]] and "10,000 characters" in found.message
    assert "(2,000 tokens" in found.message and "1 input far longer" in found.message
    long = [example(text * 8, line) for line, text in enumerate(english(), start=1)]
    (found,) = find_length_outliers(material([*long, example("no")]))
    assert lines([found]) == [[900]] and "far shorter" in found.message
    answers = [example("a", line, answer=text) for line, text in enumerate(english(), start=1)]
    (found,) = find_length_outliers(material([*answers, example("a", answer="word " * 2000)]))
    assert "1 answer far longer" in found.message
    assert find_length_outliers(material([*clean(), example("a", answer="x" * 5000)], "label")) == []
    with pytest.raises(NotApplicableError):
        find_length_outliers(material(clean(20)))


def test_lengths_like_a_log_normal_are_quiet() -> None:
    rng = random.Random(0)
    texts = ["x" * int(rng.lognormvariate(5, 1)) for _ in range(2000)]
    assert find_length_outliers(material([example(t, k) for k, t in enumerate(texts)])) == []


def test_robust_scores_by_hand() -> None:
    # Logs of length + 1 are 0, 1, 2, 3, 4 times log 10: median 2, median absolute deviation 1.
    scores, middle = robust_scores([0, 9, 99, 999, 9999])
    assert middle == pytest.approx(99)
    assert scores == pytest.approx([-2 / 1.4826, -1 / 1.4826, 0, 1 / 1.4826, 2 / 1.4826])


@pytest.mark.parametrize("text", ["<s>where is it", " <|begin_of_text|>where", "<|my_bos|> where"])
def test_doubled_begin(text: str) -> None:
    tokens = ("<|my_bos|>", "<|im_start|>", "</s>")
    (found,) = find_prompt_mismatch(material([*clean(), example(text)], special_tokens=tokens))
    assert lines([found]) == [[900]] and found.severity == "error"
    assert find_prompt_mismatch(material(clean(), special_tokens=tokens)) == []


def test_a_doubled_begin_in_the_system_prompt() -> None:
    own = [example(e.input, e.line, system="<s>Be kind.") for e in clean()]
    (found,) = find_prompt_mismatch(material(own))
    assert len(found.examples) == 60 and "60 examples whose text begins with '<s>'" in found.message


@pytest.mark.parametrize("text", ["### Instruction:\nsay it\n### Response:", "Human: say it\n\nAssistant:"])
def test_another_templates_words(text: str) -> None:
    (found,) = find_prompt_mismatch(material([*clean(), example(text)]))
    assert lines([found]) == [[900]] and found.severity == "warning"
    every = [example(f"{text} {k}", k) for k in range(60)]
    (found,) = find_prompt_mismatch(material(every))
    assert found.severity == "info" and found.examples == ()


def test_headings_and_talk_are_no_template() -> None:
    texts = [
        "# Notes\n## Plan\nwalk",
        "The human: a study",
        "the assistant: helpful",
        "### Instructions for use\n1.",
    ]
    assert find_prompt_mismatch(material([*clean(), *map(example, texts)])) == []


def test_an_instruction_that_some_inputs_lack() -> None:
    told = [example(f"Classify this ticket now: {e.input}", e.line) for e in clean()]
    assert find_prompt_mismatch(material(told)) == []
    (found,) = find_prompt_mismatch(material([*told, example("where is it")]))
    assert lines([found]) == [[900]] and "'Classify this ticket now:'" in found.message
