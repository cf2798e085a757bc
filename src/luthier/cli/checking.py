"""`luthier check`: the audit on one screen, its page, and the mask of what is trained."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from luthier.cli.check_screen import print_audit, print_paths
from luthier.cli.opening import RECIPE_SUFFIXES, open_run
from luthier.cli.screen import Screen, console
from luthier.errors import (
    EXIT_DO_NOT_SHIP,
    EXIT_INCONCLUSIVE,
    EXIT_SHIP,
    AssetError,
    RecipeError,
)

if TYPE_CHECKING:
    from luthier.audit import Finding
    from luthier.audit.file_audit import FileAudit
    from luthier.pipeline.auditing import Reader

MASKS_SHOWN, NOTES_SHOWN = 3, 2
DEFAULT_MODEL = "smollm2-135m"
TEST_SHARE = 0.3
KINDS_SHOWN = 4  # of what is wrong with rows that cannot be read; audit.json has them all


def check_source(
    source: Path,
    out: Path | None,
    *,
    show_mask: bool,
    model: str,
    every: bool = False,
    strict: bool = False,
    columns: Mapping[str, str] | None = None,
) -> int:
    """Audit a file of examples, the data of a recipe, or a run folder; print what was found.

    Args:
        out: the run folder of a recipe, or the folder for a file's audit.json and audit.html.
        every: list every finding.
        strict: let the exit code tell of errors.
        columns: as for `read_examples`; a recipe has its own.

    Returns:
        The exit code: 0, and when strict 3 where there are errors, 4 where a check could not run.
    """
    if is_data(source):
        told = _check_file(source, out, show_mask=show_mask, model=model, every=every, columns=columns)
    elif columns:
        fix = "write `columns:` under `data:` of the recipe"
        raise RecipeError("--columns is for files of examples", where=str(source), fix=fix)
    else:
        job = open_run(source, out)
        told = job.check()
        print_audit(told, every=every)
        print_paths([path for name in ("audit.json", "audit.html") if (path := job.record / name).is_file()])
        if show_mask:
            from luthier.candidates import seen_by_tuned

            shown = seen_by_tuned(job.split().train[:MASKS_SHOWN], job.recipe.tuned_system)
            if job.models.is_encoder:
                console.print("An encoder learns labels of whole texts: no token of them is trained.")
            else:
                print_masks(shown, job.chat, job.recipe.system_of("tuned"))
    if not strict:
        return EXIT_SHIP
    if any(finding["severity"] == "error" for finding in told["findings"]):
        return EXIT_DO_NOT_SHIP
    return EXIT_INCONCLUSIVE if told["failed"] else EXIT_SHIP


def is_data(source: Path) -> bool:
    """Whether a path names examples: neither a recipe nor a run folder."""
    return source.suffix not in RECIPE_SUFFIXES and not (source / "recipe.yaml").is_file()


def folder_for(source: Path, out: Path | None) -> Path:
    """Where the audit of a file goes: `checks/NAME` beside where you are, or `out`.

    Raises:
        RecipeError: `out` is a run folder, which has an audit of its own.
    """
    if out is None:
        name = re.sub(r"[^\w.@-]+", "-", source.resolve().name if source.is_dir() else source.name)
        return Path("checks") / (name.split(".")[0] or "examples")
    if (out / "recipe.yaml").is_file():
        fix = f"choose another folder, or check the run: luthier check {out}"
        raise RecipeError("a run folder, which has an audit of its own", where=str(out), fix=fix)
    return out


def _check_file(
    source: Path,
    out: Path | None,
    *,
    show_mask: bool,
    model: str,
    every: bool,
    columns: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Audit examples that belong to no run."""
    from luthier.audit.file_audit import audit_file
    from luthier.audit.suite_index import open_suites
    from luthier.card.audit_page import Checked, write_audit_page
    from luthier.examples import stream_examples
    from luthier.pipeline.auditing import template_notes
    from luthier.record import explain_os_errors, write_json

    folder = folder_for(source, out)
    stream_examples(source, columns=columns)  # a wrong path is told before anything loads
    with Screen().task(f"checking {source.name}", None) as advance:
        advance(0, f"reading the tokenizer of {model}")
        reader = _reader_of(model)
        chat = reader.chat
        advance(0, "reading examples")
        found = audit_file(
            source,
            strict=False,
            columns=columns,
            second_process=(os.cpu_count() or 1) > 1,
            advance=advance,
            special_tokens=reader.special_tokens,
            tokens=reader.tokens,
            max_tokens=reader.limit,
            test_share=TEST_SHARE,
            suites=open_suites(),
        )
        advance(0, "writing the page")
        told, findings = _tell(source, found)
        notes = [*reader.notes, *template_notes(chat, found.examples), *_notes(found)]
        sides, name = {"all": found.examples}, model if reader.tokens else ""
        page = Checked(source.name, told, findings, sides, chat, name, limit=reader.limit, notes=notes)
        with explain_os_errors(folder):
            write_json(folder / "audit.json", told)
            write_audit_page(folder / "audit.html", page)
    print_audit(told, every=every)
    for note in notes if every else notes[:NOTES_SHOWN]:
        text = Text(note, style="yellow")
        console.print(text, no_wrap=not every, overflow="ellipsis", soft_wrap=every)
    if len(notes) > NOTES_SHOWN and not every:
        console.print(Text(f"and {len(notes) - NOTES_SHOWN} more notes: --all", style="yellow"))
    print_paths([folder / "audit.json", folder / "audit.html"])
    if show_mask and chat is not None:
        print_masks([example for example in found.examples if example.wanted][:MASKS_SHOWN], chat, None)
    return told


def _tell(source: Path, found: FileAudit) -> tuple[dict[str, Any], Sequence[Finding]]:
    """The content of `audit.json`, and its findings, with the rows that could not be read."""
    from luthier.audit.overview import add_findings, find_unreadable, overview
    from luthier.examples.problems import tell_problems

    unreadable = find_unreadable(found.problems)
    told = add_findings(found.audit.as_json(), unreadable, found.left_out) | tell_problems(found.kinds)
    read = {
        "file": str(source),
        "format": found.format,
        "described": found.described,
        "examples": found.audit.examples,
        "left_out": found.left_out,
    }
    sides = {"all": found.examples}
    told |= overview(sides, test_share=TEST_SHARE, read=[read], examples=found.audit.examples)
    return told, (*unreadable, *found.audit.findings)


def _notes(found: FileAudit) -> list[str]:
    """What was not read, and that the page shows a part."""
    notes = [f"{problem.where} was not read: {problem.message}" for problem in found.passed_over]
    kinds = list(found.kinds)
    told = kinds[:KINDS_SHOWN] if len(kinds) > 1 else []
    notes += [f"{kind.count:,} not read, from {kind.places[0]} on: {kind.message}" for kind in told]
    if found.streamed:
        notes.append(f"distributions and masks are of a sample of {len(found.examples):,} examples")
    return notes


def _reader_of(model: str) -> Reader:
    """How the model reads examples; without the default one, nothing is said of tokens, and that is said.

    Raises:
        LuthierError: a model that was named cannot be found.
    """
    from luthier.models.load import load_tokenizer
    from luthier.pipeline.auditing import Reader, read_by

    try:
        return read_by(model, load_tokenizer(model), None)
    except AssetError as error:
        if model != DEFAULT_MODEL:
            raise
        return Reader(None, None, None, [f"nothing is said of tokens: {error.message}"])


def print_masks(examples: Any, chat: Any, system: str | None) -> None:
    """Examples as the model sees them: trained tokens green, context dim."""
    for example in examples:
        for sequence in chat.training(example, system) if example.request else [chat.text(example.answer)]:
            text = Text()
            for piece, trained in chat.show_mask(sequence):
                text.append(piece, style="bold green" if trained else "dim")
            trained_tokens = int(sum(weight > 0 for weight in sequence.weights))
            console.rule(f"{example.where}: {trained_tokens} of {len(sequence.ids)} tokens are trained")
            console.print(text)
