"""Distillation in a run: the teacher, its tokenizer, its answers, and what it says of other answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from luthier.errors import DataError, ModelError
from luthier.examples import Example, Split
from luthier.pipeline.models import Models
from luthier.pipeline.rewarding import ROLLOUTS
from luthier.progress import Show
from luthier.recipe import Recipe, digest
from luthier.recipe.supervised_options import DistillOptions
from luthier.record import Record, write_json

if TYPE_CHECKING:
    from luthier.methods import Item
    from luthier.models import LoadedModel, Model
    from luthier.train.lessons import Lessons

SAMPLES = "train/teacher.json"
COMPARED = 64  # texts on which two tokenizers of the same vocabulary have to agree


def teaching_inputs(recipe: Recipe) -> dict[str, Any]:
    """What a training depends on that has a teacher, besides its method."""
    from luthier.models import model_identity

    if not isinstance(recipe.method, DistillOptions):
        return {}
    asked = recipe.model_dump(include={"system", "max_new_tokens"})
    return {"teacher": model_identity(recipe.method.teacher), "asked": asked}


def with_teacher(
    recipe: Recipe, models: Models, show: Show, items: Sequence[Item], held: Sequence[Item]
) -> tuple[list[Item], list[Item]]:
    """Items of both sides with the teacher's distributions, where the recipe wants them on given answers.

    Raises:
        ModelError: the teacher's tokenizer or head is another.
        DataError: an example does not fit the teacher.
    """
    options = recipe.method
    if not isinstance(options, DistillOptions) or options.source != "examples":
        return list(items), list(held)
    from luthier.train.lessons import rows_of, teach

    teacher = _load(options.teacher, show)
    _refuse_other_tokenizer(teacher, models, options, [*items, *held])
    _refuse_too_long(teacher, [*items, *held])
    count = sum(len(item.sequences) for item in (*items, *held))
    with show.task("teacher's distributions", count) as advance:
        taught = teach(
            teacher.model,
            [*items, *held],
            temperature=options.temperature,
            vocabulary=rows_of(models.base().model),
            advance=advance,
        )
    return taught[: len(items)], taught[len(items) :]


def build_lessons(record: Record, recipe: Recipe, models: Models, split: Split, model: Model) -> Lessons:
    """What the steps of a student train on that writes its own answers; `model` is about to be trained.

    Raises:
        ModelError: the teacher's tokenizer is another.
    """
    from luthier.methods import SFT
    from luthier.models import load_model
    from luthier.train.lessons import Lessons

    options = recipe.method
    assert isinstance(options, DistillOptions)
    teacher = load_model(options.teacher)
    given = SFT().items(split.train[:COMPARED], models.chat, recipe.system_of("tuned"))
    _refuse_other_tokenizer(teacher, models, options, given)
    return Lessons(
        model=model,
        teacher=teacher.model,
        chat=models.chat,
        temperature=options.temperature,
        max_new_tokens=recipe.max_new_tokens or models.longest_answer(split.train),
        seed=recipe.seed,
        folder=record / ROLLOUTS,
    )


def answered_by_teacher(
    record: Record,
    recipe: Recipe,
    models: Models,
    show: Show,
    train: Sequence[Example],
    validation: Sequence[Example],
) -> tuple[Sequence[Example], Sequence[Example]]:
    """Both sides with the teacher's answers in the place of their own, where the recipe has it write them.

    The teacher is asked as the base model is, with the recipe's and the examples' system prompts, whatever
    the tuned model is told. Answers that were cut off or are blank are left out.

    Raises:
        DataError: no answer to a training request is left.
    """
    options = recipe.method
    if not isinstance(options, DistillOptions) or options.source != "samples":
        return train, validation
    room = recipe.max_new_tokens or models.longest_answer(train)
    answers = _sampled(record, recipe, options, show, [*train, *validation], room)
    sides = [
        [_answered(example, text) for example in side if (text := answers[example.id])]
        for side in (train, validation)
    ]
    missing = len(train) + len(validation) - sum(map(len, sides))
    if missing:
        why = f"blank or cut off at {room} tokens"
        show.note(f"{missing} answers of the teacher were {why}, and are left out")
    if not sides[0]:
        raise DataError(
            f"the teacher finished no answer within {room} tokens", fix="raise max_new_tokens in the recipe"
        )
    return sides[0], sides[1]


def _answered(example: Example, text: str) -> Example:
    """The example with another answer; its earlier turns are context, and not imitated."""
    before = (replace(m, weight=0) if m.role == "assistant" else m for m in example.request)
    return replace(example, messages=(*before, example.answered(text)))


def _sampled(
    record: Record, recipe: Recipe, options: DistillOptions, show: Show, asked: Sequence[Example], room: int
) -> dict[str, str | None]:
    """The teacher's answer to each example, None where there is none to imitate; written once and kept."""
    from luthier.candidates import prompt_messages
    from luthier.chat import ChatFormat
    from luthier.generate import generate
    from luthier.models import model_identity
    from luthier.train.rollouts import stream_of

    requests = [[example.id, example.asked] for example in asked]
    how = [options.temperature, recipe.seed, recipe.system, room]
    key = digest([model_identity(options.teacher), how, requests])
    path = record / SAMPLES
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["key"] == key:
            answers: dict[str, str | None] = known["answers"]
            return answers
    teacher = _load(options.teacher, show)
    chat = ChatFormat(teacher.tokenizer, extra_stop_ids=teacher.stop_ids)
    prompts = [chat.prompt(prompt_messages(example, chat, recipe.system)) for example in asked]
    with show.task("teacher: answering", len(prompts)) as advance:
        written = generate(
            teacher.model,
            prompts,
            max_new_tokens=room,
            stop_ids=chat.stop_ids,
            temperature=options.temperature,
            seed=stream_of(recipe.seed, "teacher"),
            advance=advance,
        )
    texts = [chat.answer(answer.ids, example.asked) for example, answer in zip(asked, written, strict=True)]
    answers = {
        example.id: text if answer.finished and text.strip() else None
        for example, answer, text in zip(asked, written, texts, strict=True)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"key": key, "teacher": options.teacher, "answers": answers})
    return answers


def _load(name: str, show: Show) -> LoadedModel:
    from luthier.models import load_model

    with show.task(f"loading the teacher {name}", None):
        return load_model(name)


def _refuse_other_tokenizer(
    teacher: LoadedModel, models: Models, options: DistillOptions, items: Sequence[Item]
) -> None:
    """Distributions over other tokens say nothing of the student's."""
    from luthier.train.lessons import INSTEAD

    own, other = models.tokenizer, teacher.tokenizer
    texts = [own.decode(item.sequences[0].ids) for item in items[:COMPARED]]
    same = own.get_vocab() == other.get_vocab() and all(
        own.encode(text, add_special_tokens=False) == other.encode(text, add_special_tokens=False)
        for text in texts
    )
    if not same:
        raise ModelError(
            f"the teacher {options.teacher} has another tokenizer than {models.name}, so its distributions "
            "are over other tokens",
            fix=INSTEAD,
        )


def _refuse_too_long(teacher: LoadedModel, items: Sequence[Item]) -> None:
    limit = getattr(teacher.model.config.get_text_config(), "max_position_embeddings", None)
    for item in items:
        length = max(len(sequence.ids) for sequence in item.sequences)
        if limit is not None and length > limit:
            raise DataError(
                f"an example of {length} tokens does not fit the teacher's {limit}",
                where=item.where,
                fix="shorten or split it, or choose a teacher with a longer context",
            )
