"""A split never parts a group, never moves an example when others are added, and can be repeated."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.errors import DataError
from luthier.examples import Example, Message, Split, split_examples
from luthier.examples.duplicates import find_near_duplicates
from luthier.examples.split import LEEWAY
from luthier.examples.wording import request_text
from luthier.pipeline.sources import Sources
from luthier.pipeline.stages import read_split, write_split
from luthier.recipe import parse_recipe
from luthier.record import Record, write_jsonl


def example(text: str, *, number: int = 0, group: str | None = None, answer: str = "yes") -> Example:
    messages = (Message("user", text), Message("assistant", answer))
    return Example(f"{text}-{number}", messages, "data.jsonl", number + 1, group)


LONG = "more words than a label has"


def examples(n: int, prefix: str = "question", start: int = 0, answer: str = "yes") -> list[Example]:
    return [example(f"{prefix} {i}", number=i, answer=answer) for i in range(start, start + n)]


def split(members: list[Example], *, seed: int = 0, clusters: list[tuple[int, ...]] | None = None) -> Split:
    return split_examples(members, validation=0.2, test=0.3, seed=seed, near_duplicates=clusters or ())


def side_by_line(result: Split) -> dict[int, str]:
    return {e.line: name for name, side in result.sides().items() for e in side}


GROUPS = (None, *"ABCDEFGH")
ANSWERS = ("yes", "Yes.", "no", "it depends", LONG, LONG + " again")


def decoded(number: int, line: int) -> Example:
    number, answer = divmod(number, len(ANSWERS))
    text, group = divmod(number, 2 * len(GROUPS))
    return example(f"text {text}", number=line, group=[*GROUPS, *[None] * 9][group], answer=ANSWERS[answer])


drawn = st.lists(st.integers(0, 61 * 2 * len(GROUPS) * len(ANSWERS) - 1), min_size=70, max_size=120).map(
    lambda numbers: [decoded(number, line) for line, number in enumerate(numbers)]
)
# Enough for each side, whatever is drawn.
loose = [example(f"alone {i}", number=i, answer=ANSWERS[i % len(ANSWERS)]) for i in range(200, 240)]


@settings(max_examples=50, deadline=None)
@given(drawn, st.integers(0, 5), st.lists(st.lists(st.integers(0, 69), min_size=2, max_size=4), max_size=3))
def test_sides_are_disjoint_complete_and_keep_groups_whole(
    members: list[Example], seed: int, clusters: list[list[int]]
) -> None:
    members = members + loose
    result = split_examples(members, validation=0.2, test=0.3, seed=seed, near_duplicates=clusters)
    lines = [e.line for side in result.sides().values() for e in side]
    assert sorted(lines) == [e.line for e in members]
    for side in result.sides().values():
        assert [e.line for e in side] == sorted(e.line for e in side)
    sides = side_by_line(result)
    for key in (lambda e: e.group, request_text):
        for value in {key(e) for e in members} - {None}:
            assert len({sides[e.line] for e in members if key(e) == value}) == 1
    for cluster in clusters:
        assert len({sides[members[m].line] for m in cluster}) == 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 10_000), min_size=80, max_size=120, unique=True),
    st.lists(st.tuples(st.integers(0, 20_000), st.none() | st.just("new")), max_size=60),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_added_examples_move_nothing(
    old: list[int], new: list[tuple[int, str | None]], seed: int, chance: random.Random
) -> None:
    """Whatever comes after: new labels, other requests, copies and near-duplicates of old ones."""
    before = [
        example(f"text {t}", number=n, answer=chance.choice(["yes", "no", LONG])) for n, t in enumerate(old)
    ]
    fresh = [(t, None if t in old else g) for t, g in new]  # a group that joins old examples is the exception
    after = before + [
        example(f"text {t}", number=len(old) + n, group=g, answer=chance.choice(["yes", "never", "no", LONG]))
        for n, (t, g) in enumerate(fresh)
    ]
    clusters = [
        (m, len(old) + m) for m in range(len(new)) if fresh[m] == (fresh[m][0], None) and new[m][0] not in old
    ]
    clusters = clusters if len({t for t, _ in new}) == len(new) else []
    first, second = split(before, seed=seed), split(after, seed=seed, clusters=clusters)
    sides = side_by_line(second)
    assert all(sides[line] == side for line, side in side_by_line(first).items())


def test_inserting_and_shuffling_unrelated_examples_moves_nothing() -> None:
    members = examples(100, answer=LONG)
    sides = side_by_line(split(members))
    mixed = [*examples(20, "other", 500, LONG), *reversed(members)]
    again = side_by_line(split(mixed))
    assert all(again[line] == side for line, side in sides.items())


def test_the_seed_decides() -> None:
    members = examples(200)
    assert split(members, seed=1) == split(members, seed=1)
    assert split(members, seed=1) != split(members, seed=2)


def test_shares_hold_up_to_chance() -> None:
    result = split_examples(examples(4000, answer=LONG), validation=0.1, test=0.3, seed=0)
    # Four standard deviations of a binomial: 4 * sqrt(4000 * 0.3 * 0.7) = 116, and 76 for 0.1.
    assert abs(len(result.test) - 1200) < 116
    assert abs(len(result.validation) - 400) < 76


def test_another_share_of_one_side_leaves_the_other_alone() -> None:
    members = examples(300, answer=LONG)
    small = split_examples(members, validation=0.1, test=0.3, seed=0)
    large = split_examples(members, validation=0.3, test=0.3, seed=0)
    assert small.test == large.test
    assert set(small.validation) < set(large.validation)
    tested_more = split_examples(members, validation=0.1, test=0.5, seed=0)
    assert tested_more.validation == small.validation
    assert set(small.test) < set(tested_more.test)


def test_near_duplicates_found_in_the_texts_stay_together() -> None:
    words = [chr(97 + i) + chr(97 + j) + "xyz" for i in range(9) for j in range(26)]
    members = [example(" ".join(words[i::80] + words[i : i + 3]), number=i) for i in range(80)]
    members += [example(f"{e.input} please", number=100 + n) for n, e in enumerate(members[:40])]
    clusters = [c.members for c in find_near_duplicates([request_text(e) for e in members])]
    assert clusters
    sides = side_by_line(split(members, clusters=clusters))
    for cluster in clusters:
        assert len({sides[members[m].line] for m in cluster}) == 1


def test_given_sides_are_kept() -> None:
    train, test = examples(100), examples(10, "held out", 1000)
    result = split_examples(train, validation=0.2, test=0.3, seed=0, given={"test": test})
    assert result.test == tuple(test)
    assert len(result.train) + len(result.validation) == 100
    assert result.validation
    both = split_examples(
        train, validation=0.2, test=0.3, seed=0, given={"test": test, "validation": test[:3]}
    )
    assert both.train == tuple(train)


def test_too_few_examples_are_refused_with_numbers_and_a_fix() -> None:
    with pytest.raises(DataError) as caught:
        split(examples(15))
    assert "15 examples in 15 separate groups" in caught.value.message
    assert "at least 8" in caught.value.message
    assert caught.value.where == "data.jsonl"
    assert "add examples" in (caught.value.fix or "")


def test_the_suggested_seed_works() -> None:
    members = examples(30, answer=LONG)
    failed = next(seed for seed in range(100) if not works(members, seed))
    with pytest.raises(DataError) as caught:
        split(members, seed=failed)
    assert works(members, int((caught.value.fix or "").rsplit(" ", 1)[1]))


def works(members: list[Example], seed: int) -> bool:
    try:
        split(members, seed=seed)
    except DataError:
        return False
    return True


def test_one_large_group_is_named() -> None:
    members = [example(f"text {i}", number=i, group="same") for i in range(90)] + examples(10, "other", 100)
    with pytest.raises(DataError, match="the largest group holds 90") as caught:
        split(members)
    assert "finer groups" in (caught.value.fix or "")


def test_a_small_given_side_names_its_file() -> None:
    test = [Example("t", (Message("user", "q"), Message("assistant", "a")), "test.csv", 1)]
    with pytest.raises(DataError, match=r"test 1 \(at least 8\)") as caught:
        split_examples(examples(100), validation=0.2, test=0.3, seed=0, given={"test": test})
    assert caught.value.where == "test.csv"
    with pytest.raises(DataError):
        split([])


# --- labels -----------------------------------------------------------------------------------------


def labelled(n: int, labels: list[str], seed: int = 0) -> list[Example]:
    chance = random.Random(seed)
    return [example(f"case {seed} {i}", number=i, answer=chance.choice(labels)) for i in range(n)]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_label_has_its_share_at_any_point_of_the_file(share: float, seed: int) -> None:
    """Within the leeway for test; validation comes second, and is pushed aside for a moment at most."""
    labels = ["yes", *["no"] * 4, *["it depends"] * 15]
    members = labelled(2000, labels, seed)
    sides = side_by_line(split_examples(members, validation=0.1, test=share, seed=seed))
    counts: dict[str, Counter[str]] = {label: Counter() for label in labels}
    for member in members:
        count = counts[member.answer]
        count[sides[member.line]] += 1
        assert abs(count["test"] - share * count.total()) <= LEEWAY + 1e-9
        assert abs(count["validation"] - 0.1 * count.total()) <= 2.7
    assert all(count.total() > 60 for count in counts.values())


def test_a_label_of_seven_is_always_tested() -> None:
    rare = [example(f"rare {i}", number=1000 + i, answer="escalate") for i in range(7)]
    for seed in range(60):
        tested = split([*rare, *examples(100)], seed=seed).test
        assert any(e.answer == "escalate" for e in tested)


def test_spellings_of_a_label_share_its_balance_and_tasks_do_not() -> None:
    def tested(members: list[Example], seed: int) -> int:
        return sum(e.line > 1000 for e in split([*examples(100), *members], seed=seed).test)

    spelt = [example(f"a {i}", number=1000 + i, answer=["Later", "later."][i % 2]) for i in range(20)]
    tasks = [replace(e, fields={"task": "ab"[i % 2]}) for i, e in enumerate(spelt)]
    assert all(abs(tested(spelt, seed) - 6) <= LEEWAY for seed in range(40))
    apart = [tested(tasks, seed) - 6 for seed in range(40)]
    assert any(abs(d) > LEEWAY for d in apart)
    assert all(abs(d) <= 2 * LEEWAY for d in apart)


def test_a_task_that_grows_leaves_the_other_tasks_alone() -> None:
    first = [replace(e, fields={"task": "a"}) for e in labelled(100, ["yes", "no"], 1)]
    second = [replace(e, line=e.line + 500, fields={"task": "b"}) for e in labelled(100, ["yes", "no"], 2)]
    grown = [replace(e, line=e.line + 900, fields={"task": "a"}) for e in labelled(50, ["yes", "no"], 3)]
    before = side_by_line(split([*first, *second]))
    after = side_by_line(split([*first, *grown, *second]))
    assert all(after[line] == side for line, side in before.items())


def test_a_label_seen_once_is_a_coin_over_seeds() -> None:
    """400 tosses of two labels; chi-square with 2 degrees of freedom exceeds 13.8 once in a thousand."""
    once = [example("rare", number=900, answer="once"), example("also rare", number=901, answer="single")]
    tosses = Counter(
        (sides[901], sides[902])
        for seed in range(400)
        for sides in [side_by_line(split([*examples(60), *once], seed=seed))]
    )
    shares = {"train": 0.5, "validation": 0.2, "test": 0.3}
    for place in (0, 1):
        counts = Counter(
            {side: sum(n for pair, n in tosses.items() if pair[place] == side) for side in shares}
        )
        assert sum((counts[s] - 400 * p) ** 2 / (400 * p) for s, p in shares.items()) < 13.8
    # Independent of one another: with 9 cells that is 26.1.
    expected = {(a, b): 400 * shares[a] * shares[b] for a in shares for b in shares}
    assert sum((tosses[cell] - n) ** 2 / n for cell, n in expected.items()) < 26.1


def test_a_row_taken_out_moves_few_of_its_label_and_none_of_others() -> None:
    """What the module's text states: one in eight, and five in six of those tested stay so."""
    moved, followers, kept, tested = 0, 0, 0, 0
    for seed in range(60):
        members = labelled(300, ["yes", "no"], seed)
        gone = members[seed % 20]
        before, after = (
            side_by_line(split_examples(some, validation=0.1, test=0.3, seed=seed))
            for some in (members, [e for e in members if e is not gone])
        )
        for e in members:
            if e.answer != gone.answer:
                assert before[e.line] == after[e.line]
            elif e is not gone:
                followers += 1
                moved += before[e.line] != after[e.line]
                tested += before[e.line] == "test"
                kept += before[e.line] == after[e.line] == "test"
    assert 0.09 < moved / followers < 0.15
    assert 0.8 < kept / tested < 0.88


def test_what_joins_two_groups_moves_the_later_one_alone() -> None:
    """Balances count what was new when it was read, so a bridge read later shifts nobody else."""
    members = labelled(200, ["yes", "no"])
    bridge = example("bridge", number=500, answer="yes")
    for seed in range(10):
        before = side_by_line(split(members, seed=seed))
        after = side_by_line(split([*members, bridge], seed=seed, clusters=[(10, 50, 200)]))
        assert {line for line, side in before.items() if after[line] != side} <= {51}
        assert after[51] == after[11] == before[11] == after[501]


# --- in a run ---------------------------------------------------------------------------------------


def divided(
    folder: Path, rows: list[dict[str, str]], split: dict[str, object] | None = None
) -> dict[str, str]:
    """The side of every request after the split stage of a run on one file."""
    folder.mkdir()
    write_jsonl(folder / "data.jsonl", rows)
    raw = {"model": "m", "data": "data.jsonl", "split": {"validation": 0.1, "test": 0.3, **(split or {})}}
    recipe = parse_recipe(raw, base=folder)
    record = Record(folder / "run")
    write_split(record, recipe, Sources(recipe.data))
    return {e.input: side for side, own in read_split(record).sides().items() for e in own}


def rows(n: int, prefix: str, labels: list[str]) -> list[dict[str, str]]:
    chance = random.Random(prefix)
    words = ["kettle", "lamp", "chair", "boat", "tent", "drum", "glove", "piano", "river", "stone"]
    return [
        {"text": f"{prefix} {i} {' '.join(chance.sample(words, 6))} {chance.random()}", "label": label}
        for i, label in enumerate(chance.choices(labels, k=n))
    ]


def test_a_run_again_with_more_data_keeps_every_example_on_its_side(tmp_path: Path) -> None:
    old = rows(80, "old", ["late", "broken", "other thing"])
    more = [*rows(60, "new", ["late", "broken", "never seen"]), *old[:5]]
    before = divided(tmp_path / "before", old)
    after = divided(tmp_path / "after", [*old, *more])
    assert len(before) == 80
    assert {text: after[text] for text in before} == before
    assert set(after.values()) == {"train", "validation", "test"}
    assert before == divided(tmp_path / "again", old)


def test_a_column_of_the_users_own_keeps_its_rows_together(tmp_path: Path) -> None:
    members = rows(120, "case", ["late", "broken"])
    for number, row in enumerate(members):
        row["customer"] = f"c{number % 30}"
    members[0]["customer"] = ""
    apart = divided(tmp_path / "apart", members)
    together = divided(tmp_path / "together", members, {"group": "customer"})

    def torn(sides: dict[str, str]) -> int:
        own: dict[str, set[str]] = {}
        for row in members[1:]:
            own.setdefault(row["customer"], set()).add(sides[row["text"]])
        return sum(len(found) > 1 for found in own.values())

    assert torn(apart) > 10
    assert torn(together) == 0
    with pytest.raises(DataError, match=r"no column 'client' to group by.*: customer") as caught:
        divided(tmp_path / "wrong", members, {"group": "client"})
    assert "split.group" in (caught.value.fix or "")
