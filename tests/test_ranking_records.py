"""What raters type, the lines it is kept on, what they are asked next, and prompts as files bring them."""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import filelock
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rankings import id_of, judged, question

from luthier.errors import DataError, RecipeError, RecordError
from luthier.ranking import journal
from luthier.ranking.journal import append_line, read_lines
from luthier.ranking.judgements import (
    Judgement,
    add_judgement,
    of_rater,
    read_judgements,
    undo_judgement,
)
from luthier.ranking.kept import (
    Kept,
    Settings,
    Wanted,
    keep_question,
    keep_settings,
    read_kept,
    settle,
)
from luthier.ranking.opinions import closed, compare, stated
from luthier.ranking.questions import askable, read_prompts, request_id
from luthier.ranking.tasks import Task, open_tasks, plan_tasks
from luthier.ranking.typed import parse_pair, parse_ranks

# --- what is typed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "order"),
    [
        ("2 1 3", ((1,), (0,), (2,))),
        ("2, 1; 3", ((1,), (0,), (2,))),
        ("2 > 1 > 3", ((1,), (0,), (2,))),
        ("2=1 3", ((0, 1), (2,))),
        ("3 2 = 1", ((2,), (0, 1))),
        ("1=2=3", ((0, 1, 2),)),
        ("2", ((1,),)),
    ],
)
def test_ranks(typed: str, order: Any) -> None:
    assert parse_ranks(typed, 3) == order


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("", "nothing was typed"),
        ("2 1", "3 left out: name every answer, or the best alone"),
        ("2=1", "3 left out"),
        ("4 1 2", "there is no answer 4: they are 1 to 3"),
        ("0 1 2", "there is no answer 0"),
        ("1 1 2", "answer 1 is named twice"),
        ("1=1 2 3", "answer 1 is named twice"),
        ("=1 2 3", "there is no number before '='"),
        ("1 == 2 3", "there is no number before '='"),
        ("1 2 3 =", "there is no number at the end"),
        ("1 > 2 >", "there is no number at the end"),
        ("b a c", "'b' is not the number of an answer"),
        ("1-2-3", "'-' is not the number"),
        ("213", "there is no answer 213"),
        ("²", "'²' is not the number"),
    ],
)
def test_ranks_that_make_no_sense_are_explained(typed: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        parse_ranks(typed, 3)


def test_pairs() -> None:
    assert [parse_pair(typed) for typed in "ab="] == [((0,), (1,)), ((1,), (0,)), ((0, 1),)]
    for typed in ("", "c", "1", "a b"):
        with pytest.raises(ValueError, match="none of a, b, =" if typed else "nothing was typed"):
            parse_pair(typed)


@given(st.permutations(range(5)), st.lists(st.booleans(), min_size=4, max_size=4))
def test_what_is_written_out_is_read_again(places: list[int], ties: list[bool]) -> None:
    levels = [[places[0]]]
    for place, tied in zip(places[1:], ties, strict=True):
        levels[-1].append(place) if tied else levels.append([place])
    typed = " ".join("=".join(str(place + 1) for place in level) for level in levels)
    assert parse_ranks(typed, 5) == tuple(tuple(sorted(level)) for level in levels)


# --- the lines --------------------------------------------------------------------------------------

LINES = [{"n": 1, "text": "ä\u2028b"}, {"n": 2}, {"n": 3, "deep": {"a": [1]}}]


def test_a_line_that_was_cut_off_anywhere_is_healed(tmp_path: Path) -> None:
    whole = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in LINES).encode()
    ends = list(itertools.accumulate(len(line) + 1 for line in whole.split(b"\n")[:-1]))
    path = tmp_path / "lines.jsonl"
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        left = sum(cut >= end - 1 for end in ends)  # without its newline a line is whole too
        assert [row for _, row in read_lines(path)] == LINES[:left]
        assert path.read_bytes() == whole[:cut]  # reading repairs nothing
        append_line(path, {"n": 4})
        assert [row for _, row in read_lines(path)] == [*LINES[:left], {"n": 4}]
        assert path.read_bytes().endswith(b'}\n{"n": 4}\n' if left else b'{"n": 4}\n')


def test_a_broken_line_elsewhere_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"n": 1}\n\n{"n": \n{"n": 2}\n', encoding="utf-8")
    with pytest.raises(RecordError, match=r"lines\.jsonl:3: is not a JSON object"):
        read_lines(path)
    path.write_text('[1]\n{"n": 2}\n', encoding="utf-8")
    with pytest.raises(RecordError, match=r"lines\.jsonl:1"):
        read_lines(path)
    with pytest.raises(RecordError, match="cannot be read"):
        read_lines(tmp_path)
    assert read_lines(tmp_path / "none.jsonl") == []


def test_every_judgement_is_on_the_disk_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "judgements.jsonl"
    synced: list[int] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        real(handle)
        if os.path.samestat(os.fstat(handle), path.stat()):  # the file itself, not its folder
            synced.append(path.read_bytes().count(b"\n"))

    monkeypatch.setattr(os, "fsync", fsync)
    for typed in ("1 2 3", "s", "3"):
        add_judgement(path, judged(question(), typed))
    assert synced == [1, 2, 3]


def test_several_processes_may_write(tmp_path: Path) -> None:
    path = tmp_path / "judgements.jsonl"
    threads = [
        threading.Thread(target=lambda rater=rater: [append_line(path, {"r": rater}) for _ in range(8)])
        for rater in "abc"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(row["r"] for _, row in read_lines(path)) == dict.fromkeys("abc", 8)


def test_a_file_that_another_process_holds_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "judgements.jsonl"
    monkeypatch.setattr(journal, "PATIENCE_SECONDS", 0.05)
    with (
        filelock.FileLock(journal.lock_of(path)),
        pytest.raises(RecordError, match="another process holds the file"),
    ):
        append_line(path, {"n": 1})
    append_line(path, {"n": 1})
    assert len(read_lines(path)) == 1


def test_a_judgement_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "judgements.jsonl"
    for typed in ("3=1 2", "2", "s"):
        add_judgement(path, judged(question(), typed, shown="CAB"))
    rows = [row for _, row in read_lines(path)]
    assert [row["said"] for row in rows] == ["ranked", "best", "skipped"]
    a, b, c = map(id_of, "ABC")
    assert rows[0] == {
        "question": question().key,
        "rater": "anna",
        "round": 1,
        "said": "ranked",
        "order": [[c, b], [a]],
        "shown": [c, a, b],
        "typed": "3=1 2",
        "at": "2026-01-01T00:00:00+00:00",
        "seconds": 1.5,
        "seed": 0,
        "model": None,
    }
    assert [row["order"] for row in rows[1:]] == [[[a]], []]
    assert read_judgements(path) == [judged(question(), typed, shown="CAB") for typed in ("3=1 2", "2", "s")]


def test_undo_takes_back_the_last_word_of_that_rater_alone(tmp_path: Path) -> None:
    path = tmp_path / "judgements.jsonl"
    said = [judged(question(p), "1 2 3", rater) for p, rater in (("x", "anna"), ("y", "anna"), ("x", "ben"))]
    for one in said:
        add_judgement(path, one)
    undo_judgement(path, said[1], at="now")
    assert read_judgements(path) == [said[0], said[2]]
    undo_judgement(path, said[0], at="now")
    undo_judgement(path, said[0], at="now")  # nothing of hers is left
    assert read_judgements(path) == [said[2]]
    assert of_rater(said, "anna") == said[:2]
    assert len(read_lines(path)) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"order": [["elsewhere"]]},
        {"order": [[id_of("A")], [id_of("A")]]},
        {"round": 3},
        {"shown": None},
        {"seconds": "long"},
    ],
)
def test_a_line_that_is_no_judgement_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "judgements.jsonl"
    add_judgement(path, judged(question(), "1 2 3"))
    append_line(path, judged(question(), "1 2 3").as_row() | change)
    with pytest.raises(RecordError, match=r"judgements\.jsonl:2: is no judgement") as caught:
        read_judgements(path)
    assert caught.value.fix
    path.write_text('{"prompt": "Where?"}\n', encoding="utf-8")
    with pytest.raises(RecordError, match=r"judgements\.jsonl:1: is no judgement"):
        read_judgements(path)


# --- what follows from what was said ----------------------------------------------------------------


def test_all_that_follows_is_taken_as_said() -> None:
    about = question(answers="ABCD")
    a, b, c, d = map(id_of, "ABCD")
    said = [judged(about, "a", shown="AB"), judged(about, "=", shown="BC"), judged(about, "b", shown="DC")]
    before, after = stated(said), closed(stated(said))
    assert [compare(before, x, y) for x, y in ((a, b), (b, c), (c, d), (a, c))] == [1, 0, 1, None]
    pairs = ((a, b), (a, c), (a, d), (b, c), (b, d), (c, d))
    assert [compare(after, x, y) for x, y in pairs] == [1, 1, 1, 0, 1, 1]
    assert [compare(after, y, x) for x, y in pairs] == [-1, -1, -1, 0, -1, -1]
    valley = closed(stated([judged(about, "a", shown="AB"), judged(about, "b", shown="BC")]))
    assert compare(valley, a, c) is None  # both are better than B: that says nothing of them


def test_the_best_alone_says_nothing_of_the_others() -> None:
    a, b, c = map(id_of, "ABC")
    opinion = closed(stated([judged(question(), "2")]))
    assert [compare(opinion, x, y) for x, y in ((b, a), (b, c), (a, c))] == [1, 1, None]
    assert stated([judged(question(), "s")]) == frozenset()


def test_the_later_word_counts() -> None:
    a, b, c = map(id_of, "ABC")
    said = [judged(question(), "1 2 3"), judged(question(), "3", shown="ABC")]
    opinion = stated(said)
    assert [compare(opinion, x, y) for x, y in ((a, b), (c, a))] == [None, 1]
    tie = stated([judged(question(), "a", shown="AB"), judged(question(), "=", shown="AB")])
    assert compare(tie, a, b) == 0
    ring = [judged(question(), "a", shown=pair) for pair in ("AB", "BC", "CA")]
    assert [compare(closed(stated(ring)), x, y) for x, y in ((b, c), (c, a), (b, a))] == [1, 1, 1]


# --- what is asked ----------------------------------------------------------------------------------

MANY = [question(f"Where is {i}?") for i in range(400)]


def asked(questions: Any, own: Any = (), **options: Any) -> list[Task]:
    return plan_tasks(questions, own, **({"rater": "anna", "seed": 0} | options))


def test_no_answer_has_a_place_of_its_own() -> None:
    tasks = asked(MANY)
    assert [task.question for task in tasks] == MANY  # prompts in their order, answers not
    for place in range(3):
        counts = Counter(task.shown[place] for task in tasks)
        assert all(abs(count - 400 / 3) < 38 for count in counts.values())  # four standard errors
    assert all(set(task.shown) == set(task.question.by_id) for task in tasks)
    turned = asked([question(f"Where is {i}?", "CAB") for i in range(400)])
    assert [task.shown for task in turned] == [task.shown for task in tasks]  # whatever the file's order
    ben, again = asked(MANY, rater="ben"), asked(MANY, seed=1)
    for other in (ben, again):
        same = sum(one.shown == two.shown for one, two in zip(tasks, other, strict=True))
        assert 30 < same < 105  # 400 / 6 by chance


def test_pairs_are_the_same_for_all_raters_and_their_sides_are_not() -> None:
    four = [question(f"Where is {i}?", "ABCD") for i in range(200)]
    anna, ben = asked(four, pairwise=True), asked(four, pairwise=True, rater="ben")
    assert len(anna) == 3 * len(four)
    assert [set(task.shown) for task in anna] == [set(task.shown) for task in ben]
    same = sum(one.shown == two.shown for one, two in zip(anna, ben, strict=True))
    assert 250 < same < 350
    for start in range(0, len(anna), 3):
        first, second, third = (set(task.shown) for task in anna[start : start + 3])
        assert len(first & second) == len(second & third) == 1 and not first & third
        assert len(first | second | third) == 4
    rows = Counter(frozenset(task.shown) for task in anna)
    assert len(rows) == 6 and min(rows.values()) > 60  # every pair has its turn: 100 each


def test_what_was_judged_is_not_asked_again() -> None:
    x, y = question("x"), question("y")
    own = [judged(x, "1 2 3")]
    assert [task.question for task in open_tasks(asked([x, y]), own)] == [y]
    assert [task.question for task in open_tasks(asked([x, y], pairwise=True), own)] == [y, y]
    skipped = [judged(x, "s"), judged(y, "a", shown="AB")]
    assert [task.question for task in open_tasks(asked([x, y]), skipped)] == [y]
    changed = question("x", "ABD")
    assert open_tasks(asked([changed]), own) == asked([changed])  # other answers, another question


def test_some_prompts_come_again_at_the_end() -> None:
    few = MANY[:20]
    own = [judged(one, "1 2 3") for one in few]
    tasks = asked(few, repeat=0.25)
    assert [task.round for task in tasks] == [1] * 20 + [2] * 5
    again = open_tasks(tasks, own)
    assert [task.round for task in again] == [2] * 5
    first = {task.question.key: task.shown for task in tasks[:20]}
    assert sum(first[task.question.key] != task.shown for task in again) >= 3  # shuffled anew
    assert {t.question.key for t in asked(few, repeat=0.25, rater="ben")[20:]} != {
        t.question.key for t in again
    }
    done = [*own, judged(again[0].question, "1 2 3", round_=2)]
    assert open_tasks(asked(few, done, repeat=0.25), done) == again[1:]
    without = [judged(one, "s" if one == again[0].question else "1 2 3") for one in few]
    assert open_tasks(asked(few, without, repeat=0.25), without) == again[1:]
    assert len(asked(few, repeat=0.0)) == 20 and len(asked(few, pairwise=True, repeat=1)) == 80


# --- prompts ----------------------------------------------------------------------------------------


def prompts(folder: Path, *rows: Any) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_prompts_with_answers(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    chat += [{"role": "user", "content": "Where?"}]
    path = prompts(
        tmp_path,
        {"prompt": "Where?", "answers": ["A", "B", "A"], "group": "g"},
        {"prompt": chat, "system": "Be kind.", "answers": ["A", "B"]},
        {"messages": chat, "answers": ["A", "A"]},
        {"Prompt": "Where?", "Answers": ["B", "A"]},
    )
    one, two, three, four = read_prompts(path)
    assert ([answer.text for answer in one.answers], one.group) == (["A", "B"], "g")
    assert one.where == f"{path}:1"
    assert [message.role for message in two.messages] == ["system", "user", "assistant", "user"]
    assert askable([one, two, three, four]) == [four, two]  # one and four are the same question
    assert one.key == four.key != two.key
    assert request_id(one.messages) == request_id(four.messages)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"answers": ["A"]}, r"no prompt \(found answers\)"),
        ({"prompt": "", "answers": ["A"]}, "no prompt"),
        ({"prompt": " ", "answers": ["A"]}, "does not end with words of the user"),
        ({"prompt": [{"role": "assistant", "content": "x"}]}, "does not end with words of the user"),
        ({"prompt": "q", "answers": "A"}, "answers is not a list"),
        ({"prompt": "q", "answers": ["A", " "]}, r"answers\[1\] is empty"),
        ({"prompt": "q", "answers": ["A", 3]}, r"answers\[1\] is not text"),
        (["q"], "is a list, expected a JSON object"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_named(tmp_path: Path, row: Any, says: str) -> None:
    path = prompts(tmp_path, {"prompt": "q", "answers": ["A", "B"]}, row)
    with pytest.raises(DataError, match=says) as caught:
        read_prompts(path)
    assert caught.value.where == f"{path}:2" and caught.value.fix


# --- kept answers -----------------------------------------------------------------------------------


def test_kept_answers_come_back(tmp_path: Path) -> None:
    path = tmp_path / "j.answers.jsonl"
    assert read_kept(path) == Kept()
    keep_settings(path, Settings(3, 5, 0.7, 1), {"model": "m", "base": "x", "adapter": None})
    about = question("Where?", "AB", "g")
    keep_question(path, "r1", about)
    keep_settings(path, Settings(3, 9, 0.7, 1), {"model": "m", "base": "x", "adapter": None})
    kept = read_kept(path)
    assert (kept.settings, kept.writer["model"]) == (Settings(3, 9, 0.7, 1), "m")
    assert dict(kept.questions) == {"r1": about} and kept.questions["r1"].key == about.key
    append_line(path, {"prompt": "Where?"})
    with pytest.raises(RecordError, match=r"answers\.jsonl:4: holds no sampled answers"):
        read_kept(path)


def test_settings_are_those_of_what_is_kept(tmp_path: Path) -> None:
    kept = Kept(Settings(3, 5, 0.7, 1))
    assert settle(Wanted(), Kept(), tmp_path) == Settings(4, 50, 1.0, 0)
    assert settle(Wanted(2, 7, 0.5, 3, "m"), Kept(), tmp_path) == Settings(2, 7, 0.5, 3)
    assert settle(Wanted(), kept, tmp_path) == kept.settings
    assert settle(Wanted(answers=3, limit=9, model="m"), kept, tmp_path) == Settings(3, 9, 0.7, 1)
    for wanted, says in (
        (Wanted(answers=4), "answers 3, not 4"),
        (Wanted(temperature=1.0), "temperature 0.7, not 1"),
        (Wanted(seed=0), "seed 1, not 0"),
    ):
        with pytest.raises(RecipeError, match=says):
            settle(wanted, kept, tmp_path)


def test_a_judgement_of_a_rater_is_a_value() -> None:
    one = judged(question(), "1 2 3")
    assert Judgement.from_row(json.loads(json.dumps(one.as_row()))) == one
