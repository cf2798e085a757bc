"""A judge: a language model behind an endpoint or run here. Its replies are kept: none is paid twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from luthier import assets
from luthier.grade.chat_endpoint import ChatEndpoint, Reply
from luthier.grade.judge_prompt import Messages, fresh
from luthier.recipe import digest
from luthier.recipe.grader_options import JudgeOptions
from luthier.record import write_json

AT_ONCE = 4  # requests under way at a time
VERDICT_TOKENS = 256
VERSION = 1  # raise it when the same question would be put in other words


class Judge:
    """Puts questions to a model; replies are kept in the cache by the hash of model and question."""

    def __init__(self, options: JudgeOptions) -> None:
        self._options = options
        self.asked = 0  # questions that were not answered from the cache
        self.unreached = 0

    @property
    def name(self) -> str:
        """The model, as the recipe names it."""
        endpoint = self._options.endpoint
        return endpoint.model if endpoint else str(self._options.model)

    def ask(self, prompts: Sequence[Callable[[str], Messages]]) -> list[Reply]:
        """Replies in order; of equal questions one is asked.

        Raises:
            RecipeError: the variable that should hold the endpoint's key is not set.
            ModelError: the model that should run here cannot be loaded.
        """
        keys = [digest([VERSION, self._identity, prompt("")]) for prompt in prompts]
        replies = {key: reply for key in set(keys) if (reply := _kept(key)) is not None}
        open_ = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in replies}
        if open_:
            self.asked += len(open_)
            found = self._ask_endpoint(open_) if self._options.endpoint else self._ask_here(open_)
            replies |= found
        answered = [replies[key] for key in keys]
        self.unreached += sum(reply.unreached for reply in answered)
        return answered

    @cached_property
    def _identity(self) -> Any:
        endpoint = self._options.endpoint
        if endpoint:
            return [endpoint.url, endpoint.model]
        from luthier.models import model_identity

        return ["here", model_identity(self.name)]

    @cached_property
    def _endpoint(self) -> ChatEndpoint:
        assert self._options.endpoint is not None
        return ChatEndpoint(self._options.endpoint)

    def _ask_endpoint(self, prompts: Mapping[str, Callable[[str], Messages]]) -> dict[str, Reply]:
        def ask(key: str) -> Reply:
            return _keep(key, self._endpoint.ask(fresh(prompts[key])))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(prompts, pool.map(ask, prompts), strict=True))

    def _ask_here(self, prompts: Mapping[str, Callable[[str], Messages]]) -> dict[str, Reply]:
        from luthier.chat import ChatFormat
        from luthier.generate import generate
        from luthier.models import load_model

        loaded = load_model(self.name)
        chat = ChatFormat(loaded.tokenizer, extra_stop_ids=loaded.stop_ids)
        asked = {key: chat.prompt(fresh(prompt)) for key, prompt in prompts.items()}
        limit = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
        fits = {key for key, ids in asked.items() if limit is None or len(ids) + VERDICT_TOKENS <= limit}
        written = generate(
            loaded.model,
            [asked[key] for key in asked if key in fits],
            max_new_tokens=VERDICT_TOKENS,
            stop_ids=chat.stop_ids,
        )
        texts = iter(written)
        replies = {}
        for key in asked:
            if key not in fits:
                replies[key] = Reply(None, f"too long for the judge's {limit} tokens")
                continue
            answer = next(texts)
            cut = Reply(None, "the judge's answer was cut off")
            replies[key] = _keep(key, Reply(chat.decode(answer.ids)) if answer.finished else cut)
        return replies


def _path(key: str) -> Path:
    return assets.cache_folder() / "judgements" / key[:2] / f"{key}.json"


def _kept(key: str) -> Reply | None:
    try:
        kept = json.loads(_path(key).read_text(encoding="utf-8"))
        return Reply(kept["text"], kept["problem"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(key: str, reply: Reply) -> Reply:
    if not reply.unreached:
        write_json(_path(key), {"text": reply.text, "problem": reply.problem})
    return reply
