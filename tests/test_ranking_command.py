"""`luthier rank` as it is typed: prompts with answers, and answers sampled from a tiny model's runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from chat_tokenizers import byte_level
from typer.testing import CliRunner, Result

import luthier
from luthier.chat import ChatFormat
from luthier.cli.main import app
from luthier.cli.screen import console
from luthier.examples import read_examples
from luthier.methods import DPO
from luthier.pipeline import Run, sampling, writers
from luthier.ranking.questions import Offered

Rank = Callable[..., Result]
COLOURS = ("red", "green", "blue")


@pytest.fixture
def rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rank:
    """The command in an empty folder; the first argument is what is typed, a line each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_width", 100)

    def call(typed: str, *arguments: object) -> Result:
        lines = typed.replace("|", "\n") + "\n" * bool(typed)
        result = CliRunner().invoke(app, ["rank", *map(str, arguments)], input=lines)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Five prompts with three answers each."""
    rows = [{"prompt": f"Colour {i}?", "answers": [f"{c} {i}" for c in COLOURS]} for i in range(5)]
    return write(tmp_path / "colours.jsonl", rows)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path | str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def refused(result: Result, code: int, *told: str) -> None:
    assert result.exit_code == code, result.output
    for text in told:
        assert text in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 3 and "Traceback" not in result.output


# --- prompts with answers ---------------------------------------------------------------------------


def test_a_session_that_is_stopped_goes_on_where_it_was(rank: Rank, colours: Path) -> None:
    first = rank("2 1 3|1=2 3|q", colours, "--rater", "anna", "--repeat", 0)
    assert first.exit_code == 0
    assert "5 prompts, 5 of 5 questions left for anna: judgements.jsonl" in first.stdout
    assert "1 of 5" in first.stdout and "3 of 5" in first.stdout and "4 of 5" not in first.stdout
    assert "3 preferences from 2 prompts, 0 undecided: judgements.preferences.jsonl" in first.stdout
    said = read("judgements.jsonl")
    assert [(row["said"], row["typed"], row["rater"], row["round"]) for row in said] == [
        ("ranked", "2 1 3", "anna", 1),
        ("ranked", "1=2 3", "anna", 1),
    ]
    for row, places in zip(said, ([[1], [0], [2]], [[0, 1], [2]]), strict=True):
        expected = [sorted(row["shown"][place] for place in level) for level in places]
        assert [sorted(level) for level in row["order"]] == expected
    again = rank("3|s|1 2 3", colours, "--rater", "anna", "--repeat", 0)
    assert "3 of 5 questions left for anna" in again.stdout
    assert [row["said"] for row in read("judgements.jsonl")] == [*["ranked"] * 2, "best", "skipped", "ranked"]
    assert "0 of 5 questions left" in rank("", colours, "--rater", "anna", "--repeat", 0).stdout
    assert len(read("judgements.jsonl")) == 5
    assert "5 of 5 questions left for ben" in rank("", colours, "--rater", "ben", "--repeat", 0).stdout


def test_answers_are_shown_as_they_are_kept(rank: Rank, colours: Path) -> None:
    shown = rank("q", colours, "--rater", "anna").stdout
    assert "Colour 0?" in shown and "2=1 3: a tie" in shown
    order = [re.search(rf"{colour} 0", shown).start() for colour in COLOURS]  # type: ignore[union-attr]
    rank("1 2 3", colours, "--rater", "anna")
    (said,) = read("judgements.jsonl")
    by_place = [colour for _, colour in sorted(zip(order, COLOURS, strict=True))]
    assert said["shown"] == [Offered(f"{colour} 0").id for colour in by_place]


def test_undo_takes_the_last_word_back_and_asks_again(rank: Rank, colours: Path) -> None:
    result = rank("1 2 3|u|3 2 1|u|u|u|2 1 3|q", colours, "--rater", "anna")
    assert result.stdout.count("Undone: ") == 2
    assert result.stdout.count("There is nothing to undo.") == 2
    rows = read("judgements.jsonl")
    assert [row["said"] for row in rows] == ["ranked", "undo", "ranked", "undo", "ranked"]
    assert len({row["question"] for row in rows}) == 1
    (pair,) = read("judgements.preferences.jsonl")
    shown = rows[-1]["shown"]
    texts = [pair["chosen"], *pair["rejected"]]
    assert [Offered(text).id for text in texts] == [shown[1], shown[0], shown[2]]
    rank("u|q", colours, "--rater", "anna")  # what was said in an earlier session
    assert read("judgements.preferences.jsonl") == []


def test_what_makes_no_sense_is_asked_again(rank: Rank, colours: Path) -> None:
    result = rank("2 1||hello|1 1 2|4| 2  1 3 |q", colours, "--rater", "anna")
    for said in ("3 left out: name every answer", "nothing was typed", "'h' is not the number"):
        assert said in result.stdout
    assert "named twice" in result.stdout and "there is no answer 4" in result.stdout
    assert [row["typed"] for row in read("judgements.jsonl")] == ["2  1 3"]


def test_a_cut_off_line_is_healed(rank: Rank, colours: Path) -> None:
    rank("1 2 3|1 2 3|q", colours, "--rater", "anna")
    path = Path("judgements.jsonl")
    path.write_bytes(path.read_bytes()[:-40])
    result = rank("3 2 1|q", colours, "--rater", "anna", "--repeat", 0)
    assert "4 of 5 questions left" in result.stdout
    assert [row["typed"] for row in read(path)] == ["1 2 3", "3 2 1"]


def test_pairwise(rank: Rank, colours: Path) -> None:
    result = rank("a|x|=|b|s|u|b|q", colours, "--rater", "anna", "--pairwise", "--repeat", 0)
    assert "5 prompts, 10 of 10 questions left" in result.stdout
    assert "'x' is none of a, b, =" in result.stdout
    rows = [row for row in read("judgements.jsonl") if row["said"] != "undo"]
    assert [(row["typed"], len(row["shown"])) for row in rows] == [(t, 2) for t in ("a", "=", "b", "s", "b")]
    assert rows[0]["order"] == [[rows[0]["shown"][0]], [rows[0]["shown"][1]]]
    assert rows[2]["order"] == [[rows[2]["shown"][1]], [rows[2]["shown"][0]]]
    assert len(set(rows[0]["shown"]) & set(rows[1]["shown"])) == 1
    first = [pair for pair in read("judgements.preferences.jsonl") if pair["key"] == rows[0]["question"]]
    assert sum(len(pair["rejected"]) for pair in first) >= 1
    assert (
        "6 of 10 questions left" in rank("", colours, "--rater", "anna", "--pairwise", "--repeat", 0).stdout
    )


def test_two_raters_with_a_known_alpha(rank: Rank, tmp_path: Path) -> None:
    """Two answers each; they agree on three prompts of four: 1 - (1/4) / (128/240) = 0.53125."""
    pairs = write(
        tmp_path / "pairs.jsonl", [{"prompt": f"{i}?", "answers": ["red", "green"]} for i in range(4)]
    )

    def ask(rater: str, likes: list[str]) -> Result:
        for liked in likes:
            shown = rank("q", pairs, "--rater", rater, "--repeat", 0).stdout
            red_first = shown.index("red") < shown.index("green")
            result = rank(
                f"{1 if red_first == (liked == 'red') else 2}|q", pairs, "--rater", rater, "--repeat", 0
            )
        return result

    alone = ask("anna", ["red", "green", "red", "red"])
    assert "Agreement between raters: none to measure, one rater: anna." in alone.stdout
    both = ask("ben", ["red", "green", "red", "green"])
    assert re.search(r"anna, ben +4 +4 +75% \[\d+%, \d+%\] +0\.53 \[-?\d\.\d\d, 1\.00\]", both.stdout)
    found = json.loads(Path("judgements.agreement.json").read_text())
    assert found["between"]["alpha"] == pytest.approx(0.53125)
    assert found["preferences"] == {"rows": 3, "prompts": 3, "undecided": 1, "unreadable": 0}
    rows = read("judgements.preferences.jsonl")
    assert [(row["chosen"], row["agreed"], row["raters"]) for row in rows] == [
        ("red", [2], [2]),
        ("green", [2], [2]),
        ("red", [2], [2]),
    ]


def test_the_same_rater_is_asked_again(rank: Rank, colours: Path) -> None:
    result = rank("|".join(["1 2 3"] * 7), colours, "--rater", "anna", "--repeat", 0.4)
    assert "7 of 7 questions left" in result.stdout
    assert [row["round"] for row in read("judgements.jsonl")] == [1] * 5 + [2] * 2
    assert re.search(r"anna, asked again +2 +6 ", result.stdout)
    assert len(read("judgements.preferences.jsonl")) == 5
    again = json.loads(Path("judgements.agreement.json").read_text())["again"]["anna"]
    assert again["pairs"] == 6 and again["agreement"] is not None


def test_preferences_for_training(rank: Rank, colours: Path) -> None:
    out = ["--out", "deep/ours.jsonl", "--preferences", "pairs.jsonl", "--repeat", 0]
    rank("|".join(["1 2 3", "1=2 3", "2", "s", "3 1 2"]), colours, "--rater", "anna", *out)
    assert {path.name for path in Path("deep").iterdir() if path.name[0] != "."} == {
        "ours.jsonl",
        "ours.agreement.json",
    }
    loaded = read_examples("pairs.jsonl")
    assert loaded.format == "chosen/rejected"
    assert [len(example.rejected) for example in loaded.examples] == [2, 1, 1, 1, 1, 2]
    tokenizer = byte_level(tiny_run.CHATML, ("<|im_start|>", "<|im_end|>"), eos="<|im_end|>")
    items = DPO().items(loaded.examples, ChatFormat(tokenizer), "Answer briefly.")
    assert [item.wanted for item in items] == [(True, False)] * 8
    assert all(item.sequences[0].ids != item.sequences[1].ids for item in items)


def test_nothing_of_the_answers_reaches_the_terminal_as_commands(rank: Rank, tmp_path: Path) -> None:
    hostile = write(
        tmp_path / "odd.jsonl", [{"prompt": "[red]q[/red]", "answers": ["\x1b[2Jgone", "[bold]b[/nothing]"]}]
    )
    shown = rank("q", hostile, "--rater", "[x]").stdout
    assert "\x1b[2J" not in shown and "gone" in shown
    assert "[bold]b[/nothing]" in shown and "[red]q[/red]" in shown and "for [x]" in shown


def test_limit_and_prompts_with_one_answer(rank: Rank, tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}?", "answers": ["x", "x" if i == 0 else "y"]} for i in range(4)]
    result = rank("q", write(tmp_path / "p.jsonl", rows), "--rater", "anna", "--limit", 2, "--repeat", 0)
    assert "2 prompts, 2 of 2 questions left" in result.stdout
    assert "1 prompts are not asked: their answers are the same." in result.stdout
    refused(rank("", write(tmp_path / "p.jsonl", rows[:1]), "--rater", "anna"), 1, "no prompt has two")


def test_mistakes(rank: Rank, colours: Path, tmp_path: Path) -> None:
    anna = ("--rater", "anna")
    assert rank("", colours).exit_code == 2  # who judges?
    refused(rank("", colours, "--rater", " "), 2, "--rater is empty")
    refused(rank("", "none.jsonl", *anna), 1, "none.jsonl: no such file")
    refused(rank("", "runs/none", *anna), 1, "no such run folder")
    refused(rank("", colours, *anna, "--answers", 3), 2, "--answers is about answers that are sampled")
    refused(rank("", colours, *anna, "--model", "m"), 2, "--model is about answers that are sampled")
    refused(rank("", colours, *anna, "--out", colours), 1, "colours.jsonl:1: is no judgement")
    refused(rank("", colours, *anna, "--preferences", colours), 2, "cannot be written too")
    mine = write(tmp_path / "mine.jsonl", [{"prompt": "q", "chosen": "a", "rejected": ["b"]}])
    refused(rank("", colours, *anna, "--preferences", mine), 2, "no preferences of `luthier rank`")
    notes = tmp_path / "notes.txt"
    notes.write_text("remember\n", encoding="utf-8")
    refused(rank("", colours, *anna, "--preferences", notes), 2, "no preferences of `luthier rank`")
    assert len(read(mine)) == 1 and notes.read_text(encoding="utf-8") == "remember\n"
    bare = write(tmp_path / "bare.jsonl", [{"prompt": "q"}])
    refused(rank("", bare, *anna), 2, "these prompts have no answers", "--model")
    half = write(tmp_path / "half.jsonl", [{"prompt": "q", "answers": ["a", "b"]}, {"prompt": "r"}])
    refused(rank("", half, *anna), 1, "half.jsonl:2: no answers, and other prompts have some")
    assert not Path("judgements.jsonl").exists()


def test_judgements_of_what_is_gone_are_kept_and_do_not_count(rank: Rank, colours: Path) -> None:
    rank("1 2 3|1 2 3|q", colours, "--rater", "anna", "--repeat", 0)
    write(colours, read(colours)[1:])
    result = rank("q", colours, "--rater", "anna", "--repeat", 0)
    assert "1 judgements are of prompts or answers that are not there" in " ".join(result.stdout.split())
    assert "3 of 4 questions left" in result.stdout
    assert (len(read("judgements.jsonl")), len(read("judgements.preferences.jsonl"))) == (2, 1)


def test_ctrl_c_keeps_and_concludes(rank: Rank, colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter(["1 2 3"])

    def ask(*_: object, **__: object) -> str:
        for word in said:
            return word
        raise KeyboardInterrupt

    monkeypatch.setattr("rich.prompt.Prompt.ask", ask)
    result = rank("", colours, "--rater", "anna")
    assert result.exit_code == 130
    assert (len(read("judgements.jsonl")), len(read("judgements.preferences.jsonl"))) == (1, 1)


# --- sampled answers --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A recipe, and its run in `run` with an adapter; `bare` is a run that was only split."""
    folder = tmp_path_factory.mktemp("ranking")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        patch.setattr(writers, "CHUNK", 2)
        train = {"epochs": 2, "learning_rate": 0.01, "batch_tokens": 400, "replay": 0.0}
        recipe = tiny_run.write_recipe(folder, tiny_run.write_model(folder / "model"), train=train)
        Run(luthier.load_recipe(recipe), folder / "run").train()
        Run(luthier.load_recipe(recipe), folder / "bare").split()
        yield folder


def side(folder: Path, name: str) -> set[str]:
    return {row["messages"][0]["content"] for row in read(folder / f"data/{name}.jsonl")}


def questions(path: str = "judgements.answers.jsonl") -> list[dict[str, Any]]:
    return [row for row in read(path) if "request" in row]


def test_a_runs_train_side_is_asked_of_its_tuned_model(rank: Rank, home: Path) -> None:
    result = rank("q", home / "run", "--rater", "anna", "--limit", 6, "--answers", 3)
    assert result.exit_code == 0
    rows = questions()
    assert len(rows) == 6
    asked = {row["messages"][-1]["content"] for row in rows}
    assert len(asked) == 6 and asked <= side(home / "run", "train")
    assert not asked & (side(home / "run", "test") | side(home / "run", "validation"))
    assert all(row["messages"][0] == {"role": "system", "content": "Say good or bad."} for row in rows)
    source = rows[0]["source"]
    assert (source["answers"], source["temperature"], source["seed"]) == (3, 1.0, 0)
    assert source["adapter"] and source["base"] and source["model"] == str(home / "model")
    for row in rows:
        texts = [answer["text"] for answer in row["answers"]]
        assert len(set(texts)) == len(texts) <= 3 and all(text.strip() for text in texts)
    assert source["adapter"][:8] not in result.stdout


def test_another_rater_judges_the_very_same_answers_without_a_model(
    rank: Rank, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank("1|q", home / "run", "--rater", "anna", "--limit", 4)
    before = Path("judgements.answers.jsonl").read_bytes()
    monkeypatch.setattr(luthier.models, "load_model", lambda name: pytest.fail("a model was loaded"))
    result = rank("1|1|q", home / "run", "--rater", "ben")
    assert result.exit_code == 0 and "4 prompts" in result.stdout
    assert Path("judgements.answers.jsonl").read_bytes() == before
    rows = read("judgements.jsonl")
    assert [row["rater"] for row in rows] == ["anna", "ben", "ben"]
    assert rows[0]["question"] == rows[1]["question"]
    assert set(rows[0]["shown"]) == set(rows[1]["shown"])
    assert rows[0]["model"] == str(home / "model")


def test_what_was_sampled_before_it_was_killed_is_not_sampled_again(
    rank: Rank, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rank("q", home / "run", "--rater", "anna", "--limit", 6, "--out", "whole.jsonl")
    assert whole.exit_code == 0
    keep, write_answers = sampling.keep_question, sampling.write_answers
    kept: list[str] = []
    asked: list[str] = []

    def until_killed(path: Path, request: str, question: Any) -> None:
        if len(kept) == 4:
            raise KeyboardInterrupt
        kept.append(request)
        keep(path, request, question)

    def watched(writer: Any, missing: Any, settings: Any, show: Any) -> Any:
        asked.extend(request.id for request in missing)
        return write_answers(writer, missing, settings, show)

    with monkeypatch.context() as patch:
        patch.setattr(sampling, "keep_question", until_killed)
        assert rank("", home / "run", "--rater", "anna", "--limit", 6).exit_code == 130
    monkeypatch.setattr(sampling, "write_answers", watched)
    rank("q", home / "run", "--rater", "anna")
    rows = questions()
    assert len(asked) == 2 and not set(asked) & set(kept)
    assert [row["request"] for row in rows] == [*kept, *asked]
    assert rows == questions("whole.answers.jsonl")  # the same seed, the same answers


def test_more_prompts_come_after_those_that_are_there(rank: Rank, home: Path) -> None:
    rank("q", home / "run", "--rater", "anna", "--limit", 2)
    first = questions()
    result = rank("q", home / "run", "--rater", "anna", "--limit", 4)
    assert "4 prompts" in result.stdout and questions()[:2] == first and len(questions()) == 4
    fewer = rank("q", home / "run", "--rater", "ben", "--limit", 1, "--repeat", 0)
    assert "1 prompts, 1 of 1 questions left" in fewer.stdout
    assert "4 prompts" in rank("q", home / "run", "--rater", "ben").stdout


def test_who_answers(rank: Rank, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run = home / "recipe.yaml", home / "run"
    options = ("--rater", "anna", "--limit", 2)
    rank("q", run, *options, "--out", "tuned.jsonl")
    rank("q", recipe, *options, "--out", "base.jsonl")
    rank("q", run, *options, "--model", home / "model", "--out", "named.jsonl")
    rank("q", home / "bare", *options, "--out", "bare.jsonl")
    rank("q", recipe, *options, "--model", run, "--out", "asked.jsonl")
    answers = {
        name: [(row["request"], row["answers"]) for row in questions(f"{name}.answers.jsonl")]
        for name in ("tuned", "base", "named", "bare", "asked")
    }
    assert answers["base"] == answers["named"] == answers["bare"]
    assert answers["tuned"] == answers["asked"] != answers["base"]
    assert all(row["source"]["adapter"] is None for row in questions("base.answers.jsonl"))
    refused(rank("", run, "--rater", "ben", "--model", home / "model", "--out", "tuned.jsonl"), 2, "not by")
    refused(rank("", recipe, *options, "--limit", 3, "--out", "tuned.jsonl"), 2, "were written by")
    refused(rank("", run, *options, "--model", home / "bare"), 1, "nothing has been trained", "luthier train")
    assert Path("runs/tickets/data/train.jsonl").is_file()


def test_the_tuned_model_is_asked_as_it_was_tuned(rank: Rank, home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "run", tmp_path / "short")
    recipe = tmp_path / "short/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("tuned_system: null", 'tuned_system: ""'))
    rank("q", tmp_path / "short", "--rater", "anna", "--limit", 1)
    assert [message["role"] for message in questions()[0]["messages"]] == ["user"]


def test_other_settings_than_those_of_the_kept_answers_are_refused(rank: Rank, home: Path) -> None:
    rank("q", home / "run", "--rater", "anna", "--limit", 2, "--answers", 3, "--seed", 5)
    for option, value in (("--answers", 4), ("--temperature", 0.5), ("--seed", 6)):
        refused(rank("", home / "run", "--rater", "ben", option, value), 2, f"leave {option} away")
    assert rank("q", home / "run", "--rater", "ben", "--answers", 3, "--seed", 5).exit_code == 0
    other = rank("q", home / "run", "--rater", "anna", "--limit", 2, "--seed", 6, "--out", "other.jsonl")
    assert other.exit_code == 0
    assert {row["request"] for row in questions("other.answers.jsonl")} != {
        row["request"] for row in questions()
    }


def test_a_prompt_that_is_held_out_now_is_neither_asked_nor_counted(
    rank: Rank, home: Path, tmp_path: Path
) -> None:
    shutil.copytree(home / "run", tmp_path / "moved")
    rank("1|1|1", tmp_path / "moved", "--rater", "anna", "--limit", 3, "--repeat", 0)
    gone = questions()[0]["messages"][-1]["content"]
    data = tmp_path / "moved/data"
    rows = read(data / "train.jsonl")
    (moved,) = (row for row in rows if row["messages"][0]["content"] == gone)
    spelt = {**moved, "messages": [{"role": "user", "content": gone.upper() + "!"}, moved["messages"][1]]}
    write(data / "test.jsonl", [*read(data / "test.jsonl"), spelt])  # the train side still has it too
    result = rank("q", tmp_path / "moved", "--rater", "ben", "--limit", 2, "--repeat", 0)
    assert gone not in result.stdout and "2 prompts, 2 of 2" in result.stdout
    assert "1 judgements are of prompts" in " ".join(result.stdout.split())
    prompts = {row["prompt"][-1]["content"] for row in read("judgements.preferences.jsonl")}
    assert prompts and gone not in prompts


def test_prompts_without_answers_have_them_sampled(rank: Rank, home: Path, tmp_path: Path) -> None:
    bare = write(tmp_path / "bare.jsonl", [{"prompt": f"The lamp {i}?"} for i in range(3)])
    result = rank("1|q", bare, "--rater", "anna", "--model", home / "model", "--answers", 2)
    assert result.exit_code == 0 and "3 prompts" in result.stdout
    rows = questions()
    assert [row["messages"] for row in rows] == [
        [{"role": "user", "content": f"The lamp {i}?"}] for i in range(3)
    ]
    assert rows[1]["where"] == f"{bare}:2"
    again = rank("q", bare, "--rater", "anna", "--repeat", 0)  # no model is named now, and none is needed
    assert "2 of 3 questions left" in again.stdout
    system = rank("q", bare, "--rater", "anna", "--model", home / "run", "--limit", 1, "--out", "t.jsonl")
    assert system.exit_code == 0
    assert questions("t.answers.jsonl")[0]["messages"][0]["role"] == "system"
    write(bare, [{"prompt": "Something else?"}])
    refused(rank("", bare, "--rater", "anna"), 2, "none of its answers is to a prompt that may be asked here")


def test_answers_that_are_all_the_same_are_asked_once(rank: Rank, home: Path, tmp_path: Path) -> None:
    """As cold as it may be, the model says the same every time."""
    bare = write(tmp_path / "bare.jsonl", [{"prompt": "The lamp?"}])
    result = rank("", bare, "--rater", "anna", "--model", home / "model", "--temperature", 0.01)
    refused(result, 1, "no prompt has two different answers", "--temperature")
    assert len(questions()[0]["answers"]) == 1


def test_a_cut_off_answer_says_so(rank: Rank, home: Path, tmp_path: Path) -> None:
    bare = write(tmp_path / "bare.jsonl", [{"prompt": "The lamp?"}])
    shown = rank("q", bare, "--rater", "anna", "--model", home / "model").stdout
    cut = sum(answer["cut"] for answer in questions()[0]["answers"])
    assert cut and shown.count("(cut off)") == cut
