"""Encoders in a run: what of a recipe they cannot do, and how they read requests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from luthier.errors import ModelError
from luthier.examples import Example
from luthier.pipeline.models import Models
from luthier.progress import Show
from luthier.recipe import Recipe
from luthier.recipe.method_options import method_name

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from luthier.methods import Item, Method

WRITERS = ("prompt", "few_shot", "retrieval")


def fit_encoder(recipe: Recipe, models: Models, show: Show) -> Recipe:
    """The recipe without the candidates that an encoder cannot be, which is said; a decoder's as it is.

    Raises:
        ModelError: it asks an encoder to write, or to be trained in a way that encoders cannot.
    """
    if not models.is_encoder:
        return recipe
    where, kind = f"model {models.name}", method_name(recipe.method)
    if kind != "classify":
        raise ModelError(
            f"an encoder reads whole texts and writes none, and method {kind} needs a model that writes",
            where=where,
            fix="use `method: classify`, or name a decoder, such as smollm2-135m",
        )
    if recipe.adapter.kind in ("prefix", "prompt"):
        raise ModelError(
            f"adapter.kind {recipe.adapter.kind} puts virtual tokens before what a decoder reads",
            where=where,
            fix="use `adapter: {kind: lora}` or `{kind: full}` on an encoder",
        )
    left_out = [name for name in recipe.candidates if name in WRITERS]
    if not left_out:
        return recipe
    candidates = tuple(name for name in recipe.candidates if name not in WRITERS)
    if not candidates:
        raise ModelError(
            f"an encoder writes no answers, and nothing is compared but {', '.join(left_out)}",
            where=where,
            fix="use `candidates: [scratch, tuned]`",
        )
    show.note(
        f"{Path(models.name).name} is an encoder, which writes nothing: without {', '.join(left_out)}, and "
        "without probes of its writing; no prefixes are shared, every text is computed as a row of its own"
    )
    return recipe.model_copy(update={"candidates": candidates})


def read_items(method: Method, models: Models, examples: Sequence[Example], system: str | None) -> list[Item]:
    """The training items of examples, as the model reads them; raises as `Method.items`."""
    if not models.is_encoder:
        return method.items(examples, models.chat, system)
    return encoder_items(examples, models.tokenizer, system)


def encoder_items(examples: Sequence[Example], tokenizer: Tokenizer, system: str | None) -> list[Item]:
    """`Classify.items` for an encoder, which reads a request as `plain_request` writes it.

    Raises:
        DataError: a label is empty.
    """
    from luthier.methods.classify import label_of
    from luthier.methods.method import Item, read_at_end
    from luthier.models.encoder import read_text

    read = [read_text(tokenizer, plain_request(example, system)) for example in examples]
    return [
        Item(example.where, (read_at_end(ids),), label=label_of(example))
        for example, ids in zip(examples, read, strict=True)
    ]


def plain_request(example: Example, system: str | None) -> str:
    """A request as plain text: its messages, a line for each, after `system` where none of them is one."""
    told = [message.content for message in example.request]
    has_one = any(message.role in ("system", "developer") for message in example.request)
    return "\n".join([*([system] if system and not has_one else []), *told])


def read_requests(
    models: Models, examples: Sequence[Example], system: str | None
) -> list[tuple[str, list[int]]]:
    """The text and the token ids that a classifier is given for each request: those it was trained on."""
    if models.is_encoder:
        from luthier.models.encoder import read_text

        texts = [plain_request(example, system) for example in examples]
        return [(text, read_text(models.tokenizer, text)) for text in texts]
    chat = models.chat
    asked = [chat.with_system(example.asked, system) for example in examples]
    return [(chat.render(request, generation=True), chat.prompt(request)) for request in asked]
