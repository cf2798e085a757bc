"""Who writes the answers that people rank, and the writing of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import RecordError
from luthier.examples import Example, Message, Split
from luthier.pipeline.answering import prepare_request
from luthier.pipeline.choosing import chooses
from luthier.pipeline.models import Models
from luthier.pipeline.run import Run
from luthier.pipeline.stages import read_split
from luthier.progress import Show
from luthier.ranking.kept import Settings
from luthier.ranking.questions import Question, distinct
from luthier.recipe import Recipe, parse_recipe
from luthier.record import sha256_of

if TYPE_CHECKING:
    from luthier.models import Model

CHUNK = 8  # prompts whose answers are written together, and kept before the next are begun
MAX_NEW_TOKENS = 256  # where no training answers say how long answers are


@dataclass(frozen=True)
class Writer:
    """Who writes the answers.

    Attributes:
        recipe: how it is asked.
        split: whose training answers say how long an answer may be.
        models: of which base or tuned writes.
        adapter: what was trained; None for the base model.
    """

    recipe: Recipe
    split: Split
    models: Models
    adapter: Path | None

    @property
    def model(self) -> Model:
        """The loaded model."""
        return self.models.base().model if self.adapter is None else self.models.tuned()

    def identity(self) -> dict[str, Any]:
        """What sets it apart from others: names and hashes."""
        adapter = None if self.adapter is None else sha256_of(self.adapter)
        return {"model": self.models.name, "base": self.models.identity, "adapter": adapter}


def has_writer(run: Run) -> bool:
    """Whether a run has a tuned model that writes: reward models and classifiers do not."""
    return (run.record / "adapter").is_dir() and not chooses(run.recipe, "tuned")


def run_writer(run: Run, *, tuned: bool) -> Writer:
    """The base or the tuned model of a run, asked as the run asks it.

    Raises:
        RecordError: the run has no train side yet, or (`tuned`) nothing that was trained to write.
    """
    adapter, where = run.record / "adapter", str(run.record.path)
    if tuned and not has_writer(run):
        if adapter.is_dir():
            fix = "name another run, or a model"
            raise RecordError("the tuned model of this run writes no answers", where=where, fix=fix)
        raise RecordError(
            "nothing has been trained in this run", where=where, fix=f"run: luthier train {where}"
        )
    return Writer(run.recipe, read_split(run.record), run.models, adapter if tuned else None)


def named_writer(model: str, like: Run | None, show: Show) -> Writer:
    """What `--model` names: the tuned model of a run folder, or a model by its name.

    Args:
        like: the run whose recipe says how a model is asked; without it, prompts are all that it is given.
    """
    if (Path(model) / "recipe.yaml").is_file():
        return run_writer(Run.open(model, show), tuned=True)
    nowhere = Path(model) / "adapter"
    if like is not None:
        return Writer(like.recipe, read_split(like.record), Models(model, nowhere, show), None)
    recipe = parse_recipe({"model": model, "data": "prompts", "max_new_tokens": MAX_NEW_TOKENS}, base=Path())
    return Writer(recipe, Split((), (), ()), Models(recipe.model, nowhere, show), None)


def write_answers(
    writer: Writer, asked: Sequence[Example], settings: Settings, show: Show
) -> Iterator[tuple[Example, Question]]:
    """Each request with the different answers to it, as soon as its chunk is written.

    Raises:
        DataError: a prompt does not fit the model.
    """
    if not asked:
        return
    from luthier.candidates.search import Setting
    from luthier.generate import generate

    name = "prompt" if writer.adapter is None else "tuned"
    request = prepare_request(writer.recipe, writer.models, name, Setting(None, 0), asked, writer.split, None)
    model, chat = writer.model, writer.models.chat
    count = settings.answers
    with show.task(f"{count} answers to each of {len(asked)} prompts", count * len(asked)) as advance:
        for start in range(0, len(asked), CHUNK):
            part = asked[start : start + CHUNK]
            seed = _seed(settings.seed, part[0].id)
            prompts = [chat.prompt(request.conversations[example.id]) for example in part]
            generated = generate(
                model,
                [prompt for prompt in prompts for _ in range(count)],
                max_new_tokens=request.max_new_tokens,
                stop_ids=chat.stop_ids,
                temperature=settings.temperature,
                seed=seed,
                constraint=request.constraint,
                advance=advance,
            )
            source = {key: value for key, value in asdict(settings).items() if key != "limit"}
            for place, example in enumerate(part):
                messages = request.conversations[example.id]
                own = generated[place * count : (place + 1) * count]
                answers = distinct((chat.answer(one.ids, messages), not one.finished) for one in own)
                turns = tuple(map(Message.from_row, messages))
                where = example.where if example.line else example.file
                told = source | {"sampler": seed}
                yield example, Question(turns, answers, where, example.group, told, example.tools)


def _seed(seed: int, first: str) -> int:
    """A seed for each chunk: its answers do not depend on those before it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/rank/{first}".encode()).digest()[:4], "big")
