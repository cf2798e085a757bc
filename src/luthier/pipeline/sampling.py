"""What people are asked to rank: prompts with answers, sampled where they bring none, kept as they come.

Prompts of a recipe or a run are those of its train side. What validation and test ask is never shown, since
people's words become training data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from luthier.errors import DataError, RecipeError
from luthier.examples import Example, Message, Split
from luthier.examples.wording import request_text
from luthier.pipeline.writers import Writer, write_answers
from luthier.progress import Show
from luthier.ranking.journal import held
from luthier.ranking.kept import Kept, Settings, Wanted, keep_question, keep_settings, read_kept, settle
from luthier.ranking.questions import Question, askable, request_id


@dataclass(frozen=True)
class Offer:
    """What there is to judge.

    Attributes:
        questions: all that judgements may be about.
        asked: those that raters are asked now, in this order.
        seed: of the orders in which answers are shown.
        alike: prompts that are not asked because all their answers are the same.
        examples: by key of a question, the example that it asks; absent where prompts brought their answers.
    """

    questions: list[Question]
    asked: list[Question]
    seed: int
    alike: int = 0
    examples: Mapping[str, Example] = field(default_factory=dict)


def train_requests(split: Split, seed: int) -> list[Example]:
    """Different requests of the train side in a drawn order, with `request_id` for their ids.

    One that a held-out side asks too, in other capitals or marks even, is left out.
    """
    held = {request_text(example) for example in (*split.validation, *split.test)}
    found = {
        request_id(example.request): example
        for example in reversed(split.train)
        if example.request and request_text(example) not in held
    }
    drawn = sorted(found, key=lambda key: hashlib.sha256(f"{seed}/{key}".encode()).digest())
    return [replace(found[key], id=key) for key in drawn]


def prompt_requests(prompts: Sequence[Question]) -> list[Example]:
    """Prompts of a file as requests, in its order; their answers are still to be written."""
    found: dict[str, Example] = {}
    for prompt in prompts:
        key, turns = request_id(prompt.messages), (*prompt.messages, Message("assistant", ""))
        found.setdefault(key, Example(key, turns, prompt.where, 0, prompt.group, tools=prompt.tools))
    return list(found.values())


def offer_answers(
    path: Path,
    requests: Callable[[int], Sequence[Example]],
    open_writer: Callable[[], Writer],
    wanted: Wanted,
    show: Show,
) -> Offer:
    """Questions about these requests: answers that are kept at `path`, and new ones for prompts without.

    Args:
        requests: of a seed, all that may be asked, in the order in which they are taken.
        open_writer: called only where answers are sampled, or a model is asked for by name.

    Raises:
        RecipeError: what is kept was sampled otherwise, by another model, or for other prompts.
        RecordError: another process is sampling here.
        DataError: there is nothing to compare: no prompt, or no two answers that differ.
    """
    kept = read_kept(path)
    settings = settle(wanted, kept, path)
    eligible = {request.id: request for request in requests(settings.seed)}
    if kept.questions and not eligible.keys() & kept.questions.keys():
        raise RecipeError(
            "none of its answers is to a prompt that may be asked here",
            where=str(path),
            fix="judge them with the source they were sampled for, or choose another --out",
        )
    if not eligible:
        raise DataError(
            "there is no prompt to ask: the train side has none of its own",
            fix="give examples with requests that are not those of the held-out sides too",
        )
    chosen = _choose(kept, eligible, settings)
    missing = [eligible[key] for key in chosen if key not in kept.questions]
    if missing or wanted.model is not None:
        writer = open_writer()
        _refuse_another(kept, writer, path)
        if missing:
            told = "another luthier is sampling these answers"
            with held(path, "sampling", told=told, fix="wait for it"):
                kept = _sample_missing(path, chosen, eligible, writer, settings, show)
    known = [kept.questions[key] for key in (*chosen, *kept.questions) if key in eligible]
    asked = [kept.questions[key] for key in chosen]
    alike = sum(len(question.answers) < 2 for question in asked)
    if alike == len(asked):
        raise DataError(
            "no prompt has two different answers",
            where=str(path),
            fix="sample more of them, or hotter: another --out, --answers 8, --temperature 1.5",
        )
    examples = {kept.questions[key].key: eligible[key] for key in chosen}
    return Offer(askable(known), askable(asked), settings.seed, alike, examples)


def _choose(kept: Kept, eligible: Mapping[str, Example], settings: Settings) -> list[str]:
    """The requests that are asked: those with answers first, so that more examples push none of them out."""
    known = [key for key in kept.questions if key in eligible]
    return [*known, *(key for key in eligible if key not in kept.questions)][: settings.limit]


def _refuse_another(kept: Kept, writer: Writer, path: Path) -> None:
    now = writer.identity()
    if kept.questions and any(now[part] != kept.writer.get(part) for part in ("base", "adapter")):
        names = [
            f"{who.get('model')}{' with an adapter' if who.get('adapter') else ''}"
            for who in (kept.writer, now)
        ]
        changed = "before that model was changed"
        told = changed if names[0] == names[1] else f"by {names[0]}, not by {names[1]}"
        raise RecipeError(
            f"its answers were written {told}",
            where=str(path),
            fix="judge those that are there (without --model, with a --limit of what is there), "
            "or choose another --out",
        )


def _sample_missing(
    path: Path,
    chosen: Sequence[str],
    eligible: Mapping[str, Example],
    writer: Writer,
    settings: Settings,
    show: Show,
) -> Kept:
    kept = read_kept(path)  # another process may have gone on meanwhile
    identity = writer.identity()
    if kept.settings != settings or kept.writer != identity:
        keep_settings(path, settings, identity)
    missing = [eligible[key] for key in chosen if key not in kept.questions]
    for request, question in write_answers(writer, missing, settings, show):
        keep_question(path, request.id, replace(question, source={**identity, **question.source}))
    return read_kept(path)


def given_offer(prompts: Sequence[Question], wanted: Wanted) -> Offer:
    """Prompts that bring their answers.

    Raises:
        RecipeError: something is asked of the sampling, and nothing is sampled.
        DataError: no prompt has two different answers.
    """
    for name in ("answers", "temperature", "model"):
        if getattr(wanted, name) is not None:
            raise RecipeError(
                f"--{name} is about answers that are sampled, and these prompts bring theirs",
                fix=f"leave --{name} away, or the answers",
            )
    questions = askable(prompts)
    asked = questions[: wanted.limit]
    if not questions:
        raise DataError("no prompt has two different answers", where=prompts[0].where)
    alike = sum(len(prompt.answers) < 2 for prompt in prompts)
    return Offer(questions, asked, wanted.seed or 0, alike)
