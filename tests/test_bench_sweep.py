"""The benchmark of sweeps: its gate, and both sides from end to end on a small model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.catalogue import WORKLOADS
from bench.harness import BenchError
from bench.peers import TrlSettings
from bench.report import section
from bench.sides import Options
from bench.sweeping import compare_sweeps, loss_gate
from bench.workload import SweepWorkload
from luthier.models.load import load_tokenizer

RATES = (1e-4, 1e-3, 1e-2)
PEER = [{"losses": {"0.0001": 0.9, "0.001": 0.5, "0.01": 0.7}}]


def test_a_sweep_must_end_as_well_as_the_best_of_the_peers_runs() -> None:
    (said,) = loss_gate([{"losses": {"0.001": 0.5002, "0.01": 0.7}}], PEER, RATES)
    assert "best validation loss 0.5002 at 0.001; the best of TRL's 3 runs 0.5000" in said
    assert "at most 2.0e-04 apart" in said
    with pytest.raises(BenchError, match=r"sweep 1 ended with a validation loss of 0\.5500"):
        loss_gate([{"losses": {"0.001": 0.55, "0.01": 0.7}}], PEER, RATES)
    with pytest.raises(BenchError, match="ended with"):
        loss_gate([{"losses": {"0.001": float("nan")}}], PEER, RATES)
    assert "best validation loss 0.4000" in loss_gate([{"losses": {"0.001": 0.4}}], PEER, RATES)[0]


def test_the_workload_is_as_announced() -> None:
    workload = WORKLOADS["w5"]
    assert isinstance(workload, SweepWorkload)
    assert len(workload.rates) == 8 and workload.goal.speed == 8
    assert all(workload.batch % settings.micro_batch == 0 for settings in workload.candidates)
    assert workload.steps * workload.batch + workload.held_out + 8 <= 400  # the demo's tickets
    factors = [b / a for a, b in zip(workload.rates, workload.rates[1:], strict=False)]
    assert max(factors) < 1.02 * min(factors)


@pytest.mark.slow
def test_both_sides_train_the_same_and_the_ratio_is_of_whole_sweeps(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("smollm2-135m")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
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
        LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    workload = WORKLOADS["w5"]
    assert isinstance(workload, SweepWorkload)
    small = replace(workload, rates=RATES, steps=8, batch=2, held_out=4)
    options = Options(1, 1, str(tmp_path), {"w5": TrlSettings(2)}, lambda text: None)
    result = compare_sweeps(small, options)
    apart = float(result.gates[1].partition("are at most ")[2].split()[0])
    assert apart < 1e-3  # the same batches, rates, adapter and optimizer
    assert result.luthier.tokens == result.peer.tokens
    assert result.ratios.median == pytest.approx(result.peer.seconds[0] / result.luthier.seconds[0])
    text = section(result)
    assert "trains 18 of 24 steps" in text  # 2 at the rung and 6 more of two trials, 2 of the third
    assert str(tmp_path) not in text
