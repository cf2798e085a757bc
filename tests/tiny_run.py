"""A whole run on a random model of two layers: its folder, its examples, its recipe, its public items."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
import yaml
from chat_tokenizers import byte_level
from transformers import LlamaConfig, LlamaForCausalLM

from luthier.probes.suites import ChoiceItem
from luthier.record import sha256_of

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLACES = ("harbour", "garden", "kitchen", "attic", "station", "bridge", "meadow", "cellar")
THINGS = ("lamp", "clock", "kettle", "ladder", "mirror", "basket", "violin", "candle", "hammer", "carpet")
MOODS = {
    "good": ("lovely", "splendid", "cheerful", "superb"),
    "bad": ("broken", "dreadful", "rotten", "grim"),
}
SIDES = ("train", "validation", "test")


def write_model(folder: Path) -> Path:
    """A random Llama of 64 dimensions with a byte-level chat tokenizer, as `save_pretrained` writes it."""
    tokenizer = byte_level(CHATML, ("<|im_start|>", "<|im_end|>"), eos="<|im_end|>")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,  # far from uniform, so that six epochs of an adapter change the answers
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_examples(path: Path, count: int = 60, *, seed: int = 0) -> Path:
    """Short remarks about things, labelled good or bad."""
    dice = random.Random(seed)
    lines = []
    for number in range(count):
        label = ("good", "bad")[number % 2]
        where, thing, mood = dice.choice(PLACES), dice.choice(THINGS), dice.choice(MOODS[label])
        text = f"No. {number * 37}: the {thing} from the {where} was {mood}"
        row = [{"role": "user", "content": text}, {"role": "assistant", "content": label}]
        lines.append(json.dumps({"messages": row}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_recipe(folder: Path, model: Path, **changes: Any) -> Path:
    """`recipe.yaml` beside `tickets.jsonl` in `folder`; a change to None takes the key out."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "tickets.jsonl").is_file():
        write_examples(folder / "tickets.jsonl")
    recipe: dict[str, Any] = {
        "name": "tickets",
        "model": str(model),
        "data": "tickets.jsonl",
        "system": "Say good or bad.",
        "grader": "label",
        "shots": 2,
        "adapter": {"kind": "lora", "rank": 4},
        "train": {"epochs": 6, "learning_rate": 0.01, "batch_tokens": 400},
        "probe_items": 8,
        "seed": 0,
    }
    recipe = {key: value for key, value in (recipe | changes).items() if value is not None}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def choice_items(count: int) -> list[ChoiceItem]:
    """Stand-ins for the public suites: `count` questions of two abilities."""
    facts = [
        ("What boils at a hundred degrees?", ("water", "iron", "glass"), 0),
        ("Which one can fly?", ("a stone", "a swallow"), 1),
        ("What is used to cut bread?", ("a knife", "a pillow", "a cloud"), 0),
        ("How do you open a door?", ("turn the handle", "sing to it"), 0),
    ]
    return [
        ChoiceItem(("physics", "household")[i % 2], "made up", f"{i}: {question}", options, right)
        for i, (question, options, right) in ((i, facts[i % len(facts)]) for i in range(count))
    ]


def outcome(folder: Path) -> dict[str, Any]:
    """What a run found, without the times and places that differ between two runs of the same recipe."""

    def read(name: str) -> Any:
        return json.loads((folder / name).read_text(encoding="utf-8"))

    def rows(name: str) -> list[dict[str, Any]]:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        return [without_times(json.loads(line)) for line in lines]

    verdict = read("verdict.json")
    return {
        "adapter": sha256_of(folder / "adapter/adapter_model.safetensors"),
        "steps": rows("train/metrics.jsonl"),
        "predictions": {path.stem: rows(f"predictions/{path.name}") for path in predictions(folder)},
        "scores": without_times(read("scores.json")),
        "probes": {path.stem: read(f"probes/{path.name}") for path in sorted((folder / "probes").iterdir())},
        "gates": [without_times(gate) for gate in verdict["gates"]],
        "decision": (verdict["decision"], verdict["recommended"]),
        "data": {side: sha256_of(folder / f"data/{side}.jsonl") for side in SIDES},
    }


def predictions(folder: Path) -> list[Path]:
    """The predictions of every candidate, by name."""
    return sorted((folder / "predictions").glob("*.jsonl"))


def without_times(value: Any) -> Any:
    """A JSON value without what depends on the clock or on the process."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in ("seconds", "memory_bytes")}
    return [without_times(item) for item in value] if isinstance(value, list) else value
