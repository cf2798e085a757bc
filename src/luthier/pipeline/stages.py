"""The work of each stage: reads the run folder and the user's files, writes its outputs atomically."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from luthier.errors import DataError
from luthier.examples import Example, Split, split_examples
from luthier.pipeline.models import Models
from luthier.pipeline.scoring import recipe_grader
from luthier.pipeline.sources import Sources
from luthier.progress import Show
from luthier.recipe import Recipe
from luthier.record import Record, sha256_of, write_json, write_jsonl

if TYPE_CHECKING:
    from luthier.candidates import Answer

SIDES = ("train", "validation", "test")
# what the probes' reports are made of, raw, so that another margin needs no model
MEASURED = {name: f"answers/{name}.json" for name in ("forgetting", "own_text")}


def write_audit(record: Record, recipe: Recipe, sources: Sources, show: Show) -> None:
    """`audit.json`."""
    from luthier.audit import audit_examples
    from luthier.models.load import load_tokenizer

    tokenizer = load_tokenizer(recipe.model)
    kinds: dict[str | None, Any] = {"label": "label", "json_schema": "json", "json_fields": "json"}
    with show.task("checking examples", None):
        audit = audit_examples(
            _sides_to_check(recipe, sources),
            system=recipe.system,
            special_tokens=tokenizer.all_special_tokens,
            answer_kind=None if recipe.grader is None else kinds.get(recipe.grader, "text"),
            test_share=recipe.split.test,
        )
    write_json(record / "audit.json", audit.as_json())


def write_split(record: Record, recipe: Recipe, sources: Sources) -> None:
    """`data/`: the three sides and the manifest."""
    split, clusters = _divide(recipe, sources)
    given = [side for side in sources.examples if side != "train"]
    for side, examples in split.sides().items():
        write_jsonl(record / f"data/{side}.jsonl", (example.as_row() for example in examples))
    how = "by hash of each group of near-duplicates, so that no group is on two sides"
    manifest = {
        "sources": sources.provenance(),
        "sides": {
            side: {"examples": len(examples), "sha256": sha256_of(record / f"data/{side}.jsonl")}
            for side, examples in split.sides().items()
        },
        "method": how if not given else f"{', '.join(given)} as given; the rest {how}",
        "near_duplicate_clusters": clusters,
    }
    write_json(record / "data/manifest.json", manifest)


def _divide(recipe: Recipe, sources: Sources) -> tuple[Split, int]:
    """The split, and how many clusters of near-duplicates it kept whole."""
    from luthier.examples.duplicates import find_near_duplicates
    from luthier.examples.wording import request_text

    given = dict(sources.examples)
    loose = given.pop("train")
    clusters = find_near_duplicates([request_text(example) for example in loose])
    split = split_examples(
        loose,
        validation=recipe.split.validation,
        test=recipe.split.test,
        seed=recipe.seed,
        near_duplicates=[cluster.members for cluster in clusters],
        given=given,  # type: ignore[arg-type]
    )
    return split, len(clusters)


def _sides_to_check(recipe: Recipe, sources: Sources) -> Mapping[str, Sequence[Example]]:
    """The sides of the split, so that leakage between them is looked for; as given when it cannot be made."""
    try:
        return _divide(recipe, sources)[0].sides()
    except DataError:
        given = sources.examples
        return given if len(given) > 1 else {"all": given["train"]}


def read_split(record: Record) -> Split:
    """The three sides as `write_split` left them.

    Raises:
        RecordError: they are not there.
    """
    sides = {
        side: tuple(map(Example.from_row, record.read_jsonl(f"data/{side}.jsonl", needed_by="split")))
        for side in SIDES
    }
    return Split(**sides)


def write_answers(record: Record, recipe: Recipe, models: Models, show: Show, name: str) -> None:
    """`answers/NAME.jsonl`: a candidate's answers to the test side, not graded yet."""
    from luthier.candidates import answer_from_scratch

    split = read_split(record)
    if name == "scratch":
        with show.task("scratch: training and answering", None):
            answers = answer_from_scratch(split.test, split.train, seed=recipe.seed)
    else:
        answers = _ask(recipe, models, show, name, split)
    write_jsonl(record / f"answers/{name}.jsonl", (answer.as_row() for answer in answers))


def _ask(recipe: Recipe, models: Models, show: Show, name: str, split: Split) -> list[Answer]:
    from luthier.candidates import ask, few_shot_messages, prompt_messages, retrieval_messages

    model = models.tuned() if name == "tuned" else models.base().model
    chat, system, shots = models.chat, recipe.system, recipe.shots
    if name == "few_shot":
        asked = few_shot_messages(split.test, split.train, chat, system, shots=shots, seed=recipe.seed)
    elif name == "retrieval":
        asked = retrieval_messages(split.test, split.train, chat, system, shots=shots)
    else:
        asked = {example.id: prompt_messages(example, chat, system) for example in split.test}
    longest = max(len(chat.prompt(messages)) for messages in asked.values())
    limit = models.context_limit()
    new = recipe.max_new_tokens or models.longest_answer(split.train)
    if limit is not None and longest + new > limit:
        raise DataError(
            f"candidate {name}: a prompt of {longest} tokens and an answer of up to {new} do not fit "
            f"the model's {limit}",
            fix="lower `shots`, shorten the examples, or choose a model with a longer context",
        )
    with show.task(f"{name}: answering", len(asked)) as advance:
        return ask(model, chat, asked, max_new_tokens=new, advance=advance)


def write_scores(record: Record, recipe: Recipe) -> None:
    """`predictions/` and `scores.json`."""
    from luthier.evaluation import grade_answers, summarise

    split = read_split(record)
    grader = recipe_grader(recipe, split)
    tables: dict[str, list[dict[str, Any]]] = {}
    for name in recipe.candidates:
        tables[name] = grade_answers(record.read_jsonl(f"answers/{name}.jsonl"), split.test, grader)
        write_jsonl(record / f"predictions/{name}.jsonl", tables[name])
    write_json(record / "scores.json", summarise(tables, split.test, grader, seed=recipe.seed))


def measure_forgetting(record: Record, recipe: Recipe, models: Models, show: Show) -> None:
    """What base and tuned give each option of the public items."""
    from luthier.probes import base_forgetting, choice_items, option_logprobs

    items = choice_items(recipe.probe_items)
    options = sum(len(item.options) for item in items)
    with show.task("forgetting: base", options) as advance, models.untuned() as model:
        base = base_forgetting(model, models.tokenizer, models.identity, items, advance)
    with show.task("forgetting: tuned", options) as advance:
        after = option_logprobs(models.tuned(), models.tokenizer, items, advance)
    write_json(record / MEASURED["forgetting"], {"base": base, "tuned": after})


def write_forgetting(record: Record, recipe: Recipe) -> None:
    """`probes/forgetting.json`, from what was measured."""
    from luthier.probes import choice_items, report_forgetting

    measured = record.read_json(MEASURED["forgetting"], needed_by="probe")
    margin, items = recipe.gates.max_forgetting, choice_items(recipe.probe_items)
    report = report_forgetting(items, measured["base"], measured["tuned"], margin=margin, seed=recipe.seed)
    write_json(record / "probes/forgetting.json", report)


def measure_own_text(record: Record, models: Models, show: Show) -> None:
    """How surprised base and tuned are by the base model's own texts."""
    from luthier.probes import base_own_text, own_text_nll
    from luthier.probes.own_text import REQUESTS

    with show.task("own text: base", len(REQUESTS)) as advance, models.untuned() as model:
        texts = base_own_text(model, models.chat, models.identity, advance)
    with show.task("own text: tuned", len(texts)) as advance:
        nll = own_text_nll(models.tuned(), texts, advance)
    write_json(record / MEASURED["own_text"], {"texts": texts, "tuned": nll})


def write_own_text(record: Record, recipe: Recipe) -> None:
    """`probes/own_text.json`, from what was measured."""
    from luthier.probes import report_own_text

    measured = record.read_json(MEASURED["own_text"], needed_by="probe")
    margin = recipe.gates.max_drift
    report = report_own_text(measured["texts"], measured["tuned"], margin=margin, seed=recipe.seed)
    write_json(record / "probes/own_text.json", report)
