"""`luthier check`: the audit on one screen, and the mask of what is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.text import Text

from luthier.cli.opening import RECIPE_SUFFIXES, open_run
from luthier.cli.screen import Screen, console
from luthier.errors import RecipeError

MASKS_SHOWN = 3
FINDINGS_SHOWN = 12
MARKS = {"error": "[red]error[/red]  ", "warning": "[yellow]warning[/yellow]", "info": "[dim]info[/dim]   "}


def check_source(source: Path, out: Path | None, *, show_mask: bool, model: str) -> None:
    """Audit a file of examples, the data of a recipe, or a run folder; print what was found."""
    if source.suffix not in RECIPE_SUFFIXES and not source.is_dir():
        if out is not None:
            raise RecipeError("--out needs a recipe", where=str(source), fix=f"luthier init {source}")
        _check_file(source, show_mask=show_mask, model=model)
        return
    job = open_run(source, out)
    print_audit(job.check())
    console.print(f"[dim]{job.record / 'audit.json'}[/dim]", soft_wrap=True)
    if show_mask:
        from luthier.candidates import seen_by_tuned

        shown = seen_by_tuned(job.split().train[:MASKS_SHOWN], job.recipe.tuned_system)
        print_masks(shown, job.chat, job.recipe.system_of("tuned"))


def _check_file(source: Path, *, show_mask: bool, model: str) -> None:
    """Audit examples that belong to no run; nothing is written."""
    from luthier.audit import audit_examples
    from luthier.chat import ChatFormat
    from luthier.examples import read_examples
    from luthier.models.load import load_tokenizer

    loaded = read_examples(source)
    console.print(f"{len(loaded.examples)} examples, read as {loaded.format}")
    with Screen().task(f"reading the tokenizer of {model}", None):
        tokenizer = load_tokenizer(model)
    audit = audit_examples({"all": loaded.examples}, special_tokens=tokenizer.all_special_tokens)
    print_audit(audit.as_json())
    if show_mask:
        shown = [example for example in loaded.examples if example.wanted][:MASKS_SHOWN]
        print_masks(shown, ChatFormat(tokenizer), None)


def print_audit(audit: Mapping[str, Any]) -> None:
    """Findings, worst first, each with place and fix; then what was clean and what could not run."""
    findings = audit["findings"]
    for finding in findings[:FINDINGS_SHOWN]:
        places = ", ".join(f"{Path(e['file']).name}:{e['line']}" for e in finding["examples"][:3])
        more = len(finding["examples"]) - 3
        where = places + (f" and {more} more" if more > 0 else "")
        console.print(
            f"{MARKS[finding['severity']]} [bold]{finding['check']}[/bold] {escape(finding['message'])}"
        )
        if where:
            console.print(f"        [dim]{escape(where)}[/dim]", soft_wrap=True)
        if finding["fix"]:
            console.print(f"        {escape(finding['fix'])}")
    if len(findings) > FINDINGS_SHOWN:
        console.print(f"[dim]... and {len(findings) - FINDINGS_SHOWN} more findings[/dim]")
    clean = [check for check, count in audit["summary"].items() if not count]
    if clean:
        console.print(f"[green]nothing found by[/green] {', '.join(clean)}")
    for entry in audit["failed"]:
        console.print(f"[red]could not run[/red] {entry['check']}: {escape(entry['reason'])}")
    counts = {kind: sum(f["severity"] == kind for f in findings) for kind in MARKS}
    told = f"{counts['error']} errors, {counts['warning']} warnings, {counts['info']} notes"
    console.print(f"{audit['examples']} examples: {told}")


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
