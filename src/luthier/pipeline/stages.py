"""The work of each stage: reads the run folder and the user's files, writes its outputs atomically."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from luthier.errors import DataError
from luthier.examples import Example, Split, split_examples
from luthier.examples.problems import ProblemKinds, tell_problems
from luthier.examples.split import group_by
from luthier.pipeline.origins import summarise_provenance
from luthier.pipeline.scoring import recipe_grader
from luthier.pipeline.sources import Sources
from luthier.progress import Show
from luthier.recipe import Recipe
from luthier.recipe.grader_options import grader_kind
from luthier.record import Record, sha256_of, write_json, write_jsonl

SIDES = ("train", "validation", "test")


def write_audit(record: Record, recipe: Recipe, sources: Sources, show: Show) -> None:
    """`audit.json` and `audit.html`."""
    from luthier.audit import audit_examples
    from luthier.audit.overview import PROBLEMS_SHOWN, add_findings, find_unreadable, overview
    from luthier.audit.suite_index import open_suites
    from luthier.card.audit_page import Checked, write_audit_page
    from luthier.models.load import load_tokenizer
    from luthier.pipeline.auditing import read_by

    tokenizer = load_tokenizer(recipe.model)
    reader = read_by(recipe.model, tokenizer, recipe.system)
    chat, limit = reader.chat, None if recipe.reads_texts else reader.limit  # texts are cut into pieces
    kinds: dict[str | None, Any] = {"label": "label", "json_schema": "json", "json_fields": "json"}
    with show.task("checking examples", None):
        sides = _sides_to_check(recipe, sources)
        audit = audit_examples(
            sides,
            system=recipe.system,
            tokens=reader.tokens,
            special_tokens=reader.special_tokens,
            max_tokens=limit,
            answer_kind=None if recipe.grader is None else kinds.get(grader_kind(recipe.grader), "text"),
            test_share=recipe.split.test,
            suites=open_suites(),
        )
        read = sources.provenance()
        unreadable = find_unreadable(sources.problems[:PROBLEMS_SHOWN])
        told = add_findings(audit.as_json(), unreadable, len(sources.problems))
        told |= tell_problems(ProblemKinds(sources.problems))
        told |= overview(sides, test_share=recipe.split.test, read=read)
        names = " + ".join(dict.fromkeys(Path(file["file"]).name for file in read))
        findings = (*unreadable, *audit.findings)
        page = Checked(names, told, findings, sides, chat, recipe.model, recipe.system, limit, reader.notes)
    write_json(record / "audit.json", told)
    write_audit_page(record / "audit.html", page)


def write_split(record: Record, recipe: Recipe, sources: Sources) -> None:
    """`data/`: the three sides and the manifest.

    Raises:
        DataError: a row cannot be read, and the recipe does not say that it may be left out.
    """
    sources.refuse_problems()
    split, clusters = _divide(recipe, sources)
    given = [side for side in sources.examples if side not in ("train", "extra")]
    for side, examples in split.sides().items():
        write_jsonl(record / f"data/{side}.jsonl", (example.as_row() for example in examples))
    how = "by hash of each group of near-duplicates, so that no group is on two sides, labels by their shares"
    if recipe.data.extra is not None:
        more = f"{len(sources.examples['extra'])} extra examples from {Path(recipe.data.extra).name}"
        how += f"; {more}, all for training"
    manifest = {
        "sources": sources.provenance(),
        "sides": {
            side: {**_counted(examples), "sha256": sha256_of(record / f"data/{side}.jsonl")}
            for side, examples in split.sides().items()
        },
        "method": how if not given else f"{', '.join(given)} as given; the rest {how}",
        "near_duplicate_clusters": clusters,
        "provenance": summarise_provenance(split.sides()),
    }
    write_json(record / "data/manifest.json", manifest)


def _counted(examples: Sequence[Example]) -> dict[str, int]:
    """Examples of a side, and how many more have an answer that should not be given."""
    unwanted = sum(not example.wanted for example in examples)
    return {"examples": len(examples) - unwanted, **({"unwanted": unwanted} if unwanted else {})}


def _divide(recipe: Recipe, sources: Sources) -> tuple[Split, int]:
    """The split, and how many clusters of near-duplicates it kept whole."""
    from luthier.examples.duplicates import find_near_duplicates
    from luthier.examples.wording import request_text

    given = dict(sources.examples)
    if (column := recipe.split.group) is not None:
        has = {side for side, own in given.items() if side == "train" or any(column in e.fields for e in own)}
        given |= {side: group_by(given[side], column) for side in has}
    loose, extra = given.pop("train"), given.pop("extra", ())
    clusters = find_near_duplicates([request_text(example) for example in loose])
    split = split_examples(
        loose,
        validation=recipe.split.validation,
        test=recipe.split.test,
        seed=recipe.seed,
        near_duplicates=[cluster.members for cluster in clusters],
        given=given,  # type: ignore[arg-type]
    )
    return replace(split, train=(*split.train, *_apart(extra, split))), len(clusters)


def _apart(extra: Sequence[Example], split: Split) -> list[Example]:
    """Extra examples under ids of their own, where the same example is on a side already."""
    held = {example.group for example in (*split.validation, *split.test)} - {None}
    if torn := next((example for example in extra if example.group in held), None):
        raise DataError(
            f"an extra example of group {torn.group!r}, of which others are held out",
            where=torn.where,
            fix="what is held out must stay unseen: give extra examples of other groups",
        )
    known = {example.id for side in split.sides().values() for example in side}
    return [replace(e, id=f"{e.id}-extra") if e.id in known else e for e in extra]


def _sides_to_check(recipe: Recipe, sources: Sources) -> Mapping[str, Sequence[Example]]:
    """The sides of the split, so that leakage between them is looked for; as given when it cannot be made."""
    try:
        return _divide(recipe, sources)[0].sides()
    except DataError:
        given = dict(sources.examples)
        given["train"] += given.pop("extra", ())
        return given if len(given) > 1 else {"all": given["train"]}


def read_split(record: Record) -> Split:
    """The three sides as `write_split` left them, without answers that should not be given.

    Those are learnt from by a method that can, and are never shown, asked or imitated: see `Split.unwanted`.

    Raises:
        RecordError: they are not there.
    """
    sides = {
        side: tuple(map(Example.from_row, record.read_jsonl(f"data/{side}.jsonl", needed_by="split")))
        for side in SIDES
    }
    wanted = {side: tuple(e for e in examples if e.wanted) for side, examples in sides.items()}
    unwanted = {side: tuple(e for e in examples if not e.wanted) for side, examples in sides.items()}
    return Split(**wanted, unwanted=unwanted)


def write_scores(record: Record, recipe: Recipe) -> None:
    """`predictions/` and `scores.json`."""
    from luthier.candidates.constant import against_constant
    from luthier.evidence.evaluation import clusters_of, grade_answers, summarise

    split = read_split(record)
    grader = recipe_grader(recipe, split)
    tables: dict[str, list[dict[str, Any]]] = {}
    for name in recipe.candidates:
        tables[name] = grade_answers(record.read_jsonl(f"answers/{name}.jsonl"), split.test, grader)
        write_jsonl(record / f"predictions/{name}.jsonl", tables[name])
    scores = summarise(
        tables, split.test, grader, seed=recipe.seed, prices=recipe.prices, slices=recipe.slices
    )
    if "tuned" in tables:
        scores["constant"] = against_constant(
            tables["tuned"],
            split.test,
            split.train,
            grader,
            clusters=clusters_of(split.test),
            seed=recipe.seed,
        )
    searched = [name for name in recipe.candidates if (record / f"search/{name}.json").is_file()]
    if searched:
        scores["search"] = {name: record.read_json(f"search/{name}.json") for name in searched}
    write_json(record / "scores.json", scores)


def export_abstention(record: Record, folder: Path) -> None:
    """`abstention.json` beside an exported model, where the record says when it should hand over."""
    from luthier.evidence.calibration import travelling

    if (record / "calibration.json").is_file():
        write_json(folder / "abstention.json", travelling(record.read_json("calibration.json")))


def write_failures(record: Record, recipe: Recipe) -> None:
    """`failures.json`: the kinds of wrong answers of each candidate; a text is never wrong."""
    from luthier.evidence.failures import find_failures

    train = read_split(record).train
    names = () if recipe.reads_texts else recipe.candidates
    found = {name: find_failures(record.read_jsonl(f"predictions/{name}.jsonl"), train) for name in names}
    write_json(record / "failures.json", found)
