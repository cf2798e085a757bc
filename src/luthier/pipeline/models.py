"""The models of a run, each loaded once and only when it is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.examples import Example
from luthier.progress import Show

if TYPE_CHECKING:
    from luthier.chat import ChatFormat
    from luthier.models import LoadedModel, Model


class Models:
    """Base and tuned. An adapter is put on the base in place, so there is one copy of the weights.

    A fully fine-tuned model has weights of its own: then there are two, where both are asked for.

    Args:
        name: as the recipe gives it.
        adapter: the folder of the trained adapter or model, which need not be there yet.
    """

    def __init__(self, name: str, adapter: Path, show: Show) -> None:
        self.name = name
        self._adapter = adapter
        self._show = show
        self._loaded: LoadedModel | None = None
        self._tuned: Model | None = None

    @cached_property
    def identity(self) -> str:
        """A hash of the base model's files."""
        from luthier.models import model_identity

        return model_identity(self.name)

    def base(self) -> LoadedModel:
        """The base model without an adapter."""
        if self._is_adapted():
            self.forget()  # let go of the adapted copy before loading a plain one
        return self._any()

    def tuned(self) -> Model:
        """The base model with the run's adapter, or the model that full fine-tuning made of it.

        Raises:
            ModelError: it has not been trained.
        """
        from luthier.models import is_whole_model, load_adapter, load_model

        if self._tuned is None:
            if is_whole_model(self._adapter):
                with self._show.task("loading the tuned model", None):
                    self._tuned = load_model(str(self._adapter)).model
            else:
                self._tuned = load_adapter(self.base(), self._adapter)
        return self._tuned

    @contextlib.contextmanager
    def untuned(self) -> Iterator[Model]:
        """The base model while the tuned one stays loaded: an adapter is switched off for a while."""
        tuned = self.tuned()
        if self._is_adapted():
            with tuned.disable_adapter():  # type: ignore[operator]
                yield tuned
        else:
            yield self.base().model

    def keep_tuned(self, model: Model) -> None:
        """Use a model that was made of `base()` and trained as the tuned one.

        One that holds its base approximately is not kept: what is measured is the adapter on the exact base.
        """
        from luthier.models.held import is_exact

        self._tuned = model
        if not is_exact(model):
            self.forget()
        elif not self._is_adapted():
            self._loaded = None  # its weights are the tuned ones now

    def forget(self) -> None:
        """Let go of the weights: they were changed."""
        self._loaded = self._tuned = None

    def _is_adapted(self) -> bool:
        """Whether the tuned model is the loaded one with an adapter in it."""
        from peft import PeftModel

        return isinstance(self._tuned, PeftModel)

    @cached_property
    def chat(self) -> ChatFormat:
        """How the model writes conversations."""
        from luthier.chat import ChatFormat

        loaded = self._any()
        return ChatFormat(loaded.tokenizer, extra_stop_ids=loaded.stop_ids)

    @cached_property
    def tokenizer(self) -> Any:
        """The base model's."""
        return self._any().tokenizer

    def context_limit(self) -> int | None:
        """The longest sequence the model was made for, in tokens; None where it does not say."""
        config = self._any().model.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None)
        return int(limit) if limit else None

    def longest_answer(self, train: Sequence[Example]) -> int:
        """Room for an answer in tokens: one and a half times the longest training answer."""
        longest = max(
            len(self.tokenizer(example.answer, add_special_tokens=False).input_ids) for example in train
        )
        return int(1.5 * longest) + 8

    def _any(self) -> LoadedModel:
        """The model as it is, adapted or not."""
        from luthier.models import load_model

        if self._loaded is None:
            with self._show.task(f"loading {self.name}", None):
                self._loaded = load_model(self.name)
        return self._loaded
