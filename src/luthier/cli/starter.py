"""`luthier init`: a recipe from the data, with the reason for each choice beside it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import yaml

from luthier.errors import RecipeError
from luthier.examples import Example, read_examples
from luthier.examples.columns import Columns
from luthier.examples.hub import HUB
from luthier.examples.wording import own_system
from luthier.grade import choose_grader
from luthier.record import explain_os_errors, write_text

WHY_GRADER = {
    "json_fields": "every answer is a JSON object: the score is the share of fields that are right",
    "label": "the answers are a few labels that repeat",
    "string_check": "the answers are short: the score is the share of exact matches",
    "text_similarity": "the answers are free text: chrF similarity, 0 to 1",
}


def write_starter(data: Path, out: Path, *, force: bool, columns: Columns | None = None) -> Path:
    """Write a commented recipe for a file of examples; returns its path.

    Args:
        columns: as for `read_examples`.

    Raises:
        DataError: the file cannot be read.
        RecipeError: `out` exists and `force` is not given.
    """
    loaded = read_examples(data, columns=columns)
    if out.exists() and not force:
        raise RecipeError(
            "already there", where=str(out), fix="choose another name with --out, or use --force"
        )
    with explain_os_errors(out):
        write_text(out, starter(data, loaded.format, loaded.examples, out, columns))
    return out


def starter(
    data: Path, form: str, examples: Sequence[Example], out: Path, columns: Columns | None = None
) -> str:
    """The text of the recipe that will be written to `out`."""
    shown = _shown(data, out)
    source = {"train": str(shown), "columns": dict(columns)} if columns else str(shown)
    if not any(example.request for example in examples):
        return _text_starter(shown, source, len(examples), out)
    answers = [example.answer for example in examples if example.wanted]
    grader = choose_grader(answers)
    turns = statistics.mean(len(example.messages) for example in examples)
    own = sum(own_system(example) is not None for example in examples)
    epochs = 3 if len(examples) >= 150 else 5
    if own:
        system = (
            f"# system: ...                # {own} of {len(examples)} examples bring their own system prompt"
        )
    else:
        system = (
            "# system: You are ...         # say what the task is: all candidates but scratch read it,\n"
            "#                               and nothing else improves them as much for free"
        )
    return f"""\
# A Luthier recipe for {shown}: {len(examples)} examples, read as {form}, {turns:.1f} messages each.
# Run it with: luthier run {out.name}     All keys: luthier schema

{_line("name", out.name.split(".")[0])}
model: smollm2-135m            # the embedded model; or a local folder, or a hub id
{_line("data", source)}
{system}
grader: {grader:<22} # {WHY_GRADER[grader]}
candidates: [prompt, few_shot, retrieval, scratch, tuned]   # measured on the same held-out examples
shots: 4                       # examples in the prompt of few_shot and retrieval
{_method(examples)}
adapter: {{kind: lora, rank: 16}}
train:
  epochs: {epochs}                    # the epoch with the lowest validation loss is kept
  learning_rate: auto          # from the model's width ("LoRA Without Regret")
  batch_tokens: 2048           # tokens per step
  max_minutes: null            # a limit on training time
  replay: 0.1                  # share of the base model's own answers trained along: it forgets less
split: {{validation: 0.1, test: 0.3}}   # near-duplicates stay on one side
gates:
  min_gain: 0.02               # ship needs this gain over the best alternative, and significance
  max_forgetting: 0.02         # and no larger loss than this on public test items
  max_drift: 0.69              # nats per token on the base model's own text (0.69: its perplexity doubles)
seed: 0
"""


def _method(examples: Sequence[Example]) -> str:
    """The line of the method: by whether answers are judged one by one, are pairs, or are simply given."""
    if any(not example.wanted for example in examples):
        return "method: kto                    # answers marked bad are learnt from too"
    if all(example.rejected for example in examples):
        return "method: dpo                    # learn to prefer the chosen to the rejected answers"
    return "method: sft                    # learn to write the answers"


def _shown(data: Path, out: Path) -> Path:
    """The file as the recipe names it."""
    if str(data).startswith(HUB):
        return data
    try:
        return data.resolve().relative_to(out.parent.resolve())
    except ValueError:
        return data.resolve()


def _text_starter(shown: Path, source: object, count: int, out: Path) -> str:
    return f"""\
# A Luthier recipe for {shown}: {count} plain texts.
# Run it with: luthier run {out.name}     All keys: luthier schema

{_line("name", out.name.split(".")[0])}
model: smollm2-135m            # the embedded model; or a local folder, or a hub id
{_line("data", source)}
candidates: [prompt, tuned]    # how likely the base and the tuned model find the same held-out texts
method: {{kind: cpt, block: 1024}}   # continued pre-training, in pieces of at most so many tokens
adapter: {{kind: lora, rank: 16}}
train:
  epochs: 3                    # the epoch with the lowest validation loss is kept
  learning_rate: auto          # from the model's width ("LoRA Without Regret")
  batch_tokens: 2048           # tokens per step
  max_minutes: null            # a limit on training time
  replay: 0.1                  # share of the base model's own answers trained along: it forgets less
split: {{validation: 0.1, test: 0.3}}   # near-duplicates stay on one side
probes: [forgetting, own_text] # what it costs: public tasks, and perplexity on the base's own words
gates:
  min_gain: 0.02               # ship needs this gain in probability per token, and significance
  max_forgetting: 0.02         # and no larger loss than this on public test items
  max_drift: 0.69              # nats per token on the base model's own text (0.69: its perplexity doubles)
seed: 0
"""


def _line(key: str, value: object) -> str:
    """`key: value` with the quotes that YAML needs, such as around 2024."""
    if isinstance(value, dict):
        inside = yaml.safe_dump(
            value, allow_unicode=True, width=1000, default_flow_style=True, sort_keys=False
        )
        return f"{key}: {inside.strip()}"
    return yaml.safe_dump({key: value}, allow_unicode=True, width=1000).strip()
