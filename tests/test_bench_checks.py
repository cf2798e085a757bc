"""The study of the checks: what is planted is what it says, and the counts are right."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from bench.checks import answers, duplicates, labels, private
from bench.checks.command import Outcome, jobs, main, read_outcomes
from bench.checks.lookalikes import change_number, kinds, negate
from bench.checks.page import write_page
from bench.checks.planting import plant_pairs
from bench.checks.rates import Rates, Tally, share
from bench.checks.rewording import HEAVY, SLIGHT, change_surface, move_clause, spell_numbers
from bench.checks.texts import TEXT_SETS, similarities, without_natural_pairs
from bench.results import append_outcome
from luthier.audit.personal_data import passes_luhn
from luthier.examples.wording import normalise

RNG = random.Random(5)
WORDS = ["".join(RNG.choices("abcdefghijklmnoprstuvw", k=RNG.randint(4, 9))) for _ in range(600)]
TEXTS = [
    " ".join(
        [
            f"what is the {n + 2} best way",
            *random.Random(n).choices(WORDS, k=7),
            "if",
            *RNG.choices(WORDS, k=5),
        ]
    )
    for n in range(240)
]


def test_rates_are_counts_over_counts() -> None:
    rates = Rates.of([Tally("a", 8, 10), Tally("b", 1, 10), Tally("c", 3, 50, fault=False)])
    assert rates == Rates(found=9, planted=20, wrong=3)
    assert (rates.precision, rates.recall) == (9 / 12, 9 / 20)
    # Wilson for 9 of 20: centre (0.45 + 1.92/20) / (1 + 3.84/20), by hand 0.458 -+ 0.200
    assert rates.show_recall() == "0.45 [0.26, 0.66] (9/20)"
    assert share(0, 0) == "-"


def test_all_pairs_find_natural_duplicates() -> None:
    texts = ["the cat sat on the mat", "dogs run fast in parks", "the cat sat on a mat"]
    # words: {the cat sat on mat} and {the cat sat on a mat}: 5 of 6
    assert similarities(texts, "word")[0, 2] == pytest.approx(5 / 6)
    assert without_natural_pairs(texts) == (texts[:2], 1)


@pytest.mark.parametrize("name", [*SLIGHT, *HEAVY])
def test_rewordings_change_the_text(name: str) -> None:
    text = "What is the main reason to buy a small house, if you do not have 3 children?"
    changed = {**SLIGHT, **HEAVY}[name](text, random.Random(0))
    assert changed is not None and normalise(changed) != normalise(text)


def test_rules_by_hand() -> None:
    rng = random.Random(0)
    assert normalise(change_surface("Where is it?", rng) or "") == "where is it"
    assert spell_numbers("3 lamps for two rooms, 4.5 m and 21 more", rng) == (
        "three lamps for 2 rooms, 4.5 m and 21 more"
    )
    assert move_clause("can I get a refund if it is broken?", rng) == "If it is broken, can I get a refund?"
    assert negate("is it safe", rng) == "is not it safe"
    assert negate("it is not safe", rng) == "it is safe"
    changed = change_number("order 1234", rng) or ""
    assert changed != "order 1234" and len(changed) == len("order 1234")


def test_every_original_is_in_one_pair() -> None:
    planted = plant_pairs(TEXTS, SLIGHT, kinds(TEXTS), each=20, seed=0)
    originals = [a for pairs in planted.pairs.values() for a, _ in pairs]
    assert len(originals) == len(set(originals))
    assert planted.texts[: len(TEXTS)] == TEXTS
    a, b = planted.pairs["one slip of the pen"][0]
    linked = {a: {b}, b: {a, 0 if a else 1}}
    tallies = {tally.kind: tally for tally in planted.tallies(linked)}
    assert tallies["one slip of the pen"].flagged == 1 and tallies["one slip of the pen"].fault
    assert not tallies["negated"].fault
    assert planted.stray_links(linked) == 1


def test_the_goal_holds_on_made_up_texts() -> None:
    for measure in (duplicates.near_copies, duplicates.conflicts, duplicates.leaked_rows):
        tallies = [t for t in measure(TEXTS, 8, 0) if t.kind not in HEAVY]
        rates = Rates.of(tallies)
        assert rates.recall >= 0.9, (measure.__name__, tallies)
        assert rates.precision >= 0.9, (measure.__name__, tallies)
    exact = Rates.of(duplicates.exact_copies(TEXTS, 20, 0))
    assert (exact.precision, exact.recall) == (1.0, 1.0)


def test_the_goal_holds_for_secrets_and_personal_data() -> None:
    for measure in (private.secret_tallies, private.personal_tallies):
        rates = Rates.of(measure(TEXTS, 10, 0))
        assert rates.precision >= 0.9 and rates.recall >= 0.9


def test_made_up_numbers_have_right_check_digits() -> None:
    rng = random.Random(1)
    for _ in range(30):
        card = private.PERSONAL["card"](rng)
        assert passes_luhn("".join(c for c in card if c.isdigit()))
        account = private.PERSONAL["IBAN"](rng).replace(" ", "")
        assert int("".join(str(int(c, 36)) for c in account[4:] + account[:4])) % 97 == 1


@pytest.mark.parametrize("noise", labels.NOISES)
def test_noise_is_as_much_as_asked_for(noise: str) -> None:
    texts = ["apples and pears", "apples and plums", "cars and trains", "ships"] * 25
    right = np.array([0, 1, 2, 3] * 25)
    given = labels.plant_noise(texts, right, 0.2, noise, 0)
    assert (given != right).sum() == 20
    assert set(given) <= {0, 1, 2, 3}
    if noise == labels.NOISES[1]:
        assert set(given[(right == 0) & (given != 0)]) == {1}  # they share two words


def test_answers_are_planted_where_it_says() -> None:
    said = "The bank has a fee for this, and the fee is due at the end of the month. You can ask for less."
    pairs = [(f"question {n} about {WORDS[n]}?", f"{said} See {WORDS[n]} there.") for n in range(40)]
    tallies = answers.answer_tallies(pairs, 0.1, 0)
    assert [tally.total for tally in tallies] == [4, 36] * len(answers.FAULTS)
    assert tallies[0].flagged >= 3 and tallies[1].flagged == 0


def test_outcomes_are_read_back_and_shown(tmp_path: Path) -> None:
    rows = [{"kind": "a contraction", "flagged": 9, "total": 10, "fault": True}]
    rows.append({"kind": "negated", "flagged": 0, "total": 10, "fault": False})
    notes = {"texts": 100, "left_out": 3}
    done = Outcome("near_duplicate", "news", "held-out", "s", 1.5, rows, notes)
    counts = {"rate": 0.1, "noise": "any other label", "rows": 100}
    sides = dict.fromkeys(labels.SIDES, (8, 10, 10))
    judged = Outcome("label_error", "mail", "tuning", "s", 2.0, (), {"counts": [counts | {"sides": sides}]})
    for outcome in (done, judged):
        append_outcome(tmp_path / "r.jsonl", outcome)
    found = read_outcomes(tmp_path / "r.jsonl", "s")
    assert [outcome.key for outcome in found.values()] == [done.key, judged.key]
    assert read_outcomes(tmp_path / "r.jsonl", "other") == {}
    page = write_page(list(found.values()))
    assert "| Near-duplicates | 1.00 [0.70, 1.00] (9/9) | 0.90 [0.60, 0.98] (9/10) | yes |" in page
    # 8 of 10 flagged are wrong, 10 of 100 labels: 8 times a random pick
    assert "| 10% of 100 | any other label | 0.80 [0.49, 0.94] (8/10) | 8.0 |" in page


def test_what_is_measured_again_stands_once_in_the_file(tmp_path: Path) -> None:
    results, page = tmp_path / "r.jsonl", tmp_path / "page.md"
    asked = ["--half", "held-out", "--part", "secret", "--results", str(results), "--out", str(page)]
    assert main(asked) == 0
    first = results.read_text()
    assert main([*asked, "--again"]) == 0
    second = results.read_text()
    assert len(first.splitlines()) == len(second.splitlines()) == 1
    assert first != second, "the time it took is another"
    assert "| held-out |" in page.read_text()


def test_a_set_is_of_one_half() -> None:
    assert len({given.name for given in TEXT_SETS}) == len(TEXT_SETS)
    files = {
        half: {given.file for given in TEXT_SETS if given.half == half} for half in ("tuning", "held-out")
    }
    assert not files["tuning"] & files["held-out"]
    from bench.checks.command import Sizes

    halves = {outcome.data: outcome.half for outcome, _ in jobs(Sizes(), ("held-out",))}
    assert set(halves.values()) == {"held-out"} or "questions of one form" in halves
