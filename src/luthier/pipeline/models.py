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
        self._labels: tuple[str, ...] = ()
        self._seed = 0

    @cached_property
    def identity(self) -> str:
        """A hash of the base model's files."""
        from luthier.models import model_identity

        return model_identity(self.name)

    @cached_property
    def is_encoder(self) -> bool:
        """Whether it reads whole texts and writes none, by its configuration."""
        from luthier.models.load import reads_only

        return reads_only(self.name)

    def name_labels(self, labels: Sequence[str], *, seed: int) -> None:
        """What an encoder tells apart, and what its own head is drawn by; a decoder is given one later."""
        if self.is_encoder and (tuple(labels), seed) != (self._labels, self._seed):
            self._labels, self._seed = tuple(labels), seed
            self.forget()  # the head was another

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
        from luthier.models.encoder import load_encoder

        if self._tuned is None:
            if is_whole_model(self._adapter):
                load = load_encoder if self.is_encoder else load_model
                with self._show.task("loading the tuned model", None):
                    self._tuned = load(str(self._adapter)).model
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
        """How the model writes conversations.

        Raises:
            ModelError: it is an encoder, which writes none.
        """
        from luthier.chat import ChatFormat
        from luthier.errors import ModelError

        if self.is_encoder:
            fix = "use a run on a decoder, or `luthier export` and Transformers' text classification"
            raise ModelError("an encoder writes no conversations", where=f"model {self.name}", fix=fix)
        loaded = self._any()
        return ChatFormat(loaded.tokenizer, extra_stop_ids=loaded.stop_ids)

    @cached_property
    def tokenizer(self) -> Any:
        """The base model's."""
        from luthier.models.load import load_tokenizer

        return load_tokenizer(self.name) if self.is_encoder else self._any().tokenizer

    def context_limit(self) -> int | None:
        """The longest sequence the model was made for, in tokens; None where it does not say."""
        if self.is_encoder:
            return self._longest_text
        config = self._any().model.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None)
        return int(limit) if limit else None

    @cached_property
    def _longest_text(self) -> int | None:
        from luthier.models.encoder import longest_text

        return longest_text(self.name, self.tokenizer)

    def longest_answer(self, train: Sequence[Example]) -> int:
        """Room for an answer in tokens: one and a half times the longest training answer."""
        longest = max(
            len(self.tokenizer(example.answer, add_special_tokens=False).input_ids) for example in train
        )
        return int(1.5 * longest) + 8

    def _any(self) -> LoadedModel:
        """The model as it is, adapted or not; an encoder with a head for the labels that are known."""
        from luthier.models import load_model
        from luthier.models.encoder import load_encoder
        from luthier.models.head_files import find_labels

        if self._loaded is None:
            with self._show.task(f"loading {self.name}", None):
                if self.is_encoder:
                    labels = self._labels or find_labels(self._adapter)
                    self._loaded = load_encoder(self.name, labels, seed=self._seed)
                else:
                    self._loaded = load_model(self.name)
        return self._loaded
