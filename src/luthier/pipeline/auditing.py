"""What an audit needs of a model: its chat format, how many tokens an example has, how many fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luthier.errors import DataError, ModelError
from luthier.examples import Example

if TYPE_CHECKING:
    from luthier.chat import ChatFormat


@dataclass(frozen=True)
class Reader:
    """How a model reads examples.

    Attributes:
        chat: None for an encoder, and where the template does not run.
        tokens: of an example; None where nothing can be said of them.
        limit: the longest that fits, in tokens; None where the model does not say.
        notes: what the reader of the audit should know, one sentence each.
        special_tokens: spellings that texts should not hold.
    """

    chat: ChatFormat | None
    tokens: Callable[[Example], int] | None
    limit: int | None
    notes: list[str]
    special_tokens: Sequence[str] = ()


def read_by(name: str, tokenizer: Any, system: str | None) -> Reader:
    """How a model reads examples; raises ModelError where it cannot be found."""
    from luthier.models.load import reads_only

    special = tuple(tokenizer.all_special_tokens)
    if reads_only(name):
        from luthier.models.encoder import longest_text, read_text
        from luthier.pipeline.encoders import plain_request

        def count(example: Example) -> int:
            return len(read_text(tokenizer, plain_request(example, system)))

        told = "the model is an encoder: tokens are those of requests, and labels are no tokens"
        return Reader(None, count, longest_text(name, tokenizer), [told], special)
    chat, notes = chat_for(tokenizer)
    if chat is None:
        return Reader(None, None, None, notes, special)
    return Reader(chat, token_counter(chat, system), token_limit(chat), notes, special)


def chat_for(tokenizer: Any) -> tuple[ChatFormat | None, list[str]]:
    """How a tokenizer's template writes conversations; or None and why: the other checks go on without."""
    from luthier.chat import ChatFormat

    try:
        return ChatFormat(tokenizer), []
    except ModelError as error:
        return None, [f"nothing is said of tokens: {error.message}"]


def token_counter(chat: ChatFormat, system: str | None) -> Callable[[Example], int]:
    """Counts the tokens of an example's longest sequence; of its bare texts where the template refuses it."""
    from luthier.card.audit_masks import sequences_of

    def count(example: Example) -> int:
        try:
            return max(len(sequence.ids) for sequence in sequences_of(example, chat, system))
        except DataError:
            texts = [text.encode("utf-8", "replace").decode() for text in example.texts]
            return sum(len(chat.tokenizer(text, add_special_tokens=False).input_ids) for text in texts)

    return count


def template_notes(chat: ChatFormat | None, examples: Sequence[Example]) -> list[str]:
    """What the template does not show of the examples' tools, so that training would refuse them."""
    if chat is None:
        return []
    from luthier.tool_template import parts_used

    for example in examples:
        if parts_used(example.with_tools(example.messages)):
            try:
                chat.training(example, None)
            except ModelError as error:
                return [f"{error.message}: training would refuse {example.where}; {error.fix}"]
            except DataError:
                continue
    return []


def token_limit(chat: ChatFormat) -> int | None:
    """The longest sequence that the model was made for, in tokens; None where it does not say.

    The model's configuration knows better than the tokenizer's, which is often a placeholder.
    """
    from transformers import AutoConfig

    from luthier.models.load import PLAUSIBLE_LIMIT, quiet_transformers

    try:
        with quiet_transformers():
            name = chat.tokenizer.name_or_path
            config = AutoConfig.from_pretrained(name, trust_remote_code=False).get_text_config()
        limit = getattr(config, "max_position_embeddings", None)
    except (OSError, ValueError, KeyError):
        limit = None
    limit = limit or getattr(chat.tokenizer, "model_max_length", None)
    return int(limit) if limit and limit < PLAUSIBLE_LIMIT else None
