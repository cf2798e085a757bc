"""The recipe: what the user asked for, with every default written out.

A recipe is a small YAML file. `load_recipe` reads it, refuses unknown keys by naming the nearest
one, and resolves paths against the recipe's own folder; every stage receives plain values from it.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from luthier.errors import RecipeError
from luthier.recipe.candidate_options import (
    Constrain,
    Documents,
    Prices,
    Prompts,
    Retrieval,
    ScratchKind,
    Shots,
    TunedSystem,
)
from luthier.recipe.data_options import DataFiles, resolve_files
from luthier.recipe.grader_options import (
    PYTHON,
    GraderChoice,
    GraderOptions,
    JudgeOptions,
    RewardModelOptions,
    check_grader,
)
from luthier.recipe.grader_options import Section as _Section
from luthier.recipe.method_defaults import fit_method, refuse_misfits
from luthier.recipe.method_options import ONLINE, MethodChoice, MethodOptions, method_name, writes_own
from luthier.recipe.mistakes import explain_mistake, suggest_key
from luthier.recipe.probe_options import ProbeChoice, ProbeGates
from luthier.recipe.stakes_options import (
    Abstain,
    Confidence,
    ConfidenceChoice,
    Stakes,
    demand_more,
    refuse_gaps,
)
from luthier.recipe.supervised_options import DistillOptions
from luthier.recipe.yaml_text import PlainYaml, StrictYaml

CandidateName = Literal["prompt", "few_shot", "retrieval", "scratch", "tuned"]
TrackerName = Literal["tensorboard", "mlflow", "wandb", "trackio"]
AdapterKind = Literal["lora", "rslora", "dora", "prefix", "prompt", "full"]
DATA_SUFFIXES = (
    *(".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt", ".md"),
    *(".gz", ".bz2", ".xz", ".zst"),
)

LAYERS = re.compile(r"all|last [1-9]\d*|\d+-\d+")  # which layers are trained, when not a list
SUITES = "suites:"  # data of the public suites, as `suites:BoolQ/dev.jsonl`
HUB = "hub:"  # data sets of the Hugging Face hub, as `hub:OWNER/NAME@train`


class Split(_Section):
    """Shares of the examples that are held out when the data comes as one file."""

    validation: float = Field(0.1, gt=0, lt=0.5, description="Share used to choose the best epoch.")
    test: float = Field(0.3, gt=0, lt=0.8, description="Share the verdict is based on.")
    group: str | None = Field(
        None, description="Column whose equal values stay on one side, such as a customer. Default: `group`."
    )


class Adapter(_Section):
    """What is trained. LoRA on all linear layers ("LoRA Without Regret": alpha 32, scale alpha/rank)."""

    kind: AdapterKind = Field(
        "lora",
        description="lora, rslora or dora (low-rank updates), prefix or prompt (virtual tokens), full.",
    )
    rank: int = Field(16, ge=1, le=1024, description="Rank of the update; 8 to 32 suits small data.")
    alpha: int = Field(
        32, ge=1, description="Scale of the update is alpha / rank; rslora: alpha / sqrt(rank)."
    )
    virtual_tokens: int = Field(16, ge=1, le=1024, description="Length of a prefix or prompt.")
    layers: str | tuple[int, ...] = Field(
        "all", description="Layers that are trained: all, `last 10`, `4-9`, or a list; the others are frozen."
    )
    base: Literal["exact", "int8", "int4"] = Field(
        "exact", description="How the frozen base is held while training; int8 and int4 are approximate."
    )

    @field_validator("layers", mode="before")
    @classmethod
    def _known_layers(cls, value: Any) -> Any:
        if isinstance(value, str) and LAYERS.fullmatch(value):
            return value
        is_list = isinstance(value, list | tuple) and value and all(type(i) is int and i >= 0 for i in value)
        if is_list and len(set(value)) == len(value):
            return tuple(sorted(value))
        raise ValueError("expected all, `last 10`, `4-9`, or a list of different layers, the first being 0")

    @model_validator(mode="after")
    def _fits_together(self) -> Adapter:
        if self.kind == "full" and self.base != "exact":
            raise ValueError(
                f"full fine-tuning changes the base, which therefore cannot be held in {self.base}: "
                "use `base: exact`, or `kind: lora`"
            )
        if self.kind in ("prefix", "prompt") and self.layers != "all":
            raise ValueError(
                f"a {self.kind} acts on all layers: leave out `layers`, or use `kind: lora`, which can choose"
            )
        return self


class Train(_Section):
    """How long and how fast to train."""

    epochs: int = Field(3, ge=1, le=1000, description="Passes over the training examples.")
    learning_rate: float | Literal["auto"] = Field("auto", description="Peak rate, or `auto` for the rule.")
    batch_tokens: int = Field(2048, ge=1, description="Tokens (prompt and answer) per optimizer step.")
    max_minutes: float | None = Field(None, gt=0, description="Stop training after this many minutes.")
    patience: int | None = Field(
        None, ge=1, description="Stop after this many epochs without a better validation loss or score."
    )
    select: Literal["loss", "score"] = Field(
        "loss",
        description="The best epoch: lowest validation loss, or highest score of 64 validation answers, "
        "which is the default with patience.",
    )
    replay: float = Field(
        0.1, ge=0, le=0.5, description="Share of tokens from the base's own answers, against forgetting."
    )
    replay_data: str | None = Field(
        None, description="A file of general examples to replay instead of the base's own answers."
    )
    replay_loss: Literal["nll", "kl"] = Field(
        "nll", description="What replay keeps: the answers' tokens, or at each token the base's distribution."
    )
    temper: tuple[float, ...] = Field(
        (),
        description="Scales of the trained update to choose from on validation, the mildest that is as good: "
        "[0.25, 0.5, 0.75, 1], against forgetting. Low-rank updates only.",
    )

    @model_validator(mode="before")
    @classmethod
    def _select_by_score(cls, values: Any) -> Any:
        """Loss alone stops too early: answers go on getting better while it rises."""
        if isinstance(values, dict) and values.get("patience") is not None:
            return {"select": "score"} | values
        return values

    @field_validator("temper")
    @classmethod
    def _scales(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < scale <= 2 for scale in value) or len(set(value)) != len(value):
            raise ValueError("expected different scales above 0 and up to 2, such as [0.25, 0.5, 0.75, 1]")
        return value

    @field_validator("learning_rate")
    @classmethod
    def _positive(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError("expected a rate between 0 and 1")
        return value


class Gates(ProbeGates):
    """What `ship` demands."""

    min_gain: float = Field(0.02, ge=0, le=1, description="Gain over the best alternative, in score.")
    max_cost_ratio: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Also ship when tuned is no worse by min_gain and needs at most this share of the "
        "best alternative's prompt tokens per request.",
    )


class Recipe(_Section):
    """A whole run. Only `model` and `data` are required."""

    name: str = Field("", description="Name of the run; the recipe's file name when absent.")
    model: str = Field(description="smollm2-135m (embedded), a local folder, or a hub id.")
    data: DataFiles = Field(description="A file of examples, a list of tasks, or {train, test, ...}.")
    stakes: Stakes = "normal"
    system: str | None = Field(None, description="System prompt, for examples that carry none.")
    prompts: Prompts = ()
    tuned_system: TunedSystem = None
    grader: GraderChoice | None = Field(
        None,
        description="How answers are scored: a name, or {kind: ..., its options}; chosen from the data when "
        "absent.",
    )
    answer_schema: str | None = Field(
        None,
        description="JSON Schema file for the json_schema grader; inferred from training answers if absent.",
    )
    slices: tuple[str, ...] = Field(
        (), description="Fields of the examples by whose values the scores are broken down."
    )
    candidates: tuple[CandidateName, ...] = Field(
        ("prompt", "few_shot", "retrieval", "scratch", "tuned"), description="What is compared."
    )
    shots: Shots = 4
    documents: Documents = None
    retrieval: Retrieval = Retrieval()
    scratch: ScratchKind = "auto"
    constrain: Constrain = "none"
    max_new_tokens: int | None = Field(
        None, ge=1, description="Longest answer; 1.5 times the longest training answer when absent."
    )
    method: MethodChoice = Field(
        "sft",
        description="sft (imitates the answers), cpt (plain text), distill (a teacher's words), classify (a "
        "head for labels), dpo, orpo, simpo (prefer chosen to rejected answers), kto (answers judged one by "
        "one), reward (a number for an answer), grpo, rloo, ppo, best_of (own answers, rewarded), or "
        "{kind: ..., its options}.",
    )
    reward: GraderChoice | None = Field(
        None,
        description="What a method that learns from its own answers is rewarded by, written as `grader`; "
        "the grader when absent.",
    )
    adapter: Adapter = Adapter()
    train: Train = Train()
    split: Split = Split()
    probes: ProbeChoice = Field(
        ("forgetting", "own_text"), description="What may have been lost: a list of probes, or `all`."
    )
    probe_items: int = Field(400, ge=8, description="Public items the forgetting probe asks.")
    canaries: int = Field(
        0, ge=0, le=64, description="Made-up sentences trained along, to measure what is memorized."
    )
    gates: Gates = Gates()
    abstain: Abstain = Abstain()
    confidence: ConfidenceChoice = Confidence()
    prices: Prices | None = Field(None, description="What requests cost, for scores in money.")
    learning_curve: bool = Field(
        False, description="Also train on a quarter and a half of the examples: would more of them help?"
    )
    trackers: tuple[TrackerName, ...] = Field(
        (), description="Who else gets training's numbers: tensorboard, mlflow, wandb, trackio."
    )
    seed: int = Field(0, ge=0, description="Seed of the split, the order of examples and the adapter.")

    @model_validator(mode="before")
    @classmethod
    def _high_stakes(cls, values: Any) -> Any:
        return demand_more(fit_method(values))

    @field_validator("data", mode="before")
    @classmethod
    def _one_file(cls, value: Any) -> Any:
        if isinstance(value, str | list):
            return {"train": value}
        if not isinstance(value, dict):
            raise ValueError("expected a file, or {train: ..., validation: ..., test: ...}")
        return value

    @field_validator("grader", "reward", mode="before")
    @classmethod
    def _known_grader(cls, value: Any) -> Any:
        return check_grader(value)

    @field_validator("candidates", "slices")
    @classmethod
    def _distinct(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(set(value)) != len(value) or (not value and info.field_name == "candidates"):
            raise ValueError("expected at least one, and none twice")
        return value

    @property
    def selects_by_score(self) -> bool:
        """Whether the best epoch is the one with the best answers: always where the model learns from its
        own, and else where the recipe says so."""
        return writes_own(self.method) or self.train.select == "score"

    @property
    def reads_texts(self) -> bool:
        """Whether the examples are texts to be made likelier, not requests to be answered."""
        return method_name(self.method) == "cpt"

    def system_of(self, candidate: str) -> str | None:
        """The system prompt a candidate is asked with; None where only the examples' own count."""
        own = self.tuned_system if candidate == "tuned" else None
        return self.system if own is None else own or None

    @model_validator(mode="after")
    def _shares(self) -> Recipe:
        refuse_misfits(self)
        refuse_gaps(self.stakes, self.probes)
        kind = method_name(self.method)
        if self.train.temper and self.adapter.kind not in ("lora", "rslora"):
            adapter = self.adapter.kind
            raise ValueError(f"train.temper scales a low-rank update, and adapter.kind is {adapter}")
        if self.train.temper and kind != "sft":
            raise ValueError(f"train.temper chooses by how likely answers are, which is not {kind}'s aim")
        if self.reward is not None and kind not in ONLINE:
            raise ValueError(f"reward is for methods that learn from their own answers: {', '.join(ONLINE)}")
        if self.learning_curve and self.data.tasks:
            raise ValueError("learning_curve knows no tasks: leave it out, or train on one file")
        if self.split.validation + self.split.test > 0.9:
            raise ValueError("split: validation + test must leave at least a tenth for training")
        return self


def load_recipe(path: Path | str, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe file, apply `overrides` (top-level keys), and resolve its paths.

    Relative paths in the recipe are relative to the recipe's folder.

    Raises:
        RecipeError: the file is missing or not YAML, a key is unknown or missing, a value is wrong.
    """
    path = Path(path)
    if path.suffix in DATA_SUFFIXES:
        fix = f"write a recipe for it with: luthier init {path}"
        raise RecipeError("is a file of examples, not a recipe", where=str(path), fix=fix)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(
            "no such recipe", where=str(path), fix="write one with: luthier init data.jsonl"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read: {error}", where=str(path)) from None
    try:
        raw = yaml.load(text, Loader=StrictYaml)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise RecipeError(f"not valid YAML: {getattr(error, 'problem', error)}", where=where) from None
    if not isinstance(raw, dict):
        found = "is empty" if raw is None else "is not a recipe: expected `key: value` lines"
        raise RecipeError(found, where=str(path), fix="write one with: luthier init data.jsonl")
    return parse_recipe(raw | (overrides or {}), base=path.parent, where=str(path), name=path.stem)


def parse_recipe(raw: dict[str, Any], *, base: Path, where: str = "recipe", name: str = "run") -> Recipe:
    """Build a `Recipe` from plain values, with paths relative to `base`.

    Raises:
        RecipeError: as `load_recipe`.
    """
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(explain_mistake(error), where=where, fix=suggest_key(error, Recipe)) from None
    return recipe.model_copy(
        update={
            "name": recipe.name or name,
            "data": resolve_files(recipe.data, lambda file: _resolve(file, base)),
            "method": _resolve_method(recipe.method, base),
            "model": _resolve_model(recipe.model, base),
            "answer_schema": _resolve(recipe.answer_schema, base),
            "documents": _resolve(recipe.documents, base),
            "train": recipe.train.model_copy(
                update={"replay_data": _resolve(recipe.train.replay_data, base)}
            ),
            "grader": _resolve_grader(recipe.grader, base),
            "reward": _resolve_grader(recipe.reward, base),
        }
    )


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, for editors (`# yaml-language-server: $schema=...`)."""
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Luthier recipe"
    data = schema["properties"]["data"]
    tasks = {"type": "array", "items": {"$ref": "#/$defs/TaskFile"}}
    schema["properties"]["data"] = {"anyOf": [{"type": "string"}, tasks, {"$ref": data.pop("$ref")}], **data}
    return schema


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML: every default written out, in the order of the model."""
    values = recipe.model_dump(mode="json")
    return yaml.dump(values, Dumper=PlainYaml, sort_keys=False, allow_unicode=True, width=100)


def digest(value: Any) -> str:
    """sha256 of a value's canonical JSON: the key under which a stage's work is remembered."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _resolve(value: str | None, base: Path) -> str | None:
    if value is None or value.startswith((SUITES, HUB)):
        return value
    path = Path(value).expanduser()
    return str(path if path.is_absolute() else (base / path).resolve())


def _resolve_method(method: str | MethodOptions, base: Path) -> str | MethodOptions:
    if isinstance(method, DistillOptions):
        return method.model_copy(update={"teacher": _resolve_model(method.teacher, base)})
    return method


def _resolve_model(value: str, base: Path) -> str:
    folder = Path(value).expanduser()
    local = folder if folder.is_absolute() else base / folder
    return str(local.resolve()) if local.is_dir() else value


def _resolve_grader(value: str | GraderOptions | None, base: Path) -> str | GraderOptions | None:
    if isinstance(value, str) and value.startswith(PYTHON):
        file, function = value.removeprefix(PYTHON).rsplit(":", 1)
        return f"{PYTHON}{_resolve(file, base)}:{function}"
    if isinstance(value, RewardModelOptions):
        return value.model_copy(update={"run": _resolve(value.run, base)})
    if isinstance(value, JudgeOptions):
        model = value.model and _resolve_model(value.model, base)
        return value.model_copy(update={"labels": _resolve(value.labels, base), "model": model})
    return value
