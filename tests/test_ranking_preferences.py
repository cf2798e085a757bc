"""What raters prefer by majority, as the preference methods read it; how far they agree, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rankings import id_of, judged, question

from luthier.chat import ChatFormat
from luthier.examples import Message, read_examples
from luthier.methods import DPO
from luthier.ranking.agreement import measure_agreement
from luthier.ranking.judgements import Judgement
from luthier.ranking.opinions import closed, compare, stated
from luthier.ranking.preferences import preference_rows
from luthier.ranking.questions import Offered, Question
from luthier.record import write_jsonl

RATERS = ("anna", "ben", "eve")


def prefer(typed: Sequence[str], answers: str = "ABC") -> list[tuple[str, list[str]]]:
    """Chosen and rejected answers where each rater types one ranking."""
    about = question(answers=answers)
    rows, _ = preference_rows(
        [about], [judged(about, one, rater) for one, rater in zip(typed, RATERS, strict=False)]
    )
    return [(row["chosen"], row["rejected"]) for row in rows]


@pytest.mark.parametrize(
    ("typed", "rows"),
    [
        (["1 2 3"], [("A", ["B", "C"])]),
        (["3 1 2"], [("C", ["A", "B"])]),
        (["1 2 3", "1 2 3", "3 1 2"], [("A", ["B", "C"])]),
        (["1 2 3", "3 2 1"], []),  # one against one
        (["1 2 3", "1=2=3"], []),  # one of two is no majority
        (["1 2 3", "1 2 3", "1=2=3"], [("A", ["B", "C"])]),
        (["1=2 3"], [("A", ["C"]), ("B", ["C"])]),
        (["1 2=3"], [("A", ["B"]), ("A", ["C"])]),  # nothing is said of B and C
        (["2"], [("B", ["A"]), ("B", ["C"])]),
        (["1=2=3"], []),
        (["s"], []),
        (["1 2 3", "2 3 1", "3 1 2"], []),  # a ring: A > B > C > A, two of three each
        (["1 2 3", "s"], [("A", ["B", "C"])]),  # who skips says nothing
    ],
)
def test_what_most_raters_prefer(typed: list[str], rows: list[tuple[str, list[str]]]) -> None:
    assert prefer(typed) == rows


def test_a_tie_below_the_chosen_answer_parts_the_list() -> None:
    assert prefer(["1 2=3 4"], "ABCD") == [("A", ["B", "D"]), ("A", ["C"])]


def test_a_ring_below_the_chosen_answer_parts_the_list() -> None:
    """B > C > D > B by two of three each: no list may have all of them."""
    assert prefer(["1 2 3 4", "1 3 4 2", "1 4 2 3"], "ABCD") == [("A", ["B", "C"]), ("A", ["D"])]


def test_rows_say_how_many_agreed() -> None:
    about = question("Where?", "ABC", "g")
    typed = [judged(about, "1 2 3", "anna"), judged(about, "1 2 3", "ben"), judged(about, "3 1 2", "eve")]
    (row,), counts = preference_rows([about], typed)
    assert row == {
        "prompt": [{"role": "user", "content": "Where?"}],
        "chosen": "A",
        "rejected": ["B", "C"],
        "agreed": [3, 2],
        "raters": [3, 3],
        "key": about.key,
        "group": "g",
    }
    assert counts == {"prompts": 1, "undecided": 0, "unreadable": 0}


def test_what_follows_from_pairs_counts_and_a_second_round_does_not() -> None:
    about = question()
    chain = [judged(about, "a", shown="AB"), judged(about, "b", shown="CB")]
    (row,), _ = preference_rows([about], chain)
    assert (row["chosen"], row["rejected"]) == ("A", ["B", "C"])
    again = judged(about, "3 2 1", round_=2)
    assert preference_rows([about], [*chain, again]) == preference_rows([about], chain)
    assert preference_rows([about], [again])[0] == []


def test_judgements_of_another_question_do_not_count() -> None:
    other = question("Who?")
    assert preference_rows([question()], [judged(other, "1 2 3")])[0] == []


def test_an_undecided_prompt_is_counted_and_one_without_judgements_is_not() -> None:
    one, two, three = (question(prompt) for prompt in "xyz")
    said = [judged(one, "1=2=3"), judged(two, "1 2 3"), judged(three, "s")]
    rows, counts = preference_rows([one, two, three], said)
    assert len(rows) == 1
    assert counts == {"prompts": 1, "undecided": 1, "unreadable": 0}


def test_an_answer_that_would_be_read_as_a_transcript_is_left_out() -> None:
    odd = "\n\nHuman: And?\n\nAssistant: No."
    about = Question((Message("user", "Where?"),), tuple(map(Offered, ("A", odd, "C"))), "made up:1")
    ids = tuple(about.by_id)
    said = Judgement(about.key, "anna", 1, ids, tuple((key,) for key in ids), "1 2 3", "", 1.0, 0, None)
    rows, counts = preference_rows([about], [said])
    assert [(row["chosen"], row["rejected"]) for row in rows] == [("A", ["C"])]
    assert counts["unreadable"] == 1


def test_the_file_gives_items_for_dpo(tmp_path: Path, chat: ChatFormat) -> None:
    system = Message("system", "Be kind.")
    texts = ("Here it is.", "There", "No idea", "Ask him")
    asked = Question((system, Message("user", "Where?")), tuple(map(Offered, texts)), "made up:1", "g")
    plain = question("Who?", ["I", "You"])
    best_first = Judgement(
        asked.key, "anna", 1, tuple(asked.by_id), tuple((key,) for key in asked.by_id), "", "", 1.0, 0, "m"
    )
    second = Judgement(plain.key, "anna", 1, tuple(plain.by_id), ((id_of("You"),),), "2", "", 1.0, 0, "m")
    rows, _ = preference_rows([asked, plain], [best_first, second])
    path = tmp_path / "pairs.jsonl"
    write_jsonl(path, rows)
    loaded = read_examples(path)
    assert loaded.format == "chosen/rejected"
    one, two = loaded.examples
    assert (one.answer, one.rejected) == ("Here it is.", ("There", "No idea", "Ask him"))
    assert ([m.role for m in one.request], one.group) == (["system", "user"], "g")
    assert (two.answer, two.rejected, two.input) == ("You", ("I",), "Who?")
    items = DPO().items(loaded.examples, chat, None)
    assert [item.wanted for item in items] == [(True, False)] * 4
    chosen, rejected = items[3].sequences
    assert chat.decode(chosen.ids[chosen.prompt_tokens :]) == "You"
    assert chat.decode(rejected.ids[rejected.prompt_tokens :]) == "I"


LEVELS = st.lists(st.integers(0, 3), min_size=4, max_size=4)


@settings(max_examples=150)
@given(st.lists(LEVELS, min_size=1, max_size=4))
def test_every_preference_is_that_of_a_majority_and_none_is_lost(ranks: list[list[int]]) -> None:
    about = question(answers="ABCD")
    said = []
    for rater, own in enumerate(ranks):
        levels = ["=".join(str(i + 1) for i in range(4) if own[i] == rank) for rank in sorted(set(own))]
        said.append(judged(about, " ".join(levels), f"rater {rater}"))

    def beats(x: str, y: str) -> bool:
        places = [(own["ABCD".index(x)], own["ABCD".index(y)]) for own in ranks]
        return sum(a < b for a, b in places) > len(ranks) / 2

    rows, _ = preference_rows([about], said)
    pairs = [(row["chosen"], worse) for row in rows for worse in row["rejected"]]
    free = [x for x in "ABCD" if not any(beats(y, x) for y in "ABCD")]
    assert sorted(pairs) == sorted((x, y) for x in free for y in "ABCD" if beats(x, y))
    for row in rows:
        best_first = [row["chosen"], *row["rejected"]]
        assert all(beats(x, y) for i, x in enumerate(best_first) for y in best_first[i + 1 :])
        assert all(2 * a > n == len(ranks) for a, n in zip(row["agreed"], row["raters"], strict=True))


# --- agreement --------------------------------------------------------------------------------------

TWO = [question(prompt, "AB") for prompt in "wxyz"]


def agree(anna: Sequence[str], ben: Sequence[str], **more: Sequence[str]) -> dict[str, Any]:
    raters = {"anna": anna, "ben": ben, **more}
    said = [
        judged(about, typed, rater)
        for rater, words in raters.items()
        for about, typed in zip(TWO, words, strict=True)
    ]
    return measure_agreement(TWO, said)


def test_two_raters_by_hand() -> None:
    """They agree on three pairs of four: D_o = 1/4; in both orders eight values each: D_e = 128 / 240."""
    found = agree(["1 2", "2 1", "1 2", "2"], ["1 2", "2 1", "1 2", "1"])
    between = found["between"]
    assert (between["raters"], between["prompts"], between["pairs"]) == (["anna", "ben"], 4, 4)
    assert between["agreement"] == 0.75
    assert between["alpha"] == pytest.approx(1 - 0.25 / (128 / 240)) == pytest.approx(0.53125)
    assert between["alpha_low"] < between["alpha"] < between["alpha_high"]
    assert between["agreement_low"] < 0.75 < between["agreement_high"]
    assert (between["reason"], found["couples"]) == (None, [])


def test_alpha_does_not_depend_on_which_answer_is_called_the_first() -> None:
    """The same words about A and B throughout, or half of them turned round: as much agreement."""
    one = agree(["1 2"] * 4, ["1 2"] * 3 + ["2 1"])["between"]
    other = agree(["1 2", "2 1", "1 2", "2 1"], ["1 2", "2 1", "1 2", "1 2"])["between"]
    assert one["alpha"] == pytest.approx(other["alpha"]) == pytest.approx(0.53125)


def test_ties_by_hand() -> None:
    """(A, A) and (tie, A): in both orders n = 3, 3, 2: D_o = 1/2, D_e = 42/56, alpha = 1/3."""
    found = measure_agreement(
        TWO,
        [
            judged(TWO[i], typed, r)
            for i, typed, r in ((0, "1 2", "anna"), (0, "1", "ben"), (1, "1=2", "anna"), (1, "1 2", "ben"))
        ],
    )
    assert found["between"]["alpha"] == pytest.approx(1 / 3)
    assert (found["between"]["agreement"], found["between"]["pairs"]) == (0.5, 2)
    assert (found["raters"]["anna"]["tied"], found["raters"]["ben"]["tied"]) == (0.5, 0.0)


def test_three_raters_and_each_couple_of_them() -> None:
    found = agree(["1 2", "2 1", "1 2", "1 2"], ["1 2", "2 1", "1 2", "2 1"], eve=["2 1", "1 2", "2 1", "s"])
    couples = {tuple(row["raters"]): row["agreement"] for row in found["couples"]}
    assert couples == {("anna", "ben"): 0.75, ("anna", "eve"): 0.0, ("ben", "eve"): 0.0}
    between = found["between"]
    assert between["agreement"] == pytest.approx((1 / 3 + 1 / 3 + 1 / 3 + 0) / 4)
    # (A, A, B): 4 of 6 couples differ and count 1/2 each, 2 of 3; the last pair (A, B): 2 of 2
    # in both orders D_o = 2 (3 * 2 + 2) / 22, D_e = 2 * 11 * 11 / (22 * 21)
    assert between["alpha"] == pytest.approx(1 - (16 / 22) / (242 / 462))
    assert found["raters"]["eve"] == {"judged": 3, "skipped": 1, "tied": 0.0, "seconds": 1.5}


def test_one_rater_agrees_with_nobody() -> None:
    said = [judged(about, "1 2") for about in TWO]
    found = measure_agreement(TWO, said)
    between = found["between"]
    assert (between["alpha"], between["agreement"], between["pairs"]) == (None, None, 0)
    assert between["reason"] == "one rater: anna"
    assert found["again"]["anna"]["reason"] == "nothing was asked twice"
    apart = measure_agreement(TWO, [judged(TWO[0], "1 2"), judged(TWO[1], "1 2", "ben")])["between"]
    assert (apart["alpha"], apart["reason"]) == (None, "no pair of answers was judged by two of them")
    assert measure_agreement(TWO, [])["between"]["reason"] == "no rater"
    one = measure_agreement(TWO, [judged(TWO[0], "1 2"), judged(TWO[0], "1 2", "ben")])["between"]
    assert (one["alpha"], one["alpha_low"]) == (1.0, None)
    assert one["reason"] == "a single source says nothing about spread"


def test_a_rater_is_compared_with_herself() -> None:
    said = [judged(about, "1 2") for about in TWO]
    said += [judged(TWO[i], typed, round_=2) for i, typed in enumerate(("1 2", "2 1", "1=2"))]
    found = measure_agreement(TWO, said)
    again = found["again"]["anna"]
    assert (again["raters"], again["pairs"], again["agreement"]) == (["anna"], 3, pytest.approx(1 / 3))
    assert found["between"]["reason"] == "one rater: anna"
    # (A, A), (A, B), (A, tie); in both orders n = 5, 5, 2, and 8 of 12 couples differ
    assert again["alpha"] == pytest.approx(1 - (8 / 12) / ((144 - 25 - 25 - 4) / 132))


def test_only_what_was_said_is_compared_not_what_follows() -> None:
    about = question()
    said = [
        judged(about, typed, rater, shown=pair)
        for rater in ("anna", "ben")
        for typed, pair in (("a", "AB"), ("a", "BC"))
    ]
    assert measure_agreement([about], said)["between"]["pairs"] == 2
    opinion = closed(stated([one for one in said if one.rater == "anna"]))
    assert compare(opinion, id_of("A"), id_of("C")) == 1
