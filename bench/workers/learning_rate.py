"""One training of the learning-rate study, with its held-out loss and score."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench.learning_rate.points import BATCH_TOKENS, EPOCHS
from bench.learning_rate.tasks import TASKS, Task, draw
from bench.protocol import Line
from luthier.chat import ChatFormat
from luthier.errors import TrainingError
from luthier.examples import Example
from luthier.generate import generate
from luthier.grade import build_grader
from luthier.methods import SFT
from luthier.models import LoadedModel, attach_adapter, load_model
from luthier.recipe import Adapter, Train
from luthier.train import loop, train
from luthier.train.schedule import peak_rate


def main() -> None:
    """One job in, one answer out."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    task = TASKS[job["task"]]
    loaded = load_model(job["model"], device="cpu")
    chat = ChatFormat(loaded.tokenizer, extra_stop_ids=loaded.stop_ids)
    training, held_out = draw(task, job["seed"])
    method = SFT()
    items, others = (method.items(side, chat, task.system) for side in (training, held_out))
    width = loaded.model.config.get_text_config().hidden_size
    rate = job["factor"] * peak_rate("auto", hidden_size=width)
    model: Any = loaded.model
    summary: dict[str, Any] = {"steps": 0, "tokens": 0, "seconds": 0.0}
    loss: float | None = None
    try:
        if rate:
            model = attach_adapter(loaded, Adapter(), seed=job["seed"])
            summary = _train(model, method, items, rate, job["seed"])
        loss = loop.validation_loss(model, method, others)
    except TrainingError as error:
        print(error)  # to stderr: a rate that is far too high is a result, not a failure
    line.send(
        event="trained",
        rate=rate,
        loss=loss,
        score=None if loss is None else _score(model, loaded, chat, task, training, held_out),
        **{name: summary[name] for name in ("steps", "tokens", "seconds")},
    )


def _train(model: Any, method: SFT, items: Any, rate: float, seed: int) -> dict[str, Any]:
    """All epochs, without validation: the weights are those of the last step."""
    settings = Train(epochs=EPOCHS, batch_tokens=BATCH_TOKENS)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="luthier-bench-") as folder:
        summary = train(
            model, method, items, [], settings, peak=rate, seed=seed, folder=Path(folder), key="study"
        )
    return {**summary, "seconds": time.perf_counter() - began}


def _score(
    model: Any,
    loaded: LoadedModel,
    chat: ChatFormat,
    task: Task,
    training: list[Example],
    held_out: list[Example],
) -> float:
    """Mean score of greedy answers; an answer that cannot be scored does not count."""
    prompts = [
        chat.prompt(chat.with_system([message.as_dict() for message in example.messages[:-1]], task.system))
        for example in held_out
    ]
    longest = max(
        len(loaded.tokenizer(example.answer, add_special_tokens=False).input_ids) for example in training
    )
    answers = generate(model, prompts, max_new_tokens=longest + 8, stop_ids=chat.stop_ids)
    grader = build_grader(task.grader, [example.answer for example in training], answer_schema=None)
    scores = [
        grader.grade(chat.decode(answer.ids), example.answer, example).value
        for answer, example in zip(answers, held_out, strict=True)
    ]
    values = [value for value in scores if value is not None]
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
