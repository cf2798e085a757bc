"""A split never parts a group, never moves an example when others are added, and can be repeated."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from luthier.errors import DataError
from luthier.examples import Example, Message, Split, split_examples
from luthier.examples.duplicates import find_near_duplicates
from luthier.examples.wording import request_text


def example(text: str, *, number: int = 0, group: str | None = None, answer: str = "yes") -> Example:
    messages = (Message("user", text), Message("assistant", answer))
    return Example(f"{text}-{number}", messages, "data.jsonl", number + 1, group)


def examples(n: int, prefix: str = "question", start: int = 0) -> list[Example]:
    return [example(f"{prefix} {i}", number=i) for i in range(start, start + n)]


def split(members: list[Example], *, seed: int = 0, clusters: list[tuple[int, ...]] | None = None) -> Split:
    return split_examples(members, validation=0.2, test=0.3, seed=seed, near_duplicates=clusters or ())


def side_by_line(result: Split) -> dict[int, str]:
    return {e.line: name for name, side in result.sides().items() for e in side}


drawn = st.lists(
    st.tuples(st.integers(0, 60), st.none() | st.sampled_from("ABCDEFGH")), min_size=70, max_size=120
).map(lambda rows: [example(f"text {t}", number=n, group=g) for n, (t, g) in enumerate(rows)])


@settings(max_examples=50, deadline=None)
@given(drawn, st.integers(0, 5), st.lists(st.lists(st.integers(0, 69), min_size=2, max_size=4), max_size=3))
def test_sides_are_disjoint_complete_and_keep_groups_whole(
    members: list[Example], seed: int, clusters: list[list[int]]
) -> None:
    try:
        result = split_examples(members, validation=0.2, test=0.3, seed=seed, near_duplicates=clusters)
    except DataError:
        assume(False)
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
)
def test_added_examples_move_nothing(old: list[int], new: list[tuple[int, str | None]], seed: int) -> None:
    """Whatever comes after: other requests, copies of old ones, and near-duplicates of old ones."""
    before = [example(f"text {t}", number=n) for n, t in enumerate(old)]
    fresh = [(t, None if t in old else g) for t, g in new]  # a group that joins old examples is the exception
    after = before + [example(f"text {t}", number=len(old) + n, group=g) for n, (t, g) in enumerate(fresh)]
    clusters = [
        (m, len(old) + m) for m in range(len(new)) if fresh[m] == (fresh[m][0], None) and new[m][0] not in old
    ]
    clusters = clusters if len({t for t, _ in new}) == len(new) else []
    try:
        first, second = split(before, seed=seed), split(after, seed=seed, clusters=clusters)
    except DataError:
        assume(False)
    sides = side_by_line(second)
    assert all(sides[line] == side for line, side in side_by_line(first).items())


def test_inserting_and_shuffling_unrelated_examples_moves_nothing() -> None:
    members = examples(100)
    sides = side_by_line(split(members))
    mixed = [*examples(20, "other", 500), *reversed(members)]
    again = side_by_line(split(mixed))
    assert all(again[line] == side for line, side in sides.items())


def test_the_seed_decides() -> None:
    members = examples(200)
    assert split(members, seed=1) == split(members, seed=1)
    assert split(members, seed=1) != split(members, seed=2)


def test_shares_hold_up_to_chance() -> None:
    result = split_examples(examples(4000), validation=0.1, test=0.3, seed=0)
    # Four standard deviations of a binomial: 4 * sqrt(4000 * 0.3 * 0.7) = 116, and 76 for 0.1.
    assert abs(len(result.test) - 1200) < 116
    assert abs(len(result.validation) - 400) < 76


def test_another_share_of_one_side_leaves_the_other_alone() -> None:
    members = examples(300)
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
    members = examples(30)
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
