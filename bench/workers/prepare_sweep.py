"""Writes the recipe that Luthier sweeps, and the same data, batches and adapter as a plan for the peer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import PeftModel

from bench.plan import ALPHA, RANK, Plan, Row
from bench.protocol import Line
from bench.work import count_work
from bench.workers.prepare import SEED, file_order, gate
from luthier.chat import ChatFormat
from luthier.demo import DATA, RECIPE
from luthier.examples import Example, read_examples
from luthier.methods import SFT
from luthier.models import attach_adapter, load_model, save_adapter
from luthier.pipeline import Run
from luthier.recipe import load_recipe
from luthier.train.batches import epoch_batches
from luthier.train.schedule import rate_at

UNSEEN = 8  # tickets of the test side, which nothing here looks at


def main() -> None:
    """One job in, one answer out."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    folder, steps, batch = Path(job["folder"]), job["steps"], job["batch"]
    loaded = load_model(job["model"], device="cpu")
    chat = ChatFormat(loaded.tokenizer, extra_stop_ids=loaded.stop_ids)
    _write_data(folder, job, chat)
    recipe = load_recipe(folder / "recipe.yaml")
    split = Run(recipe, folder / "prepared").split()
    items = SFT().items(split.train, chat, recipe.system)
    batches = epoch_batches(items, batch_tokens=recipe.train.batch_tokens, seed=SEED, epoch=0)
    if [len(indices) for indices in batches] != [batch] * steps:
        raise ValueError(f"the loop makes batches of {[len(indices) for indices in batches]} examples")
    adapter = folder / "adapter"
    model = attach_adapter(loaded, recipe.adapter, seed=SEED)
    save_adapter(model, loaded.tokenizer, adapter, base_name="base")
    peak = job["rates"][len(job["rates"]) // 2]
    plan = Plan(
        "sft",
        _rows(items),
        _rows(SFT().items(split.validation, chat, recipe.system)),
        tuple(map(tuple, batches)),
        tuple(rate_at(step, steps=steps, peak=peak) for step in range(steps)),
        peak,
        SEED,
        recipe.train.batch_tokens,
        str(adapter),
    )
    plan.save(folder / "plan.json")
    naive = PeftModel.from_pretrained(
        load_model(job["model"], device="cpu").model, plan.adapter, is_trainable=True
    )
    line.send(
        event="prepared",
        tokens=sum(item.tokens for item in items),
        shared=count_work([row for rows in plan.examples for row in rows]).shared,
        **gate(model, naive, "sft", plan.batch(0)),
    )


def _write_data(folder: Path, job: dict[str, Any], chat: ChatFormat) -> None:
    """Three files of tickets and the recipe; the training side in the order that gives equal batches."""
    system = load_recipe(RECIPE).system
    tickets = list(read_examples(DATA).examples)
    count = job["steps"] * job["batch"]
    needed = count + job["held_out"] + UNSEEN
    if needed > len(tickets):
        raise ValueError(f"{needed} tickets are needed, the demo has {len(tickets)}")
    training, rest = tickets[:count], tickets[count:]
    lengths = [item.tokens for item in SFT().items(training, chat, system)]
    sides = {
        "train": [training[i] for i in file_order(lengths, job["steps"], job["batch"])],
        "validation": rest[: job["held_out"]],
        "test": rest[job["held_out"] :][:UNSEEN],
    }
    for side, examples in sides.items():
        (folder / f"{side}.jsonl").write_text("".join(map(_line, examples)), encoding="utf-8")
    recipe = {
        "name": "w5",
        "model": str(job["model"]),
        "data": {side: f"{side}.jsonl" for side in sides},
        "system": system,
        "adapter": {"rank": RANK, "alpha": ALPHA},
        "train": {"epochs": 1, "batch_tokens": round(sum(lengths) / job["steps"]), "replay": 0.0},
        "seed": SEED,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def _line(example: Example) -> str:
    messages = [message.as_dict() for message in example.messages]
    return json.dumps({"messages": messages}, ensure_ascii=False) + "\n"


def _rows(items: Any) -> tuple[tuple[Row, ...], ...]:
    return tuple(
        tuple(Row(tuple(sequence.ids), tuple(sequence.weights)) for sequence in item.sequences)
        for item in items
    )


if __name__ == "__main__":
    main()
