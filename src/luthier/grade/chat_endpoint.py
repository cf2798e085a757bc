"""One question at a time to an OpenAI-compatible chat API: patient with its limits, never with its key."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import httpx2

from luthier.errors import RecipeError
from luthier.recipe.grader_options import Endpoint

Messages = list[dict[str, str]]

TRIES = 4
FIRST_WAIT = 1.0  # seconds, doubled after every try
LONGEST_WAIT = 60.0
PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # statuses that may be gone a moment later
MAX_BYTES = 1_000_000  # a verdict is a few hundred
GIVE_UP = 3  # questions in a row that found nobody: the rest would wait as long for nothing


@dataclass(frozen=True)
class Reply:
    """What came back: a text, or why there is none.

    Attributes:
        unreached: the model never answered, so that it is worth asking again another day.
        finish: why the model stopped, as the endpoint calls it.
        prompt_tokens, answer_tokens: what the endpoint counted.
    """

    text: str | None
    problem: str | None = None
    unreached: bool = False
    finish: str | None = None
    prompt_tokens: int = 0
    answer_tokens: int = 0


class ChatEndpoint:
    """Questions to the model behind an endpoint. Safe to use from several threads.

    Args:
        who: the model, as problems call it.
        key_from: the setting that names the key's variable, as errors call it.
        temperature: of the sampling.

    Raises:
        RecipeError: from `ask`, when the variable that should hold the key is not set.
    """

    def __init__(
        self,
        options: Endpoint,
        *,
        who: str = "the judge",
        key_from: str = "grader.endpoint.key_env",
        temperature: float = 0,
    ) -> None:
        self.options = options
        self._who = who
        self._key_from = key_from
        self._temperature = temperature
        self._failures = 0
        self._without_temperature = False
        self._lock = Lock()

    def ask(self, messages: Sequence[dict[str, str]]) -> Reply:
        """The model's answer.

        Limits, overload and broken connections are waited out, four tries in all; what the server asks
        for in `Retry-After` is kept to, up to a minute. Redirects are not followed: the key stays here.
        """
        if self._failures >= GIVE_UP:
            return Reply(None, f"not asked: {self.options.url} failed {GIVE_UP} times in a row", True)
        problem = "not tried"
        for attempt in range(TRIES):
            status, body, wait = self._post(messages)
            if status == 200:
                self._note(failed=False)
                return _read(body, self._who)
            problem = self._tell(status, body)
            if status == 400 and "temperature" in body and not self._without_temperature:
                self._without_temperature = True  # some models allow their default only
                continue
            if status is not None and status not in PASSING:
                break
            if attempt + 1 < TRIES:
                own = FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.5)
                time.sleep(min(LONGEST_WAIT, wait if wait is not None else own))
        self._note(failed=True)
        return Reply(None, problem, unreached=True)

    def _post(self, messages: Sequence[dict[str, str]]) -> tuple[int | None, str, float | None]:
        """Status (None without an answer), body, and the seconds the server asks to wait."""
        body: dict[str, Any] = {"model": self.options.model, "messages": list(messages)}
        if not self._without_temperature:
            body["temperature"] = self._temperature
        until = time.monotonic() + self.options.timeout
        received = bytearray()
        url, content = f"{self.options.url}/chat/completions", json.dumps(body).encode()
        try:
            with self._client.stream("POST", url, content=content) as response:
                for chunk in response.iter_bytes():
                    received += chunk
                    if time.monotonic() > until:  # httpx counts the silence, not the whole
                        return None, f"no answer within {self.options.timeout:g} s", None
                    if len(received) > MAX_BYTES:
                        return 413, "an answer of more than 1 MB", None
                wait = _seconds(response.headers.get("retry-after"))
                return response.status_code, received.decode("utf-8", "replace"), wait
        except httpx2.TimeoutException:
            return None, f"no answer within {self.options.timeout:g} s", None
        except httpx2.HTTPError as error:
            return None, str(error) or type(error).__name__, None

    def _tell(self, status: int | None, body: str) -> str:
        said = body if status is None else f"HTTP {status}: {_error_message(body)}"
        if self._key:
            said = said.replace(self._key, "***")
        return f"{self._who} at {self.options.url} cannot be asked: {said:.300}"

    def _note(self, *, failed: bool) -> None:
        with self._lock:
            self._failures = self._failures + 1 if failed else 0

    @cached_property
    def _key(self) -> str | None:
        return read_key(self.options, self._key_from)

    @cached_property
    def _client(self) -> httpx2.Client:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return httpx2.Client(timeout=self.options.timeout, headers=headers, follow_redirects=False)


def read_key(options: Endpoint, key_from: str = "grader.endpoint.key_env") -> str | None:
    """The key from the environment; None for an endpoint that needs none.

    Raises:
        RecipeError: the variable is not set.
    """
    name = options.key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise RecipeError(
            f"the environment variable {name}, which {key_from} names, is not set",
            fix=f"export {name}=... in the shell that runs luthier",
        )
    return key


def _read(body: str, who: str) -> Reply:
    try:
        told = json.loads(body)
        choice = told["choices"][0]
        text, why = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return Reply(None, f"the endpoint's answer is no chat completion: {body:.120}", unreached=True)
    counted = {
        "finish": why,
        "prompt_tokens": _tokens(told, "prompt"),
        "answer_tokens": _tokens(told, "completion"),
    }
    if not isinstance(text, str):
        return Reply(None, f"{who}'s answer holds no text", **counted)
    return (
        Reply(None, f"{who}'s answer was cut off", **counted) if why == "length" else Reply(text, **counted)
    )


def _tokens(told: dict[str, Any], kind: str) -> int:
    """What the endpoint says it counted; 0 where it does not."""
    usage = told.get("usage")
    count = usage.get(f"{kind}_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) and count > 0 else 0


def _error_message(body: str) -> str:
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, RecursionError):
        return body.strip()[:200] or "no reason given"


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None  # a date: our own waiting will do
