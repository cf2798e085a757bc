"""Drafts that a stronger model writes, as examples: marked as synthetic, and accepted by nobody yet.

What comes of a request is in `drafting.py`; a person accepts drafts in `acceptance.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from luthier.collect.asking import Teacher
from luthier.collect.drafting import Work, answer_prompts, think_of_more
from luthier.collect.example_row import Row, make_row, refuse_to_overwrite, writing
from luthier.collect.tally import NotTakenError, Tally
from luthier.errors import RecipeError
from luthier.examples.read import read_examples
from luthier.examples.wording import request_text
from luthier.progress import Show, Silent
from luthier.ranking.journal import append_line, held, read_lines
from luthier.recipe.grader_options import Endpoint
from luthier.record import explain_os_errors, sha256_of

VERSION = 1  # raise it when the same options would ask in other words


@dataclass(frozen=True)
class DraftOptions:
    """How drafts are written.

    Attributes:
        endpoint: where the model is.
        prompts: a file of requests to answer; None to think of new ones.
        like: how many new requests, like those of the examples.
        shots: examples shown before each request.
        seed: of which examples.
        system: told to the model in place of the examples' own; not kept.
        source, licence: for the provenance; the source is the model and its host where None.
    """

    endpoint: Endpoint
    prompts: Path | None = None
    like: int | None = None
    shots: int = 4
    seed: int = 0
    system: str | None = None
    source: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Drafted:
    """What came of it: drafts, requests left out, and the tokens that the endpoint counted."""

    tally: Tally
    prompt_tokens: int
    answer_tokens: int


def journal_of(out: Path) -> Path:
    """Where replies are kept."""
    return out.with_name(f"{out.stem}.journal.jsonl")


def collect_drafts(
    examples: Path, out: Path, options: DraftOptions, *, force: bool = False, show: Show | None = None
) -> Drafted:
    """Have drafts written, and write those that came, also where the model is not reached any more.

    A journal that is there is gone on with; `force` begins anew.

    Raises:
        RecipeError: `out` is something else, the journal was begun with other options, or a key is missing.
        DataError: examples or prompts cannot be read.
        ModelError: the model cannot be reached; what came before is kept and written.
        RecordError: another process is drafting here.
    """
    if (options.prompts is None) == (options.like is None):
        raise RecipeError("say what to draft, in one way", fix="give --prompts FILE, or --like 50")
    journal = journal_of(out)
    inputs = [examples, *([options.prompts] if options.prompts else [])]
    refuse_to_overwrite(out, force=force or journal.exists(), inputs=inputs)
    loaded = read_examples(examples).examples
    teacher = Teacher.of(loaded, options.shots, options.seed, options.system)
    known = [request_text(example) for example in loaded]
    told, fix = "another luthier is drafting here", "wait for it, or choose another --out"
    with explain_os_errors(out), held(journal, "drafting", told=told, fix=fix):
        if force:
            journal.unlink(missing_ok=True)
        lines = _begin(journal, examples, options)
        work = Work(options.endpoint, teacher, known, journal, show or Silent(), lines)
        try:
            if options.prompts is not None:
                answer_prompts(work, options.prompts)
            else:
                think_of_more(work, options.like or 0)
        finally:
            drafted = _conclude(work, out, options)
    return drafted


def _begin(journal: Path, examples: Path, options: DraftOptions) -> dict[str, dict[str, Any]]:
    """What the journal holds; its first line says for which options.

    Raises:
        RecipeError: for others than these.
    """
    settings = {
        "version": VERSION,
        "endpoint": options.endpoint.url,
        "model": options.endpoint.model,
        "from": sha256_of(examples),
        "prompts": None if options.prompts is None else sha256_of(options.prompts),
        "shots": options.shots,
        "seed": options.seed,
        "system": options.system,
    }
    rows = [row for _, row in read_lines(journal)]
    if not rows:
        append_line(journal, {"settings": settings})
        return {}
    before = rows[0].get("settings") or {}
    changed = [name for name, value in settings.items() if before.get(name) != value]
    if changed:
        raise RecipeError(
            f"was begun with another {' and another '.join(changed)}",
            where=str(journal),
            fix="give the same options to go on, choose another --out, or begin anew with --force",
        )
    return {row["key"]: row for row in rows[1:] if "key" in row}


def _conclude(work: Work, out: Path, options: DraftOptions) -> Drafted:
    """Write the drafts in the order of their requests, and count."""
    tally = work.tally
    lines = sorted(work.lines.values(), key=lambda line: line["place"])
    with writing(out) as write:
        for line in lines:
            tally.read += 1
            try:
                write(_row(line, options))
                tally.taken += 1
            except NotTakenError as reason:
                tally.leave_out(str(reason), line["where"])
    return Drafted(
        tally, sum(line["prompt_tokens"] for line in lines), sum(line["answer_tokens"] for line in lines)
    )


def _row(line: dict[str, Any], options: DraftOptions) -> Row:
    if "answer" not in line:
        raise NotTakenError(line["left_out"])
    host = urlsplit(options.endpoint.url).hostname
    return make_row(
        [*line["asked"], {"role": "assistant", "content": line["answer"]}],
        provenance={
            "source": options.source or f"{options.endpoint.model} at {host}",
            "licence": options.licence,
            "date": line["at"][:10],
            "synthetic": True,
            "model": options.endpoint.model,
            "prompt_sha256": line["prompt_sha256"],
        },
    )
