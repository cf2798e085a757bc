"""The candidates' stages: choosing how each is asked, on validation, and its answers to the test side."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from luthier.errors import DataError
from luthier.examples import Example, Split
from luthier.pipeline.choosing import chooses, chosen_answers
from luthier.pipeline.constraining import build_constraint
from luthier.pipeline.models import Models
from luthier.pipeline.retrieving import build_nearby
from luthier.pipeline.scoring import mean_score, recipe_grader, validation_sample
from luthier.pipeline.small import answer_by_best_scratch
from luthier.pipeline.stages import read_split
from luthier.pipeline.texts import measure_texts
from luthier.progress import Show
from luthier.recipe import Recipe
from luthier.record import Record, write_json, write_jsonl

if TYPE_CHECKING:
    from luthier.candidates import Answer, Nearby
    from luthier.candidates.answer import Messages
    from luthier.candidates.search import Setting
    from luthier.constrain import Constraint


def settings_of(recipe: Recipe, name: str) -> tuple[Setting, ...]:
    """The settings among which the recipe lets a candidate choose; one where there is no choice."""
    from luthier.candidates.search import offered_settings

    return offered_settings(name, recipe.prompts, recipe.shots)


def write_search(record: Record, recipe: Recipe, models: Models, show: Show, name: str) -> None:
    """`search/NAME.json`: every setting's score on the validation side, and the one that is chosen."""
    from luthier.candidates.search import best_setting

    split = read_split(record)
    settings = settings_of(recipe, name)
    asked = validation_sample(recipe, split)
    nearby = build_nearby(recipe, models, show, split) if name == "retrieval" else None
    with show.task(f"{name}: choosing among {len(settings)} settings", None):
        tried = [_try(recipe, models, name, setting, asked, split, nearby) for setting in settings]
    chosen = best_setting(tried)
    found = {
        "candidate": name,
        "side": "validation",
        "n": len(asked),
        "tried": tried,
        "chosen": chosen,
        "reason": "the best score; of equal ones that with the shortest prompts"
        if any(row["score"] is not None for row in tried)
        else "nothing could be scored on validation, so it is asked as by default",
    }
    write_json(record / f"search/{name}.json", found)


def _try(
    recipe: Recipe,
    models: Models,
    name: str,
    setting: Setting,
    asked: Sequence[Example],
    split: Split,
    nearby: Nearby | None,
) -> dict[str, Any]:
    """One setting's score on the validation side; None where it does not fit the model, with the reason."""
    row: dict[str, Any] = {
        "system": recipe.system if setting.wording is None else setting.wording or None,
        "wording": setting.wording,
        "shots": setting.shots,
        "score": None,
        "n": 0,
        "prompt_tokens": None,
        "reason": None,
    }
    if not asked:
        return row | {"reason": "there is no validation example"}
    try:
        answers = _ask(recipe, models, None, name, setting, asked, split, nearby)
    except DataError as error:
        return row | {"reason": error.message}
    rows = [answer.as_row() for answer in answers]
    score, n = mean_score(rows, asked, recipe_grader(recipe, split))
    return row | {
        "score": score,
        "n": n,
        "prompt_tokens": sum(answer["prompt_tokens"] for answer in rows) / len(rows),
    }


def write_answers(record: Record, recipe: Recipe, models: Models, show: Show, name: str) -> None:
    """`answers/NAME.jsonl`: a candidate's answers to the test side, not graded yet."""
    split = read_split(record)
    if recipe.reads_texts:
        write_jsonl(record / f"answers/{name}.jsonl", measure_texts(recipe, models, show, name, split.test))
        return
    if chooses(recipe, name):
        answers = chosen_answers(recipe, models, show, name, split.test, split)
    elif name == "scratch":
        answers, found = answer_by_best_scratch(recipe, models, show, split)
        write_json(record / "search/scratch.json", found)
    else:
        nearby = build_nearby(recipe, models, show, split) if name == "retrieval" else None
        setting = _chosen(record, recipe, name)
        answers = _ask(recipe, models, show, name, setting, split.test, split, nearby)
    write_jsonl(record / f"answers/{name}.jsonl", (answer.as_row() for answer in answers))


def write_validation(record: Record, recipe: Recipe, models: Models, show: Show, name: str) -> None:
    """`answers/NAME-validation.jsonl`: a candidate's answers to the validation side, graded."""
    from luthier.evidence.evaluation import grade_answers

    split = read_split(record)
    rows: list[dict[str, Any]] = []
    if split.validation:
        if chooses(recipe, name):
            answers = chosen_answers(recipe, models, show, name, split.validation, split)
        else:
            setting = _chosen(record, recipe, name)
            answers = _ask(recipe, models, show, name, setting, split.validation, split, None)
        asked = [answer.as_row() for answer in answers]
        rows = grade_answers(asked, split.validation, recipe_grader(recipe, split))
    write_jsonl(record / f"answers/{name}-validation.jsonl", rows)


def _chosen(record: Record, recipe: Recipe, name: str) -> Setting:
    settings = settings_of(recipe, name)
    if len(settings) == 1:
        return settings[0]
    chosen: int = record.read_json(f"search/{name}.json", needed_by="evaluate")["chosen"]
    return settings[chosen]


def _ask(
    recipe: Recipe,
    models: Models,
    show: Show | None,
    name: str,
    setting: Setting,
    asked: Sequence[Example],
    split: Split,
    nearby: Nearby | None,
) -> list[Answer]:
    """Answers to `asked`, of which nothing but the requests is used; only `split.train` is shown."""
    from luthier.candidates import ask

    model = models.tuned() if name == "tuned" else models.base().model
    started = time.perf_counter()
    request = prepare_request(recipe, models, name, setting, asked, split, nearby)
    searching = (time.perf_counter() - started) / len(asked) if name == "retrieval" else 0.0
    asking = partial(
        ask,
        model,
        models.chat,
        request.conversations,
        max_new_tokens=request.max_new_tokens,
        constraint=request.constraint,
    )
    if show is None:
        answers = asking()
    else:
        with show.task(f"{name}: answering", len(request.conversations)) as advance:
            answers = asking(advance=advance)
    return [replace(answer, seconds=answer.seconds + searching) for answer in answers]


@dataclass(frozen=True)
class Request:
    """What a candidate's model is asked, and what it may answer.

    Attributes:
        conversations: by example id.
        max_new_tokens: the longest answer, a constraint's room included.
        constraint: what every answer must be; None for free answers.
    """

    conversations: Mapping[str, Messages]
    max_new_tokens: int
    constraint: Constraint | None


def prepare_request(
    recipe: Recipe,
    models: Models,
    name: str,
    setting: Setting,
    asked: Sequence[Example],
    split: Split,
    nearby: Nearby | None,
) -> Request:
    """What a candidate is asked for these examples, by one setting.

    Raises:
        DataError: a prompt and its answer do not fit the model.
    """
    conversations = _conversations(recipe, models, name, setting, asked, split, nearby)
    constraint = build_constraint(recipe, models, split)
    new = recipe.max_new_tokens or models.longest_answer(split.train)
    new = max(new, 0 if constraint is None else constraint.room)
    _refuse_too_long(models, name, conversations, new)
    return Request(conversations, new, constraint)


def _conversations(
    recipe: Recipe,
    models: Models,
    name: str,
    setting: Setting,
    asked: Sequence[Example],
    split: Split,
    nearby: Nearby | None,
) -> Mapping[str, Messages]:
    from luthier.candidates import (
        few_shot_messages,
        prompt_messages,
        retrieval_messages,
        seen_by_tuned,
        without_system,
    )

    chat, system, shots = models.chat, recipe.system_of(name), setting.shots
    if name == "tuned":
        asked = seen_by_tuned(asked, recipe.tuned_system)
    elif setting.wording is not None:
        asked, system = [without_system(example) for example in asked], setting.wording or None
    if name == "few_shot":
        return few_shot_messages(asked, split.train, chat, system, shots=shots, seed=recipe.seed)
    if name == "retrieval":
        assert nearby is not None
        return retrieval_messages(asked, nearby, chat, system, shots=shots)
    return {example.id: prompt_messages(example, chat, system) for example in asked}


def _refuse_too_long(models: Models, name: str, conversations: Mapping[str, Messages], new: int) -> None:
    longest = max(len(models.chat.prompt(messages)) for messages in conversations.values())
    limit = models.context_limit()
    if limit is not None and longest + new > limit:
        raise DataError(
            f"candidate {name}: a prompt of {longest} tokens and an answer of up to {new} do not fit "
            f"the model's {limit}",
            fix="lower `shots`, shorten the examples, or choose a model with a longer context"
            if name != "retrieval"
            else "lower `shots` or `retrieval.passages`, or choose a model with a longer context",
        )
