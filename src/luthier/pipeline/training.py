"""The training stage: what is to be trained, the estimate, the training itself, the adapter."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import DataError
from luthier.examples import Split
from luthier.pipeline.encoders import read_items
from luthier.pipeline.held_out import HeldOut
from luthier.pipeline.live import TrainingView
from luthier.pipeline.mixing import repeat_items
from luthier.pipeline.models import Models
from luthier.pipeline.referring import with_reference
from luthier.pipeline.replaying import replay_items
from luthier.pipeline.rewarding import build_rollouts
from luthier.pipeline.stages import read_split
from luthier.pipeline.teaching import answered_by_teacher, build_lessons, with_teacher
from luthier.pipeline.tempering import temper_adapter
from luthier.progress import Show
from luthier.recipe import Recipe
from luthier.recipe.method_options import writes_own
from luthier.record import Record, sha256_of, write_json

if TYPE_CHECKING:
    from luthier.forest.logprobs import Model
    from luthier.methods import Item, Method
    from luthier.train.estimate import Estimate
    from luthier.train.lessons import Lessons
    from luthier.train.rollouts import Rollouts

OUTPUTS = ("adapter", "train/summary.json", "train/metrics.jsonl", "train/losses.jsonl")
RATE_SECONDS = 30.0  # a shorter training is not told its share of the machine's rate: measuring takes 0.3 s


@dataclass(frozen=True)
class Planned:
    """What a training was planned as when it first started: kept, so that resuming computes the same.

    Attributes:
        run: identity for trackers.
        estimate: how much is computed at once is a part of it, which decides the last bits.
    """

    run: str
    estimate: Estimate


@dataclass(frozen=True)
class Material:
    """What goes into a training: the model with what is to be trained, and the items of two sides.

    Attributes:
        general: answers of the base model that are not trained on, where tempering looks at drift.
        canaries: how many of the items are made-up sentences.
        rollouts: what writes the answers to learn from, where the items are prompts alone.
    """

    split: Split
    model: Model
    method: Method
    items: list[Item]
    replayed: list[Item]
    held: list[Item]
    general: list[Item]
    canaries: int
    rollouts: Rollouts | Lessons | None = None

    @property
    def unwanted(self) -> int:
        """Training examples whose answer should not be given."""
        return len(self.split.unwanted.get("train", ()))

    @property
    def trained_on(self) -> list[Item]:
        """Examples, and answers of the base model."""
        return [*self.items, *self.replayed]


def write_adapter(record: Record, recipe: Recipe, models: Models, show: Show, key: str) -> None:
    """`adapter/` and `train/`. A checkpoint of the same `key` is gone on from.

    The checkpoints go when `train/plan.json` vouches for the outputs: a process that is killed before its
    caller has noted the work as done finds them here, and does not train again.
    """
    if _is_written(record, key):
        return
    from luthier.models import save_adapter
    from luthier.models.embedded import HUB_IDS
    from luthier.train.checkpoint import Checkpoints

    material = attach(record, recipe, models, gather(record, recipe, models, show))
    models.keep_tuned(material.model)
    _tell_examples(show, recipe, material)
    planned = make_plan(record, recipe, material, key)
    _tell_estimate(show, recipe, planned.estimate)
    summary = train_on(record, recipe, models, show, material, planned, key)
    tempering = None
    if recipe.train.temper:
        tempering = temper_adapter(material.model, material.held, material.general, recipe.train.temper, show)
        show.note(f"tempered to {tempering['chosen']:g} of the trained update")
    base_name = HUB_IDS.get(recipe.model, recipe.model)
    save_adapter(material.model, models.tokenizer, record / "adapter", base_name=base_name)
    told = {
        "method": material.method.name,
        "labels": list(material.method.labels),
        **({"encoder": True} if models.is_encoder else {}),
        "adapter": recipe.adapter.model_dump(),
        **summary,
        "examples": len(material.split.train),
        "unwanted": material.unwanted if material.method.learns_unwanted else 0,
        "replayed": len(material.replayed),
        "adapter_bytes": sum(f.stat().st_size for f in (record / "adapter").glob("*.safetensors")),
        "tempering": tempering,
        "estimate": asdict(planned.estimate),
    }
    write_json(record / "train/summary.json", told)
    plan = record.read_json("train/plan.json")
    write_json(record / "train/plan.json", {**plan, "outputs": _hashes(record)})
    Checkpoints(record / "train/checkpoints", key).clear()


def _is_written(record: Record, key: str) -> bool:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads((record / "train/plan.json").read_text(encoding="utf-8"))
        return bool(known["key"] == key and known["outputs"] == _hashes(record))
    return False


def _hashes(record: Record) -> dict[str, str | None]:
    return {name: sha256_of(record / name) for name in OUTPUTS}


def gather(record: Record, recipe: Recipe, models: Models, show: Show) -> Material:
    """What goes into a training but for what is trained: its model is the bare base."""
    from luthier.candidates import seen_by_tuned
    from luthier.methods import build_method

    split = read_split(record)
    virtual = recipe.adapter.virtual_tokens if recipe.adapter.kind in ("prefix", "prompt") else 0
    limit = models.context_limit()
    longest = None if limit is None else limit - virtual
    method = build_method(recipe.method).within(longest)
    system = recipe.system_of("tuned")
    sides = (
        split.with_unwanted(side) if method.learns_unwanted else split.sides()[side]
        for side in ("train", "validation")
    )
    train, validation = answered_by_teacher(record, recipe, models, show, *sides)
    seen = (seen_by_tuned(side, recipe.tuned_system) for side in (train, validation))
    items, held = (read_items(method, models, side, system) for side in seen)
    method = method.settle(items)
    models.name_labels(method.labels, seed=recipe.seed)
    new = recipe.max_new_tokens or models.longest_answer(split.train) if writes_own(recipe.method) else 0
    _refuse_too_long([*items, *held], limit, virtual=virtual, new=new)
    items, held = with_teacher(recipe, models, show, items, held)
    items = repeat_items(recipe, train, items)
    items, held = (with_reference(models, method, own, show, longest=longest) for own in (items, held))
    made_up = _canaries(recipe, models, system)
    items += made_up
    replayed = replay_items(recipe, models, show, beside=items)
    general = _general(models, show) if recipe.train.temper else []
    return Material(split, models.base().model, method, items, replayed, held, general, len(made_up))


def attach(record: Record, recipe: Recipe, models: Models, material: Material) -> Material:
    """The same with what is trained in its model, and with what writes the answers to prompts alone."""
    from luthier.methods.online import is_online
    from luthier.models import attach_adapter
    from luthier.models.heads import attach_head

    split, method = material.split, material.method
    model = attach_adapter(models.base(), recipe.adapter, seed=recipe.seed)
    attach_head(model, method, seed=recipe.seed)
    if is_online(method):
        # what answers to held-out prompts are worth is measured, but they have no loss
        rollouts = build_rollouts(record, recipe, models, split, model, method)
        return replace(material, model=model, held=[], rollouts=rollouts)
    if writes_own(recipe.method):  # and a teacher says what is right
        lessons = build_lessons(record, recipe, models, split, model)
        return replace(material, model=model, held=[], rollouts=lessons)
    return replace(material, model=model)


def _canaries(recipe: Recipe, models: Models, system: str | None) -> list[Item]:
    """Made-up sentences, each as often as the memorization probe wants it seen in an epoch."""
    from luthier.methods import Item
    from luthier.probes import canaries, canary_sequences

    return [
        Item(f"canary {number + 1}", (canary_sequences(canary, models.chat, system)[0],), beside=True)
        for number, canary in enumerate(canaries(recipe.canaries, seed=recipe.seed))
        for _ in range(canary.repeats)
    ]


def _refuse_too_long(items: Sequence[Item], limit: int | None, *, virtual: int, new: int) -> None:
    """Refuse items that do not fit; `new` is the room for an answer that is still to be written."""
    for item in items:
        length = max(len(sequence.ids) for sequence in item.sequences)
        if limit is not None and length + virtual + new > limit:
            before = f" behind {virtual} virtual ones" if virtual else ""
            room = f", with room for an answer of {new}," if new else ""
            raise DataError(
                f"an example of {length} tokens{before}{room} does not fit the model's {limit}",
                where=item.where,
                fix="shorten or split it; Luthier never cuts examples silently",
            )


def _general(models: Models, show: Show) -> list[Item]:
    from luthier.candidates.replay import TOGETHER, unreplayed_answers

    with show.task("tempering: base model's own answers", TOGETHER) as advance:
        return unreplayed_answers(models.base().model, models.chat, models.identity, advance)


def make_plan(
    record: Record, recipe: Recipe, material: Material, key: str, *, like: Estimate | None = None
) -> Planned:
    """Measured on the first start of a training, read from `train/plan.json` on every later one.

    Args:
        like: the estimate of a training that costs the same: then nothing is measured.
    """
    from luthier.train.estimate import Estimate, estimate_training
    from luthier.train.estimate_online import estimate_online

    path = record / "train/plan.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["key"] == key:
            return Planned(known["run"], Estimate(**known["estimate"]))
    model, method, items, held = material.model, material.method, material.trained_on, material.held
    if like is not None:
        estimate = like
    elif material.rollouts is None:
        estimate = estimate_training(model, method, items, held, recipe.train, seed=recipe.seed)
    else:
        estimate = estimate_online(model, method, items, recipe.train, material.rollouts, seed=recipe.seed)
    planned = Planned(secrets.token_hex(4), estimate)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"key": key, **asdict(planned)})
    return planned


def _tell_examples(show: Show, recipe: Recipe, material: Material) -> None:
    from luthier.stats import detectable_difference

    count = len(material.split.test)
    smallest = detectable_difference(count)
    shown = "no difference" if smallest is None else f"a difference of about {100 * smallest:.0f} points"
    show.note(f"{count} held-out examples can show {shown} (80% power)")
    what = "answers of the base model" if recipe.train.replay_data is None else "general examples"
    more = f" and {len(material.replayed)} {what}" if material.replayed else ""
    more += f", and {material.canaries} made-up sentences" if material.canaries else ""
    if material.unwanted and material.method.learns_unwanted:
        more = f", and {material.unwanted} whose answer should not be given{more}"
    elif material.unwanted:
        more += f"; {material.unwanted} answers that should not be given are for `method: kto` alone"
    show.note(f"training on {len(material.split.train)} examples{more}")


def _tell_estimate(show: Show, recipe: Recipe, estimate: Estimate) -> None:
    epochs = recipe.train.epochs
    show.note(
        f"{estimate.tokens:,} tokens in {estimate.steps} steps ({epochs} epoch{'s' if epochs > 1 else ''}): "
        f"{estimate.trained_tokens:,} trained, {estimate.executed_tokens:,} computed after sharing"
    )
    until = ", or until validation no longer improves" if recipe.train.patience is not None else ""
    graded = ", and the validation answers" if recipe.selects_by_score else ""
    show.note(
        f"about {_duration(estimate.seconds)}{graded}{until}; "
        f"about {estimate.peak_memory_bytes / 1e9:.1f} GB of memory"
    )
    if not estimate.fits:
        show.note(
            f"this may not fit: {estimate.available_bytes / 1e9:.1f} GB more can be taken here; "
            "shorter examples or a smaller model need less"
        )


def train_on(
    record: Record,
    recipe: Recipe,
    models: Models,
    show: Show,
    material: Material,
    planned: Planned,
    key: str,
    *,
    until: int | None = None,
    called: str = "tuned: training",
) -> dict[str, Any]:
    """Train, seen on the screen and by trackers; returns the summary.

    Args:
        until: pause after so many steps, as `train` does: then `validation_loss` and `validation_score` are
            those of the weights as they are.
    """
    from luthier.trackers import build_trackers, tracking
    from luthier.train import train
    from luthier.train.loop import validation_loss
    from luthier.train.machine import matmul_rate, watching_memory
    from luthier.train.schedule import peak_rate
    from luthier.train.updates import as_given

    model, estimate, adapter, settings = material.model, planned.estimate, recipe.adapter, recipe.train
    device = next(model.parameters()).device
    rate = matmul_rate(device, model.dtype) if estimate.seconds > RATE_SECONDS else None
    held_out = HeldOut(recipe, models, material.split, model) if recipe.selects_by_score else None
    with (
        tracking(
            build_trackers(recipe.trackers, record / "train", planned.run),
            recipe.name,
            _configuration(recipe, estimate),
            tell=show.note,
        ) as log,
        watching_memory(device) as memory,
        show.task(called, until or estimate.steps) as bar,
    ):
        view = TrainingView(bar, estimate, rate, show.note)
        summary = train(
            model,
            material.method,
            material.trained_on,
            material.held,
            settings,
            peak=peak_rate(
                settings.learning_rate,
                hidden_size=model.config.get_text_config().hidden_size,
                kind=adapter.kind,
                rank=adapter.rank,
                pace=material.method.pace,
            ),
            seed=recipe.seed,
            folder=record / "train",
            key=key,
            micro_tokens=estimate.micro_tokens,
            ask=material.rollouts or as_given,
            score=None if held_out is None else held_out.score,
            watch=dict if held_out is None else held_out.watch,
            log=log,
            show=view if until is None else lambda now: view(replace(now, steps=min(until, now.steps))),
            until=until,
        )
        if summary["stopped"] is None:
            tokens = 2 * summary["micro_tokens"]  # at once, as in training
            loss = validation_loss(model, material.method, material.held, micro_tokens=tokens)
            score = None if held_out is None else held_out.score()
            summary |= {"validation_loss": loss, "validation_score": score}
    return {**summary, "peak_memory_bytes": max(summary["peak_memory_bytes"], memory.peak_bytes)}


def _configuration(recipe: Recipe, estimate: Estimate) -> dict[str, Any]:
    """What trackers are told of a run: no texts and no folders of the user's."""
    asked = recipe.model_dump(mode="json", include={"method", "adapter", "train", "seed"})
    return {
        "model": Path(recipe.model).name,
        **dict(_flat(asked)),
        "steps": estimate.steps,
        "tokens": estimate.tokens,
        "micro_tokens": estimate.micro_tokens,
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value) if isinstance(value, list) else value


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
