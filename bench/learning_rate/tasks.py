"""The data sets of the study: real examples of five kinds, short enough for a training of a minute."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from luthier.assets import suite_file
from luthier.demo import DATA
from luthier.examples import Example, read_examples

TRAIN, HELD_OUT = 120, 60


@dataclass(frozen=True)
class Task:
    """One data set.

    Attributes:
        file: of the public suites; None for the demo's tickets.
        grader: as a recipe would name it.
        characters: longest example that is taken; longer ones are left out.
    """

    name: str
    what: str
    file: str | None
    system: str
    grader: str
    characters: int

    @property
    def path(self) -> Path:
        """Where its examples are."""
        return DATA if self.file is None else suite_file(self.file)


TASKS = {
    task.name: task
    for task in (
        Task(
            "tickets",
            "support mail to seven JSON fields",
            None,
            "You triage support mail of a shop for home goods. Reply with one line of JSON: category, "
            "urgency, product, order, name, amount, refund.",
            "json_fields",
            700,
        ),
        Task(
            "boolq",
            "yes/no questions about a passage (BoolQ)",
            "BoolQ/dev.jsonl",
            "Read the passage and answer the question about it with True or False.",
            "label",
            450,
        ),
        Task(
            "commonsense",
            "one of five options (CommonsenseQA)",
            "CommonsenseQA/validation.jsonl",
            "Answer the question with the letter and the text of one option.",
            "string_check",
            400,
        ),
        Task(
            "arithmetic",
            "word problems to a number and a unit (ASDiv)",
            "ASDiv/test.jsonl",
            "Solve the problem. Answer with a number and its unit.",
            "string_check",
            400,
        ),
        Task(
            "reading",
            "short answers from a passage, asked with slips of the tongue (Disfl-QA)",
            "Bigbench/DisflQA/test.jsonl",
            "Answer the question about the passage with a few of its words.",
            "text_similarity",
            750,
        ),
    )
}


def draw(task: Task, seed: int) -> tuple[list[Example], list[Example]]:
    """Examples to train on, and others to hold out. The held-out ones do not depend on the seed.

    Raises:
        ValueError: there are too few short ones.
    """
    found = [
        example
        for example in read_examples(task.path).examples
        if sum(len(message.content) for message in example.messages) <= task.characters
    ]
    # a passage with several questions stays on one side
    groups: dict[str, list[Example]] = {}
    for example in found:
        groups.setdefault(example.input[:80], []).append(example)
    keys = list(groups)
    random.Random(f"held out/{task.name}").shuffle(keys)
    held_out: list[Example] = []
    rest: list[Example] = []
    for key in keys:
        side = held_out if len(held_out) < HELD_OUT else rest
        side += groups[key]
    if len(rest) < TRAIN:
        raise ValueError(f"{task.name}: {len(rest)} short examples to train on, {TRAIN} are needed")
    random.Random(f"{task.name}/{seed}").shuffle(rest)
    return rest[:TRAIN], held_out[:HELD_OUT]
