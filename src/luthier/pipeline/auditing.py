"""What an audit needs of a model: its chat format, how many tokens an example has, how many fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from luthier.errors import DataError, ModelError
from luthier.examples import Example

if TYPE_CHECKING:
    from luthier.chat import ChatFormat

PLAUSIBLE_LIMIT = 10_000_000  # tokens; tokenizers say 1e30 where they know of none


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


def token_limit(chat: ChatFormat) -> int | None:
    """The longest sequence that the model was made for, in tokens; None where it does not say.

    The model's configuration knows better than the tokenizer's, which is often a placeholder.
    """
    from transformers import AutoConfig

    from luthier.models.load import quiet_transformers

    try:
        with quiet_transformers():
            name = chat.tokenizer.name_or_path
            config = AutoConfig.from_pretrained(name, trust_remote_code=False).get_text_config()
        limit = getattr(config, "max_position_embeddings", None)
    except (OSError, ValueError, KeyError):
        limit = None
    limit = limit or getattr(chat.tokenizer, "model_max_length", None)
    return int(limit) if limit and limit < PLAUSIBLE_LIMIT else None
