"""`luthier chat`: base and tuned answer the same messages, side by side."""

from __future__ import annotations

from typing import Any

from rich.columns import Columns
from rich.panel import Panel
from rich.prompt import Prompt
from rich.text import Text

from luthier.cli.screen import console

MAX_NEW_TOKENS = 256
HISTORY = dict[str, list[dict[str, str]]]


def talk(job: Any, prompt: str | None) -> None:
    """Answer one message, or hold a conversation until an empty line."""
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
    panels = []
    for name, history in histories.items():
        history.append({"role": "user", "content": message})
        text = _reply(job, history, adapted=name == "tuned")
        history.append({"role": "assistant", "content": text})
        panels.append(Panel(Text(text), title=name, border_style="green" if name == "tuned" else "dim"))
    console.print(Columns(panels, equal=True, expand=True))


def _reply(job: Any, history: list[dict[str, str]], *, adapted: bool) -> str:
    import contextlib

    from luthier.candidates import ask

    messages = job.chat.with_system(history, job.recipe.system_of("tuned" if adapted else "prompt"))
    with contextlib.nullcontext(job.tuned()) if adapted else job.models.untuned() as model:
        (answer,) = ask(model, job.chat, {"": messages}, max_new_tokens=MAX_NEW_TOKENS)
    return answer.answer
