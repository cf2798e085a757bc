"""Labels that training did not come to believe: found where planted, none in clean data, none by a guess."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.audit.finding import NotApplicableError
from luthier.audit.loss_history import LEAST_EXAMPLES, LEAST_PER_LABEL, Reading, read_history
from luthier.examples.example import Example, Message

STEP_ROWS = 10  # examples of a step
LEARNT = -math.log(0.95)  # loss of an answer that the model believes


def example(line: int, answer: str, *before: Message) -> Example:
    said = (*before, Message("user", f"request {line}"), Message("assistant", answer))
    return Example(f"e{line}", said, "tickets.jsonl", line)


def examples(n: int = 80, labels: tuple[str, ...] = ("no", "yes")) -> list[Example]:
    return [example(line, labels[line % len(labels)]) for line in range(1, n + 1)]


def history(
    rows: list[Example],
    chances: dict[int, tuple[float, ...]] | None = None,
    *,
    epochs: int = 3,
    first: float = LEARNT,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Lines of `losses.jsonl`: every answer is believed but for the given ones, two tokens each.

    Args:
        chances: the probability of an answer in each epoch, by line.
        first: loss of all in the first epoch, per answer.
    """
    lines: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        order = list(rows)
        random.Random(f"{seed}/{epoch}").shuffle(order)
        for one in order:
            own = (chances or {}).get(one.line)
            loss = -math.log(own[epoch - 1]) if own else first if epoch == 1 else LEARNT
            lines.append(
                {
                    "epoch": epoch,
                    "step": 1 + len(lines) // STEP_ROWS,
                    "where": one.where,
                    "loss": loss / 2,
                    "tokens": 2,
                }
            )
    return lines


def lines_of(reading: Reading) -> list[int]:
    return [one.example.line for one in reading.doubtful]


def test_an_answer_that_is_never_believed_is_doubtful_and_the_others_are_not() -> None:
    rows = examples()
    found = read_history(rows, history(rows, {7: (0.2, 0.2, 0.1), 30: (0.01, 0.02, 0.1)}))
    assert (found.judged, found.labels, found.first_step) == (80, 2, 1)
    assert lines_of(found) == [30, 7], "the most surprising first"
    # half of the answers are like this one: (log 2.5 + log 2.5 + log 5) / 3
    assert found.doubtful[1].surprise == pytest.approx((2 * math.log(2.5) + math.log(5)) / 3)
    assert found.doubtful[1].losses == pytest.approx([math.log(5), math.log(5), math.log(10)], abs=1e-4)
    assert found.doubtful[1].usual == pytest.approx([LEARNT] * 3, abs=1e-4)


def test_clean_data_is_quiet() -> None:
    assert lines_of(read_history(examples(), history(examples()))) == []


@pytest.mark.parametrize(
    ("chances", "doubtful"),
    [
        ((0.2, 0.2, 0.2), True),
        ((0.24, 0.24, 0.24), True),  # less than half of its share, which is a half
        ((0.26, 0.26, 0.26), False),
        ((0.01, 0.01, 0.9), False),  # it learnt that one later than the others
        ((0.6, 0.6, 0.2), True),  # 1.2 x 1.2 x 0.4 is less than 1
        ((0.95, 0.95, 0.2), False),  # 1.9 x 1.9 x 0.4 is more: on the whole it was believed
    ],
)
def test_it_must_be_so_on_the_whole_and_at_last(chances: tuple[float, ...], doubtful: bool) -> None:
    rows = examples()
    assert lines_of(read_history(rows, history(rows, {7: chances}))) == [7] * doubtful


def test_a_rare_label_needs_less_belief_than_a_frequent_one() -> None:
    """Of 100 answers 10 are `rare`: one of a probability of 0.2 is believed more than its share."""
    rows = [example(line, "rare" if line <= 10 else "usual") for line in range(1, 101)]
    lines = history(rows, {1: (0.2,) * 3, 2: (0.04,) * 3, 50: (0.2,) * 3, 51: (0.5,) * 3})
    assert sorted(lines_of(read_history(rows, lines))) == [2, 50]


def test_what_was_before_the_labels_were_learnt_does_not_count() -> None:
    """In the first epoch every answer is found unlikely; one goes on so, one is learnt with the others."""
    rows = examples(100)
    found = read_history(rows, history(rows, {7: (0.9, 0.1, 0.1)}, first=4.0))
    assert found.first_step == 11, "the first of the second epoch"
    assert lines_of(found) == [7]


def test_once_is_too_little() -> None:
    rows = examples(100)
    told = r"once the labels were learnt \(step 11\), training saw no example 2 times"
    with pytest.raises(NotApplicableError, match=told):
        read_history(rows, history(rows, epochs=2, first=4.0))
    with pytest.raises(NotApplicableError, match=r"\(step 1\), training saw no example 2 times"):
        read_history(rows, history(rows, epochs=1))


def test_an_example_that_was_seen_less_often_than_the_others_is_not_judged_by_that() -> None:
    rows = examples()
    lines = history(rows, {7: (0.1,) * 3, 8: (0.1,) * 3})
    lines = [line for line in lines if line["where"] != rows[6].where or line["epoch"] == 3]
    assert lines_of(read_history(rows, lines)) == [8]


def test_a_model_that_only_guesses_is_not_asked() -> None:
    rows = examples()
    guessing = {one.line: (0.49,) * 3 for one in rows} | {7: (0.01,) * 3}
    with pytest.raises(NotApplicableError, match="did not come to know the labels"):
        read_history(rows, history(rows, guessing))


def test_without_labels_or_history_it_says_so() -> None:
    texts = [example(line, f"answer number {line}") for line in range(1, 101)]
    with pytest.raises(NotApplicableError, match="0 training examples have an answer that 10 or more give"):
        read_history(texts, history(texts))
    few = examples(LEAST_EXAMPLES - 2)
    with pytest.raises(NotApplicableError, match="it takes 50 examples and two labels"):
        read_history(few, history(few))
    alike = examples(labels=("yes",))
    with pytest.raises(NotApplicableError, match="of 1 kinds"):
        read_history(alike, history(alike))
    with pytest.raises(NotApplicableError, match="kept no losses"):
        read_history(examples(), [])


def test_only_labels_that_others_have_too_are_judged() -> None:
    rows = [*examples(), *(example(line, "odd") for line in range(81, 80 + LEAST_PER_LABEL))]
    lines = history(rows, {85: (0.001,) * 3})
    found = read_history(rows, lines)
    assert (found.judged, found.labels) == (80, 2)
    assert lines_of(found) == []


def test_labels_are_compared_as_the_checks_compare_them() -> None:
    rows = examples(labels=("No.", "yes"))
    rows[1] = example(2, " no ")
    assert read_history(rows, history(rows)).labels == 2


def test_what_says_more_than_its_label_is_not_judged() -> None:
    """A loss over two turns of the assistant is not that of the label; a turn of weight 0 has none."""
    rows = examples()
    rows[6] = example(7, "yes", Message("user", "hello"), Message("assistant", "good morning"))
    rows[8] = example(9, "yes", Message("user", "hello"), Message("assistant", "good morning", weight=0))
    found = read_history(rows, history(rows, {7: (0.01,) * 3, 9: (0.01,) * 3}))
    assert lines_of(found) == [9]
    twice = [*examples(), example(7, "no")]  # two rows of one line: whose loss it is, nobody can tell
    assert lines_of(read_history(twice, history(examples(), {7: (0.01,) * 3}))) == []


def test_what_is_seen_twice_in_an_epoch_counts_twice() -> None:
    rows = examples()
    lines = history(rows, {7: (0.1, 0.1, 0.1)})
    again = [{**line, "loss": 2 * line["loss"]} for line in lines if line["where"] == rows[6].where]
    found = read_history(rows, sorted([*lines, *again], key=lambda line: line["step"]))
    assert lines_of(found) == [7]
    assert found.doubtful[0].losses == pytest.approx([1.5 * math.log(10)] * 3, abs=1e-4)
    assert found.doubtful[0].surprise == pytest.approx(1.5 * math.log(10) - math.log(2))


def test_the_finding_says_what_and_where() -> None:
    rows = examples()
    (one,) = read_history(rows, history(rows, {7: (0.1, 0.2, 0.125)})).doubtful
    finding = one.as_finding().as_json()
    assert finding["examples"] == [{"file": "tickets.jsonl", "line": 7}]
    assert finding["check"] == "loss_history"
    assert finding["message"] == "labelled 'yes', which training did not believe: 12.5% at last"
    assert finding["score"] == pytest.approx(one.surprise, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    chances=st.dictionaries(st.integers(1, 60), st.tuples(*[st.floats(0.001, 0.999)] * 3), max_size=20),
    seed=st.integers(0, 5),
)
def test_the_order_of_the_examples_and_the_rows_of_others_change_nothing(
    chances: dict[int, tuple[float, ...]], seed: int
) -> None:
    rows = examples(60)
    lines = history(rows, chances)
    expected = read_history(rows, lines)
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    others = [{**line, "where": f"replay {n}", "loss": 9.0} for n, line in enumerate(lines)]
    mixed = [line for pair in zip(lines, others, strict=True) for line in pair]
    found = read_history(shuffled, mixed)
    assert {o.example.line: (o.losses, o.usual) for o in found.doubtful} == {
        o.example.line: (o.losses, o.usual) for o in expected.doubtful
    }
    assert [o.surprise for o in found.doubtful] == sorted((o.surprise for o in found.doubtful), reverse=True)
    assert all(chances[o.example.line][-1] < 0.25 for o in found.doubtful)
