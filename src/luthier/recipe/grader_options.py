"""The recipe's `grader`: a name, or a mapping with the options that graders of its kind have."""

from __future__ import annotations

import difflib
import ipaddress
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

GRADERS = ("label", "string_check", "text_similarity", "json_schema", "json_fields", "numeric")
JUDGES = ("rubric", "pairwise")
SimilarityMetric = Literal["chrf", "bleu", "rouge_1", "rouge_2", "rouge_l"]
PYTHON = "python:"


class Section(BaseModel):
    """A part of the recipe: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Endpoint(Section):
    """An OpenAI-compatible chat API. The key itself is never part of a recipe."""

    url: str = Field(
        description="Base address, such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1."
    )
    model: str = Field(min_length=1, description="Model name as the endpoint knows it.")
    key_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Environment variable that holds the API key."
    )
    timeout: float = Field(60, gt=0, le=3600, description="Seconds to wait for one answer.")

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            known = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
        except ValueError:
            known = False
        if not known:
            raise ValueError("expected an address such as https://api.openai.com/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("expected a bare address: a key belongs in the variable that `key_env` names")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _key_stays_secret(self) -> Endpoint:
        if self.key_env and urlsplit(self.url).scheme == "http" and not _is_local(self.url):
            raise ValueError("a key would travel unencrypted over http: use https, or leave out `key_env`")
        return self


class PlainGrader(Section):
    """A grader without options; its name alone says the same."""

    kind: Literal["label", "json_schema", "json_fields"] = Field(description="Name of the grader.")


class StringCheckOptions(Section):
    """All or nothing: the answer is the reference text."""

    kind: Literal["string_check"] = Field(description="The answer is the reference text.")
    ignore_case: bool = Field(False, description="Whether Paris and paris are the same.")


class TextSimilarityOptions(Section):
    """How alike answer and reference are, from 0 to 1."""

    kind: Literal["text_similarity"] = Field(description="How alike answer and reference are.")
    metric: SimilarityMetric = Field(
        "chrf", description="chrf suits every language; bleu and rouge_* count words and need spaces."
    )


class NumericOptions(Section):
    """The number in the answer is the number in the reference."""

    kind: Literal["numeric"] = Field(description="The number in the answer is the one in the reference.")
    tolerance: float = Field(0, ge=0, description="How far off a right answer may be.")
    relative: bool = Field(False, description="Whether the tolerance is a share of the reference's number.")


class _Judge(Section):
    kind: str  # first, so that a dump begins with it
    rubric: str
    endpoint: Endpoint | None = Field(None, description="The judge, behind an OpenAI-compatible API.")
    model: str | None = Field(None, description="The judge, run here: embedded, a folder or a hub id.")
    labels: str | None = Field(
        None,
        description="JSONL of answers that people judged (input, answer, reference, human): they correct "
        "the judge; without them its scores decide nothing.",
    )

    @model_validator(mode="after")
    def _one_judge(self) -> _Judge:
        if (self.endpoint is None) == (self.model is None):
            raise ValueError("expected a judge: either `endpoint: {url: ..., model: ...}` or `model: ...`")
        return self


class RubricOptions(_Judge):
    """A language model decides whether an answer meets a rubric."""

    kind: Literal["rubric"] = Field(description="A model decides whether each answer meets the rubric.")
    rubric: str = Field(min_length=1, description="What an answer must be or do to pass.")
    reference: bool = Field(True, description="Whether the judge sees the reference answer.")


class PairwiseOptions(_Judge):
    """A language model decides which is better, the answer or the reference."""

    kind: Literal["pairwise"] = Field(description="A model compares each answer with its reference.")
    rubric: str = Field(
        "Which answer serves the person who asked better?", min_length=1, description="What better means."
    )


class RewardModelOptions(Section):
    """A reward model that was trained here."""

    kind: Literal["reward_model"] = Field(description="A reward model prefers the answer to its reference.")
    run: str = Field(min_length=1, description="Folder of a run with `method: reward`.")


JudgeOptions = RubricOptions | PairwiseOptions
GraderOptions = (
    PlainGrader
    | StringCheckOptions
    | TextSimilarityOptions
    | NumericOptions
    | RewardModelOptions
    | JudgeOptions
)
SECTIONS: dict[str, type[Section]] = {
    "string_check": StringCheckOptions,
    "text_similarity": TextSimilarityOptions,
    "numeric": NumericOptions,
    "rubric": RubricOptions,
    "pairwise": PairwiseOptions,
    "reward_model": RewardModelOptions,
    **dict.fromkeys(("label", "json_schema", "json_fields"), PlainGrader),
}


def grader_kind(grader: str | GraderOptions | None) -> str | None:
    """`label`, `numeric` ..., or `python`; None for the one that is chosen from the data."""
    if grader is None or isinstance(grader, Section):
        return None if grader is None else grader.kind
    return "python" if grader.startswith(PYTHON) else grader


def check_grader(value: Any) -> Any:
    """The value of `grader` as it came, if its name or kind is known.

    Raises:
        ValueError: it is not; the message names the nearest.
    """
    if value is None or isinstance(value, Section):
        return value
    if not isinstance(value, str | dict) or (isinstance(value, dict) and "kind" not in value):
        raise ValueError("expected a name, or a mapping such as {kind: numeric, tolerance: 0.01}")
    name = value["kind"] if isinstance(value, dict) else value
    if name == "reward_model" and value is name:
        raise ValueError("expected a mapping: {kind: reward_model, run: FOLDER}")
    if name in JUDGES and value is name:
        raise ValueError(f"expected a mapping: {{kind: {name}, rubric: ..., endpoint: {{...}}}}")
    if isinstance(name, str) and (name in SECTIONS or (name.count(":") >= 2 and name.startswith(PYTHON))):
        if isinstance(value, dict) and name not in SECTIONS:
            raise ValueError(f"{PYTHON} graders have no options: write `grader: {name}`")
        return value
    near = difflib.get_close_matches(str(name), SECTIONS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    known = ", ".join((*GRADERS, *JUDGES, "reward_model"))
    raise ValueError(f"unknown grader {name!r}{hint} Expected one of {known} or python:file.py:fn")


def _tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", "")
    return _TAGS.get(str(kind), "name")


_TAGS = {kind: "plain" if section is PlainGrader else kind for kind, section in SECTIONS.items()}
GRADER_TAGS = {tag: SECTIONS[kind] for kind, tag in _TAGS.items()}

GraderChoice = Annotated[
    Annotated[str, Tag("name")]
    | Annotated[PlainGrader, Tag("plain")]
    | Annotated[StringCheckOptions, Tag("string_check")]
    | Annotated[TextSimilarityOptions, Tag("text_similarity")]
    | Annotated[NumericOptions, Tag("numeric")]
    | Annotated[RubricOptions, Tag("rubric")]
    | Annotated[PairwiseOptions, Tag("pairwise")]
    | Annotated[RewardModelOptions, Tag("reward_model")],
    Discriminator(_tag),
]


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
