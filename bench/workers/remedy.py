"""One training of the remedies study: its answers, its drift and its choices at every scale of the update."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.learning_rate.tasks import TASKS, Task, draw
from bench.protocol import Line
from bench.remedies import BATCH_TOKENS, CONDITIONS, EPOCHS, ITEMS, LAYERS, SCALES
from luthier.examples import Example
from luthier.generate import generate
from luthier.grade import build_grader
from luthier.methods import SFT, Item
from luthier.models import attach_adapter
from luthier.models.temper import tempered
from luthier.pipeline.models import Models
from luthier.pipeline.replaying import replay_items
from luthier.probes import choice_items
from luthier.probes.forgetting import chance_of_right, option_logprobs
from luthier.probes.own_text import base_own_text, own_text_nll
from luthier.progress import Advance, Silent
from luthier.recipe import Recipe, parse_recipe
from luthier.train import train
from luthier.train.schedule import peak_rate


def main() -> None:
    """One job in, one answer out."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    task, seed = TASKS[job["task"]], job["seed"]
    changes = {} if job["condition"] is None else CONDITIONS[job["condition"]]
    recipe = _recipe(job["model"], task, seed, changes)
    with tempfile.TemporaryDirectory(prefix="luthier-bench-") as folder:
        models = Models(recipe.model, Path(folder) / "adapter", Silent())
        training, held_out = draw(task, seed)
        with Silent().task("", None) as advance:
            texts = base_own_text(models.base().model, models.chat, models.identity, advance)
        measure = _Measure(models, task, training, held_out, texts, advance)
        if job["condition"] is None:
            line.send(event="measured", base=measure(models.base().model), seconds=0.0, replayed=0)
            return
        items = SFT().items(training, models.chat, task.system)
        replayed = replay_items(recipe, models, Silent(), beside=items)
        model = attach_adapter(models.base(), recipe.adapter, seed=seed)
        seconds = _train(model, [*items, *replayed], recipe, Path(folder))
        found = {}
        for scale in SCALES:
            with tempered(model, scale):
                found[str(scale)] = measure(model)
        line.send(event="measured", scales=found, seconds=seconds, replayed=len(replayed))


def _recipe(model: str, task: Task, seed: int, changes: dict[str, Any]) -> Recipe:
    raw = {
        "model": model,
        "data": str(task.path),
        "adapter": {"layers": LAYERS},
        "train": {"epochs": EPOCHS, "batch_tokens": BATCH_TOKENS, **changes},
        "seed": seed,
    }
    return parse_recipe(raw, base=Path(), name="remedies", where="remedies")


def _train(model: Any, items: Sequence[Item], recipe: Recipe, folder: Path) -> float:
    """All epochs, without validation: the weights are those of the last step; returns the seconds."""
    rate = peak_rate("auto", hidden_size=model.config.get_text_config().hidden_size)
    summary = train(
        model,
        SFT(),
        items,
        [],
        recipe.train,
        peak=rate,
        seed=recipe.seed,
        folder=folder / "train",
        key="remedies",
    )
    return float(summary["seconds"])


class _Measure:
    """Scores of held-out answers, losses on the base's own texts, chances of the right options."""

    def __init__(
        self,
        models: Models,
        task: Task,
        training: Sequence[Example],
        held_out: Sequence[Example],
        texts: list[dict[str, Any]],
        advance: Advance,
    ) -> None:
        self.advance = advance
        self.chat, self.tokenizer = models.chat, models.tokenizer
        self.held_out, self.texts, self.items = held_out, texts, choice_items(ITEMS)
        self.prompts = [
            self.chat.prompt(
                self.chat.with_system([message.as_dict() for message in example.messages[:-1]], task.system)
            )
            for example in held_out
        ]
        lengths = [len(self.tokenizer(e.answer, add_special_tokens=False).input_ids) for e in training]
        self.longest = max(lengths) + 8
        self.grader = build_grader(task.grader, [e.answer for e in training], answer_schema=None)

    def __call__(self, model: Any) -> dict[str, list[float]]:
        written = generate(model, self.prompts, max_new_tokens=self.longest, stop_ids=self.chat.stop_ids)
        grades = [
            self.grader.grade(self.chat.decode(answer.ids), example.answer, example).value
            for answer, example in zip(written, self.held_out, strict=True)
        ]
        logps = option_logprobs(model, self.tokenizer, self.items, self.advance)
        values = {
            "scores": [0.0 if grade is None else grade for grade in grades],
            "losses": own_text_nll(model, self.texts),
            "chances": [float(chance) for chance in chance_of_right(self.items, logps)],
        }
        return {name: [round(value, 5) for value in row] for name, row in values.items()}


if __name__ == "__main__":
    main()
