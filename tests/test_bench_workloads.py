"""The benchmark's workloads: what they say they are, and that they run and pass their gates."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench import w1_varied, w2_shared_prefix, w3_preferences, w4_rollouts, w6_answers
from bench.catalogue import WORKLOADS
from bench.plan import Row
from bench.work import common_prefix, count_work
from bench.workload import NOT_BUILT, TrainingWorkload
from luthier.chat import ChatFormat
from luthier.models.load import load_tokenizer

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def smollm() -> ChatFormat:
    return ChatFormat(load_tokenizer("smollm2-135m"))


def row(ids: Sequence[int]) -> Row:
    return Row(tuple(ids), (1.0,) * len(ids))


def test_nothing_is_shared_and_lengths_vary(smollm: ChatFormat) -> None:
    examples = w1_varied.varied_examples(smollm, 80)
    rows = [found for (found,) in examples]
    assert len({found.ids[0] for found in rows}) == 80
    lengths = sorted(len(found.ids) for found in rows)
    assert (lengths[0], lengths[-1]) == (30, 600)
    assert 125 < lengths[40] < 145  # the middle of a log-uniform range: sqrt(30 * 600)
    assert all(sum(found.weights) == (len(found.ids) + 1) // 2 for found in rows)
    assert count_work(rows).distinct == sum(lengths)
    assert w1_varied.varied_examples(smollm, 80) == examples


def test_the_negative_control_is_even(smollm: ChatFormat) -> None:
    rows = [found for (found,) in w1_varied.equal_examples(smollm, 40)]
    assert {len(found.ids) for found in rows} == {512}
    assert len({found.ids[0] for found in rows}) == 40


@pytest.mark.parametrize(
    ("build", "shared", "length"),
    [(w2_shared_prefix.system_prompt_examples, 45, 105), (w2_shared_prefix.few_shot_examples, 350, 410)],
)
def test_prompts_are_shared_as_announced(build: Any, shared: int, length: int, smollm: ChatFormat) -> None:
    work = count_work([found for (found,) in build(smollm, 64)])
    assert abs(work.shared - shared) <= 5
    assert abs(work.tokens / 64 - length) <= 12


def test_preference_pairs_share_their_prompt_only(smollm: ChatFormat) -> None:
    pairs = w3_preferences.preference_examples(smollm, 40)
    for preferred, other in pairs:
        assert len(preferred.ids) == len(other.ids) == 256
        assert preferred.ids[:128] == other.ids[:128]
        assert preferred.ids[128] != other.ids[128]
        assert preferred.weights == other.weights == (0.0,) * 128 + (1.0,) * 128
    assert len({preferred.ids[0] for preferred, _ in pairs}) == 40


def test_groups_share_their_prompt_only(smollm: ChatFormat) -> None:
    groups = w4_rollouts.group_examples(smollm, 12)
    for group in groups:
        assert [len(row.ids) for row in group] == [640] * 8
        assert len({row.ids[:512] for row in group}) == 1
        assert len({row.ids[512] for row in group}) == 8
        assert {row.weights for row in group} == {(0.0,) * 512 + (1.0,) * 128}
        drawn = w4_rollouts.advantages([row.ids for row in group])
        assert len(set(drawn)) == 8 and all(-1 <= one <= 1 for one in drawn)
    assert len({group[0].ids[0] for group in groups}) == 12


def test_questions_have_long_contexts_of_their_own(smollm: ChatFormat) -> None:
    questions = w6_answers.science_questions(smollm.tokenizer, 8)
    contexts = [smollm.tokenizer(question.context).input_ids for question in questions]
    assert all(540 < len(ids) <= 600 for ids in contexts)
    assert max(common_prefix(a, b) for a, b in combinations(contexts, 2)) < 20
    for question, context in zip(questions, contexts, strict=True):
        assert len(set(question.options)) == 4
        for option, ids, length in zip(question.options, question.ids, question.lengths, strict=True):
            assert list(ids[:-length]) == context
            assert smollm.tokenizer.decode(ids[-length:]) == option


def test_prompts_to_write_behind_are_as_announced(smollm: ChatFormat) -> None:
    prompts = w6_answers.triage_prompts(smollm)
    assert len(prompts) == 128
    assert abs(count_work([row(prompt) for prompt in prompts]).shared - 350) <= 5


def test_every_announced_workload_is_there() -> None:
    names = {name for name in WORKLOADS if "-" not in name} | set(NOT_BUILT)
    assert names == {"w1", "w2a", "w2b", "w3", "w4", "w5", "w6a", "w6b", "w7", "w8", "w9"}


def test_every_training_workload_can_be_dealt() -> None:
    for workload in WORKLOADS.values():
        if isinstance(workload, TrainingWorkload) and workload.objective != "grpo":  # a group is cut
            assert all(workload.batch % settings.micro_batch == 0 for settings in workload.candidates)


# from end to end


@pytest.fixture(scope="module")
def small_model(smollm: ChatFormat, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two random layers behind the real tokenizer: the workloads' texts, in seconds instead of minutes."""
    folder = tmp_path_factory.mktemp("model")
    config = LlamaConfig(
        vocab_size=len(smollm.tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    smollm.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "peer", "said"),
    [
        ("w2a", "w2a=4", "Losses of the two sides: at most"),
        ("w3", "w3=2", "Reference log-probabilities are computed by both"),
        ("w4", "w4=4", "Reference log-probabilities are computed by both"),
        ("w6a", "w6a=4", "Log-likelihoods of the two sides: at most"),
        ("w6b", "w6b=64", "answers are the same on both sides"),
        ("w6b-prefix", "w6b-prefix=128,prefix", "answers are the same on both sides"),
    ],
)
def test_a_workload_runs_and_passes_its_gates(
    name: str, peer: str, said: str, small_model: Path, tmp_path: Path
) -> None:
    if name == "w6a":
        pytest.importorskip("lm_eval", reason="the extra `bench` is not installed")
    out = tmp_path / "benchmarks.md"
    command = [sys.executable, "-m", "bench", name, "--pairs", "1", "--threads", "1", "--peer", peer]
    command += ["--model", str(small_model), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    assert said in text
    assert f"| {name.upper()} |" in text
    assert str(small_model) not in text
