"""`luthier chat`: base and tuned answer the same messages, side by side; a classifier names its label."""

from __future__ import annotations

from typing import Any

from rich.columns import Columns
from rich.panel import Panel
from rich.prompt import Prompt
from rich.text import Text

from luthier.cli.screen import console
from luthier.errors import RecipeError

MAX_NEW_TOKENS = 256
HISTORY = dict[str, list[dict[str, str]]]


def talk(job: Any, prompt: str | None) -> None:
    """Answer one message, or hold a conversation until an empty line.

    Raises:
        RecipeError: the run made a reward model, which answers nothing.
    """
    from luthier.recipe.method_options import method_name

    kind = method_name(job.recipe.method)
    if kind == "reward":
        fix = "see report.html, or reward a training with it: `reward: {kind: reward_model, run: ...}`"
        raise RecipeError("a reward model scores answers, and gives none", fix=fix)
    job.tuned()  # before anything is asked: it may not have been trained
    histories: HISTORY = {"base": [], "tuned": []}
    if prompt is not None:
        _answer(job, histories, prompt)
        return
    console.print("[dim]An empty line ends the conversation; /new starts another.[/dim]")
    while True:
        try:
            message = Prompt.ask("[bold]you[/bold]", console=console, default="", show_default=False)
        except EOFError:
            return
        if not message.strip():
            return
        if message.strip() == "/new":
            histories = {"base": [], "tuned": []}
            continue
        _answer(job, histories, message)


def _answer(job: Any, histories: HISTORY, message: str) -> None:
    from luthier.pipeline.choosing import chooses

    if chooses(job.recipe, "tuned"):
        label, chance = _label(job, message)
        console.print(Panel(Text(f"{label} ({chance:.0%})"), title="tuned", border_style="green"))
        return
    panels = []
    for name, history in histories.items():
        history.append({"role": "user", "content": message})
        text = _reply(job, history, adapted=name == "tuned")
        history.append({"role": "assistant", "content": text})
        panels.append(Panel(Text(text), title=name, border_style="green" if name == "tuned" else "dim"))
    console.print(Columns(panels, equal=True, expand=True))


def _label(job: Any, message: str) -> tuple[str, float]:
    """What a classifier says of one message, whatever was said before, and its probability."""
    from luthier.examples import Example, Message
    from luthier.pipeline.choosing import choose_by_head

    asked = Example("", (Message("user", message), Message("assistant", "")), "message", 1)
    (answer,) = choose_by_head(job.recipe, job.models, job.tuned(), [asked])
    return answer.answer, answer.confidence or 0.0


def _reply(job: Any, history: list[dict[str, str]], *, adapted: bool) -> str:
    import contextlib

    from luthier.candidates import ask

    messages = job.chat.with_system(history, job.recipe.system_of("tuned" if adapted else "prompt"))
    with contextlib.nullcontext(job.tuned()) if adapted else job.models.untuned() as model:
        (answer,) = ask(model, job.chat, {"": messages}, max_new_tokens=MAX_NEW_TOKENS)
    return answer.answer
