"""The study of claims: its runs and their file, its verdicts in all three cases, its page."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_claims import MADE_UP, OTHERS, by_name, column, lora, outcome, prompt, several

from bench.claims import claim_lora, command, points
from bench.claims.claim import Claim
from bench.claims.claim_wrong_labels import wrong_in_surest_quarter
from bench.claims.command import CLAIMS, all_points, collect, make
from bench.claims.data import Size
from bench.claims.evidence import (
    NOTHING,
    Estimate,
    OneOf,
    Part,
    combine,
    decide,
    difference,
    mean,
    show,
    values,
)
from bench.claims.page import write_page
from bench.claims.points import EVERYTHING, Outcome, Outcomes, read_outcomes
from bench.harness import BenchError
from bench.results import append_outcome
from luthier.recipe import Recipe
from luthier.stats import compare, wilson

SMALL = Size(12, 3, 12)


# --- verdicts -------------------------------------------------------------------------------------


def part(low: float | None, high: float | None, *, what: str = "it rises", least: float = 0.05) -> Part:
    value = None if low is None or high is None else (low + high) / 2
    return Part(what, Estimate(value, low, high, 50), "points", 0.0, least)


def test_a_statement_is_shown_ruled_out_or_open() -> None:
    assert part(0.01, 0.2).finding == "shown"
    assert part(-0.2, 0.04).finding == "ruled out"
    assert part(-0.01, 0.2).finding == "open"
    assert part(0.01, 0.04).finding == "ruled out"  # there, and too small to matter
    assert part(None, None).finding == "open"


def test_the_three_verdict_sentences() -> None:
    shown, out, open_ = part(0.1, 0.3), part(-0.3, -0.1, what="it falls"), part(-0.1, 0.3, what="it stays")
    assert decide([shown, shown])[0] == "supported"
    assert decide([shown]) == ("supported", "Supported. Shown: it rises (+20.0 points [+10.0, +30.0]).")
    assert decide([shown, open_]) == (
        "not decided",
        "Not decided at this size. May be chance: it stays (+10.0 points [-10.0, +30.0]). "
        "Shown: it rises (+20.0 points [+10.0, +30.0]).",
    )
    assert decide([shown, open_, out]) == (
        "not supported",
        "Not supported. Our numbers disagree with: it falls (-20.0 points [-30.0, -10.0]). "
        "Shown all the same: it rises (+20.0 points [+10.0, +30.0]). "
        "May be chance: it stays (+10.0 points [-10.0, +30.0]).",
    )
    assert decide([])[0] == "not decided"


def test_one_of_several() -> None:
    shown, out, open_ = part(0.1, 0.3), part(-0.3, -0.1), part(-0.1, 0.3)
    assert OneOf("x", (shown, out)).finding == "shown"
    assert OneOf("x", (shown, out), opposed=True).finding == "open"  # they point both ways
    assert OneOf("x", (shown, open_), opposed=True).finding == "shown"
    assert OneOf("x", (out, out)).finding == "ruled out"
    assert OneOf("x", (out, open_)).finding == "open"
    assert OneOf("x", (shown, open_)).told() == "x: it rises (+20.0 points [+10.0, +30.0])"
    assert OneOf("x", (out, open_)).told().count("it rises") == 2


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize(
    ("how", "verdict"), [("yes", "supported"), ("no", "not supported"), ("open", "not decided")]
)
def test_every_claim_can_end_in_each_verdict(name: str, how: str, verdict: str) -> None:
    judged = CLAIMS[name].judge(by_name(MADE_UP[name](how)))
    found, sentence = decide(judged.statements)
    assert (found, name) == (verdict, name), sentence
    assert "nan" not in sentence


def test_full_tuning_far_from_loras_score_says_nothing_at_the_same_score() -> None:
    found = by_name(lora("yes"))
    far = {
        name: [replace(one, candidates=several({"tuned": 0.2}, 60)) for one in ones]
        if "full" in name
        else ones
        for name, ones in found.items()
    }
    judged = claim_lora.CLAIM.judge(far)
    assert [statement.finding for statement in judged.statements] == ["shown", "open"]
    assert "nothing can be said at the same score" in judged.remarks[0]
    nearest = points.full_name(1.0)
    assert f"nearest to LoRA in score: {nearest}, 0.0 points" in claim_lora.CLAIM.judge(found).remarks[0]


def test_thresholds_of_the_verdicts_are_on_the_page() -> None:
    text = page(["prompt"], "yes")
    assert "| without a system prompt tuned loses less than 5 points | 200 |" in text
    assert "| 95% | -5 | -5 | shown |" in text


# --- estimates ------------------------------------------------------------------------------------


def test_combined_intervals_by_hand() -> None:
    """0.6 [0.5, 0.7] minus 0.2 [0.1, 0.4]: reaches sqrt(0.1^2 + 0.2^2) down and sqrt(0.1^2 + 0.1^2) up."""
    found = combine([(1.0, Estimate(0.6, 0.5, 0.7, 10)), (-1.0, Estimate(0.2, 0.1, 0.4, 20))])
    assert found.value == pytest.approx(0.4)
    assert found.low == pytest.approx(0.4 - math.sqrt(0.05))
    assert found.high == pytest.approx(0.4 + math.sqrt(0.02))
    assert found.n == 30
    assert combine([(1.0, NOTHING), (1.0, found)]).low is None


def test_combined_intervals_cover() -> None:
    """Two shares of 24 (a fifth and nine tenths): the truth is inside in 93 to 99% of 2,000 draws."""
    rng = np.random.default_rng(0)
    inside, draws = 0, 2000
    for a, b in zip(rng.binomial(24, 0.2, draws), rng.binomial(24, 0.9, draws), strict=True):
        first, second = (Estimate(k / 24, *wilson(int(k), 24), 24) for k in (a, b))
        found = combine([(1.0, first), (-1.0, second)])
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= -0.7 <= found.high
    assert 0.93 < inside / draws < 0.99


def test_differences_are_paired_by_case_and_leave_out_what_only_one_side_has() -> None:
    a = {(0, "x"): 1.0, (0, "y"): 1.0, (0, "z"): 0.0}
    b = {(0, "y"): 0.0, (0, "x"): 1.0}
    found = difference(a, b)
    assert (found.value, found.n) == (0.5, 2)


def width(found: Any) -> float:
    return float(found.high - found.low)


def test_more_seeds_are_no_more_examples() -> None:
    n = 40
    one = {(0, str(i)): float(i < 24) for i in range(n)}
    base = {(0, str(i)): float(i < 12) for i in range(n)}
    copies = [{(seed, case): v for seed in range(4) for (_, case), v in side.items()} for side in (one, base)]
    single, fourfold = difference(one, base), difference(*copies)
    assert fourfold.n == n
    assert fourfold.value == single.value == 0.3
    naive = compare(list(copies[0].values()), list(copies[1].values()))
    assert width(fourfold) == pytest.approx(width(single), rel=0.15)
    assert width(naive) < 0.6 * width(fourfold)
    assert mean(copies[0]).n == n


def test_unscored_answers_and_other_kinds_are_left_out() -> None:
    own = column([1.0, 0.0, 1.0]) | {"score": [1.0, None, 0.0]}
    found = outcome("x", {"tuned": own}, kinds=["a", "a", "b"])
    assert list(values([found], "tuned").values()) == [1.0, 0.0]
    assert list(values([found], "tuned", kind="a").values()) == [1.0]


def test_the_surest_quarter_by_hand() -> None:
    """Of nine answers the three surest: places 8, 7, 0, of which 7 and 8 are wrong."""
    sure = [0.7, 0.1, 0.2, 0.3, 0.2, 0.1, 0.3, 0.8, 0.9]
    found = outcome("x", {"tuned": column([1, 1, 1, 1, 1, 1, 1, 0, 0], sure=sure)})
    assert wrong_in_surest_quarter([found]) == {(0, "8"): 1.0, (0, "7"): 1.0, (0, "0"): 0.0}


def test_numbers_are_shown_with_sign_and_unit() -> None:
    assert show(Estimate(0.031, -0.002, 0.06, 9), "points") == "+3.1 points [-0.2, +6.0]"
    assert show(Estimate(0.5, 0.25, None, 9), "%") == "50.0% [25.0, ?]"
    assert show(Estimate(0.5, 0.25, 0.75, 9), "nats") == "+0.50 nats per token [+0.25, +0.75]"
    assert show(NOTHING, "points") == "not measured"


# --- runs and their file --------------------------------------------------------------------------


def test_results_survive_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "claims.jsonl"
    assert read_outcomes(path) == {}
    first, second = lora("yes")[:2]
    append_outcome(path, first)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"name": "tick')  # cut off while it was written
    append_outcome(path, second)
    assert read_outcomes(path) == {first.key: first, second.key: second}


def test_runs_are_shared_between_claims_and_told_apart_otherwise() -> None:
    planned = all_points(list(CLAIMS.values()), SMALL, 1)
    names = Counter(point.name for point in planned)
    assert set(names.values()) == {1}
    assert len(planned) == 15
    asked = [point.name for claim in CLAIMS.values() for point in claim.points(SMALL, 0)]
    assert Counter(asked)["tickets"] == 4  # four claims, one run
    again = all_points(list(CLAIMS.values()), SMALL, 2)
    assert [point.key for point in again[:15]] == [point.key for point in planned]
    assert len({point.key for point in again}) == 30
    assert points.tickets_full(SMALL, 0, 3.0).key != points.tickets_full(SMALL, 0, 1.0).key


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was run: instead of training, made-up numbers; what is named `broken` dies."""
    ran: list[str] = []

    def fake(point: points.Point, threads: int) -> Outcome:
        ran.append(point.name)
        if point.name == "tickets, no system prompt" and len(ran) == 2:
            raise BenchError("worker claims ended with code 1:\nno memory")
        same = next(one for one in prompt("yes") if one.name == point.name)
        return replace(same, seed=point.seed, key=point.key)

    monkeypatch.setattr(command, "make", fake)
    return ran


def test_the_command_goes_on_where_it_was_interrupted(made: list[str], tmp_path: Path) -> None:
    files = ["--results", str(tmp_path / "r.jsonl"), "--out", str(tmp_path / "p.md")]
    arguments = ["--claim", "prompt", "--examples", "12", *files]
    assert command.main(arguments) == 1
    assert made == ["tickets", "tickets, no system prompt"]
    assert "Not measured yet: tickets, no system prompt." in (tmp_path / "p.md").read_text()
    assert command.main(arguments) == 0
    assert made[2:] == ["tickets, no system prompt"]
    text = (tmp_path / "p.md").read_text()
    assert "**Supported. Shown: without a system prompt" in text
    assert "python -m bench claims --claim prompt --examples 12\n" in text
    assert command.main(arguments) == 0
    assert len(made) == 3
    assert command.main([*arguments, "--seeds", "2"]) == 0
    assert made[3:] == ["tickets", "tickets, no system prompt"]
    assert "seeds: 2" in (tmp_path / "p.md").read_text()


def test_time_that_is_up_starts_nothing(made: list[str], tmp_path: Path) -> None:
    files = ["--results", str(tmp_path / "r.jsonl"), "--out", str(tmp_path / "p.md")]
    assert command.main(["--claim", "prompt", "--examples", "12", "--minutes", "0", *files]) == 0
    assert made == []
    assert "Not measured yet" in (tmp_path / "p.md").read_text()


def test_a_seed_that_is_not_whole_is_left_out() -> None:
    claim = CLAIMS["prompt"]
    planned = [point for seed in (0, 1) for point in claim.points(SMALL, seed)]
    known = {p.key: replace(prompt("yes")[0], name=p.name, seed=p.seed, key=p.key) for p in planned[:3]}
    found, missing = collect(claim, SMALL, 2, known)
    assert {name: [one.seed for one in ones] for name, ones in found.items()} == {
        "tickets": [0],
        "tickets, no system prompt": [0],
    }
    assert missing == []


@pytest.mark.parametrize("point", all_points(list(CLAIMS.values()), SMALL, 1), ids=lambda point: point.name)
def test_every_run_is_a_recipe_that_luthier_reads(point: points.Point, tmp_path: Path) -> None:
    from bench.workers.claims import write_recipe
    from luthier.examples import read_examples

    recipe = write_recipe(point.job(), tmp_path)
    assert isinstance(recipe, Recipe)
    for side, rows in point.sides.items():
        read = read_examples(getattr(recipe.data, side)).examples
        assert [example.fields["case"] for example in read] == [row["case"] for row in rows]
        assert [example.answer for example in read] == [row["messages"][-1]["content"] for row in rows]
    assert (recipe.documents is not None) == bool(point.documents)


class Answers:
    """A run whose probes have been measured: what is in its folder."""

    def __init__(self, **files: Any) -> None:
        self.record, self.files = self, files

    def read_json(self, name: str) -> Any:
        return self.files[Path(name).stem]


def test_probes_are_read_item_by_item() -> None:
    """Harmful requests come first: the base refuses those and no others, tuned refuses nothing."""
    from bench.workers import claims
    from luthier.probes.refusal_requests import HARMFUL, HARMLESS

    base = ["I cannot help with that."] * len(HARMFUL) + ["Of course."] * len(HARMLESS)
    answers = {"answers": {"base": base, "tuned": ["Of course."] * len(base)}}
    texts = {"texts": [{"nll": 2.0}, {"nll": 1.0}], "tuned": [2.5, 1.5]}
    run: Any = Answers(refusal=answers, own_text=texts)
    read = claims._refusal(run)
    assert read["base"] == [1.0] * len(base)
    assert read["tuned"] == [0.0] * len(HARMFUL) + [1.0] * len(HARMLESS)
    assert claims._own_text(run) == {"base": [2.0, 1.0], "tuned": [2.5, 1.5]}


@pytest.mark.slow
def test_a_real_run() -> None:
    found = make(points.categories(Size(8, 2, 8), 0, 0.4), threads=1)
    assert set(found.candidates) == {"tuned"}
    assert len(found.trained) == 8
    assert {row["kind"] for row in found.trained} == {"wrong", "right"}
    assert found.steps


# --- page -----------------------------------------------------------------------------------------


def page(names: Sequence[str], how: str, missing: Sequence[str] = ()) -> str:
    collected: list[tuple[Claim, Outcomes, Sequence[str]]] = [
        (CLAIMS[name], {} if missing else by_name(MADE_UP[name](how)), missing) for name in names
    ]
    return write_page(collected, "python -m bench claims")


@pytest.mark.parametrize("how", ["yes", "no", "open"])
def test_the_page_has_every_claim_with_whole_tables(how: str) -> None:
    text = page(list(CLAIMS), how)
    for claim in CLAIMS.values():
        assert f"## {claim.title}\n\n**{claim.says}** Who says it: " in text
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) == 1 + 2 * len(CLAIMS)
    for one in tables:
        assert len({line.count("|") for line in one.splitlines() if "---" not in line}) == 1, one
    said = {"yes": "Supported", "no": "Not supported", "open": "Not decided at this size"}[how]
    assert text.count(f"\n**{said}. ") == len(CLAIMS)
    assert text.count(f"| {said} |") == len(CLAIMS)


def test_disagreements_stand_at_the_top() -> None:
    text = page(["facts", "prompt"], "no")
    top = text[: text.index("## Facts")]
    assert "Where our numbers disagree:" in top
    assert "- A tuned model needs a shorter prompt. Ruled out here: without a system prompt" in top
    assert "disagree" not in page(["facts", "prompt"], "yes")


def test_what_was_not_run_is_said() -> None:
    text = page(["lora"], "yes", missing=["tickets", "tickets, full, x1"])
    assert "Not measured yet: tickets, tickets, full, x1." in text
    assert "| LoRA forgets less than full fine-tuning. | not measured yet |" in text


def test_tuned_is_compared_with_every_alternative() -> None:
    assert set(EVERYTHING) == {*OTHERS, "tuned"}
