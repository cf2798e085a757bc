"""Lessons: a teacher's distributions on answers, given ones or those that a student has just written.

Legend: V_s and V_t rows of the student's and the teacher's head, V_s <= V_t.

The prompts of a step are answered as one batch of generation, from a stream of the step's own, so that a
training that was stopped and goes on samples the same, as in `rollouts.py`; then the teacher reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from luthier.chat import ChatFormat
from luthier.errors import ModelError
from luthier.forest import soft_targets
from luthier.forest.logprobs import Model, causal_lm
from luthier.generate import generate
from luthier.methods.method import Item
from luthier.record import write_jsonl
from luthier.train.rollouts import answered, stream_of
from luthier.train.updates import Updates

INSTEAD = "write `from: samples`: the teacher's answers are then imitated, whatever its head and its tokens"


@dataclass(frozen=True)
class Lessons:
    """What a student's steps train on that writes its own answers.

    Attributes:
        model: the student, which is in training.
        temperature: of the sampling, and of the distributions that are compared.
        max_new_tokens: room for an answer.
        seed: of the sampling.
        folder: gets `STEP.jsonl`, the answers of each step, to be read.
    """

    model: Model
    teacher: Model
    chat: ChatFormat
    temperature: float
    max_new_tokens: int
    seed: int
    folder: Path | None = None

    def __call__(self, batch: Sequence[Item], step: int) -> Updates:
        """Answer the prompts among the items of a step; the others are trained on as they are."""
        prompts = [item for item in batch if item.asked is not None]
        plain = [item for item in batch if item.asked is None]
        written = generate(
            self.model,
            [list(item.sequences[0].ids) for item in prompts],
            max_new_tokens=self.max_new_tokens,
            stop_ids=self.chat.stop_ids,
            temperature=self.temperature,
            seed=stream_of(self.seed, step),
        )
        items = [answered(item, answer) for item, answer in zip(prompts, written, strict=True)]
        numbers: dict[str, float | None] = {}
        if items:
            items = teach(self.teacher, items, temperature=self.temperature, vocabulary=rows_of(self.model))
            entropy = sum(float(item.soft[0].entropy.sum()) for item in items)
            tokens = sum(item.trained_tokens for item in items)
            numbers = {
                "length": tokens / len(items),
                "finished": sum(answer.finished for answer in written) / len(items),
                "teacher_entropy": entropy / tokens,
            }
        if self.folder is not None and items:
            rows: list[dict[str, Any]] = [
                {"where": item.where, "answer": self.chat.decode(answer.ids), "finished": answer.finished}
                for item, answer in zip(prompts, written, strict=True)
            ]
            self.folder.mkdir(parents=True, exist_ok=True)
            write_jsonl(self.folder / f"{step + 1:06}.jsonl", rows)
        return Updates([[*items, *plain]], numbers)


def teach(
    teacher: Model,
    items: Sequence[Item],
    *,
    temperature: float,
    vocabulary: int,
    advance: Callable[[int], None] | None = None,
) -> list[Item]:
    """The items with the teacher's distributions at their trained tokens.

    Args:
        vocabulary: V_s. Further rows of the teacher's head, which pad it, are of no token and are left out.
        advance: called with the number of sequences finished, after each forest.

    Raises:
        ModelError: the teacher's head is not plain, or has fewer rows than the student's.
    """
    sequences = [sequence.ids for item in items for sequence in item.sequences]
    flags = [row for item in items for row in item.flags]
    try:
        found = soft_targets(teacher, sequences, flags, advance=advance)
    except ModelError as error:
        raise ModelError(f"the teacher cannot teach: {error.message}", fix=INSTEAD) from error
    if not found:
        return list(items)
    whole = found[0].head  # one for all
    if len(whole.weight) < vocabulary:
        what = f"the teacher's head has {len(whole.weight)} rows, and the model's {vocabulary}"
        raise ModelError(f"{what}: their distributions cannot be compared", fix=INSTEAD)
    head = whole.part(0, vocabulary)
    taught = iter([replace(one, head=head, temperature=temperature) for one in found])
    return [replace(item, soft=tuple(next(taught) for _ in item.sequences)) for item in items]


def rows_of(model: Model) -> int:
    """Rows of a model's head."""
    head = causal_lm(model).get_output_embeddings()
    return len(head.weight)
