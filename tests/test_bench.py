"""The benchmark's own arithmetic, its workloads and its report; nothing here is timed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench import sides
from bench.answering import score_distance
from bench.catalogue import WORKLOADS
from bench.harness import BenchError, Worker, take_turns
from bench.peers import LmEvalSettings, TransformersSettings, TrlSettings
from bench.plan import BETA, Plan, Row, deal, nearest_length, tokens_of
from bench.prose import how_to_read
from bench.report import Conditions, losing, section, summary, write_report
from bench.sides import Comparison, Options, Side, fastest, kind_of
from bench.spread import Spread
from bench.startup import Startup
from bench.training import _loss_gate
from bench.w4_rollouts import advantages
from bench.work import Model, Work, common_prefix, count_work, scoring_flops, training_flops
from bench.workers.objective import Frozen, Referred, items_of
from bench.workers.transformers_writing import pad_left
from bench.workload import StartupWorkload
from luthier.forest.layout import lay_out

Sequences = list[list[int]]
forests = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=6)


def row(ids: Sequence[int], prompt: int = 0) -> Row:
    return Row(tuple(ids), (0.0,) * prompt + (1.0,) * (len(ids) - prompt))


# numbers


def test_spread_is_median_smallest_largest() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)
    assert Spread(1234.5, 1.0, 2000.0).show(1) == "1,234.5 [1.0, 2,000.0]"


def test_work_of_two_sequences_by_hand() -> None:
    """[1 2 3] and [1 2 4 5] share [1 2]: 5 prefixes, of depth 1 2 3 3 4."""
    work = count_work([row([1, 2, 3], prompt=1), row([1, 2, 4, 5], prompt=3)])
    assert work == Work(tokens=7, trained=3, distinct=5, predictions=3, pairs=13, shared=2, longest=4)


def test_a_prediction_that_two_sequences_share_is_one() -> None:
    work = count_work([row([1, 2, 3], prompt=1), row([1, 2, 4], prompt=1)])
    assert (work.trained, work.predictions) == (4, 3)  # 2 after [1] is asked for once


@given(forests)
def test_work_is_what_brute_force_counts(sequences: Sequences) -> None:
    prefixes = {tuple(ids[: t + 1]) for ids in sequences for t in range(len(ids))}
    work = count_work([row(ids, prompt=1) for ids in sequences])
    assert work.distinct == len(prefixes)
    assert work.pairs == sum(map(len, prefixes))
    assert work.predictions == len({prefix for prefix in prefixes if len(prefix) > 1})
    shared = min((common_prefix(a, b) for a, b in combinations(sequences, 2)), default=len(sequences[0]))
    assert work.shared == shared


@given(forests)
def test_work_is_what_the_forest_lays_out(sequences: Sequences) -> None:
    work, layout = count_work([row(ids) for ids in sequences]), lay_out(sequences)
    assert work.distinct == len(layout.tokens)
    assert work.pairs == int((layout.positions + 1).sum())


def test_operations_by_hand() -> None:
    model = Model(linear=100, adapter=10, width=4, vocabulary=7, layers=2, attention_width=6)
    work = Work(tokens=9, trained=3, distinct=5, predictions=3, pairs=12, shared=1, longest=5)
    assert training_flops(model, work) == (4 * 100 + 6 * 10) * 5 + 4 * 7 * 4 * 3 + 12 * 6 * 12 * 2
    assert scoring_flops(model, work) == 2 * 100 * 5 + 2 * 7 * 4 * 3 + 4 * 6 * 12 * 2


# the plan


@given(st.integers(1, 9), st.integers(1, 8), st.randoms(use_true_random=False))
def test_dealing_gives_even_batches(steps: int, batch: int, dice: random.Random) -> None:
    lengths = [dice.randint(30, 600) for _ in range(steps * batch)]
    batches = deal(lengths, steps)
    assert sorted(i for indices in batches for i in indices) == list(range(len(lengths)))
    assert {len(indices) for indices in batches} == {batch}
    totals = [sum(lengths[i] for i in indices) for indices in batches]
    assert max(totals) - min(totals) <= max(lengths) - min(lengths)
    for indices in batches:
        assert lengths[indices[-1]] == max(lengths[i] for i in indices)


def test_dealing_evens_out_a_row_of_lengths() -> None:
    """1 to 40 in five batches of eight: 164 tokens in each."""
    assert {sum(i + 1 for i in indices) for indices in deal(range(1, 41), 5)} == {164}


def test_a_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    examples = ((row([1, 2, 3], 1), row([1, 4], 1)), (row([5, 6], 1), row([5, 7, 8], 1)))
    plan = Plan("dpo", examples, examples[:1], ((1,), (0,)), (0.1, 0.05), 0.1, 3, 5, "adapter")
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert plan.batch(0) == [examples[1]]
    assert tokens_of(examples[0]) == 5


def test_nearest_lengths_keep_their_order() -> None:
    rows = [row(range(n)) for n in (9, 4, 6, 5)]
    assert [len(found.ids) for found in nearest_length(rows, 5, 3)] == [4, 6, 5]
    with pytest.raises(ValueError, match="ask for fewer pairs"):
        nearest_length(rows, 5, 5)


# the preference loss


def preferences(preferred: float, other: float, references: tuple[float, float]) -> float:
    """The loss of one pair with these summed log-probabilities."""
    (item,) = items_of([(row([1, 2]), row([1, 3]))])
    method = Referred(beta=BETA, references={item.where: [torch.tensor([both]) for both in references]})
    assert method.total([item]) == 1.0
    values = [torch.tensor([value / 2, value / 2]) for value in (preferred, other)]
    return method.loss([item], [values]).item()


def test_the_preference_loss_at_the_reference_is_ln_2() -> None:
    assert preferences(-7.0, -9.0, (-7.0, -9.0)) == pytest.approx(0.69314718)


def test_the_preference_loss_by_hand() -> None:
    """Margin (-5 + 7) - (-9 + 8) = 3, times 0.1: log(1 + exp(-0.3)) = 0.554355."""
    assert preferences(-5.0, -9.0, (-7.0, -8.0)) == pytest.approx(0.554355, abs=1e-6)
    swapped = preferences(-9.0, -5.0, (-8.0, -7.0))
    assert swapped == pytest.approx(0.854355, abs=1e-6)  # 0.3 more: the margin's sign is flipped


def test_frozen_rollouts_by_hand() -> None:
    """Where nothing has moved the ratio is 1 and the KL term 0: minus the advantage of every token.

    At log-probability -1 against -2 before training the KL term is e^-1 + 1 - 1 = 0.367879, times 0.04.
    """
    (item,) = items_of([(row([1, 2, 3], 1), row([1, 4], 1))])
    first, second = advantages([(1, 2, 3), (1, 4)])
    method = Frozen(references={item.where: [torch.tensor([-1.0, -2.0]), torch.tensor([-3.0])]})
    assert method.total([item]) == 3.0 and first != second
    still = method.loss([item], [[torch.tensor([-1.0, -2.0]), torch.tensor([-3.0])]])
    assert still.item() == pytest.approx(-2 * first - second)
    moved = method.loss([item], [[torch.tensor([-1.0, -1.0]), torch.tensor([-3.0])]])
    assert moved.item() == pytest.approx(-2 * first - second + 0.04 * 0.367879, abs=1e-6)


# peers


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("4", TrlSettings(4)),
        ("8,free", TrlSettings(8, "free")),
        ("1,packed,compile", TrlSettings(1, "packed", compile=True)),
    ],
)
def test_settings_of_trl_by_hand(text: str, settings: TrlSettings) -> None:
    assert TrlSettings.parse(text) == settings


@pytest.mark.parametrize("text", ["", "0", "x", "4,fast", "4,free,packed"])
def test_wrong_settings_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        TrlSettings.parse(text)


def test_settings_of_the_others_by_hand() -> None:
    assert TransformersSettings.parse("64,prefix") == TransformersSettings(64, "prefix")
    assert LmEvalSettings.parse("4") == LmEvalSettings(4)
    with pytest.raises(ValueError):
        TransformersSettings.parse("64,free")


def test_only_packing_and_grouping_change_the_batches() -> None:
    feedings = ("padded", "free", "packed", "grouped", "rebalanced")
    assert [TrlSettings(1, f).keeps_batches for f in feedings] == [True, True, False, False, True]


def test_padding_stands_between_shared_prefix_and_own_tokens() -> None:
    ids, mask = pad_left([[7, 8, 1], [7, 8, 2, 3, 4]], shared=2)
    assert ids.tolist() == [[7, 8, 0, 0, 1], [7, 8, 2, 3, 4]]
    assert mask.tolist() == [[1, 1, 0, 0, 1], [1, 1, 1, 1, 1]]


# workers and gates


def test_a_dead_worker_is_an_error() -> None:
    job = {"threads": "two"}
    with (
        Worker("sgemm", job, threads=1) as worker,
        pytest.raises(BenchError, match="ended with code 1") as hit,
    ):
        worker.answer()
    assert kind_of(hit.value) == "RuntimeError"


def test_a_setting_that_does_not_run_is_noted_and_none_at_all_is_an_error() -> None:
    told: list[str] = []
    options = Options(1, 1, "no-such-model", {}, told.append)
    with pytest.raises(BenchError, match="none of the peer's settings runs"):
        fastest("no_such_worker", {}, [TransformersSettings(8)], options=options)
    assert "no_such_worker" in told[0]


class Probed:
    """A worker whose speed follows from its settings; compilation is slow at first."""

    steps: ClassVar[dict[str, int]] = {}

    def __init__(self, module: str, job: dict[str, Any], *, threads: int) -> None:
        self.settings = TrlSettings(**job["settings"])
        self.steps[self.settings.name] = 0

    def __enter__(self) -> Probed:
        return self

    def __exit__(self, *args: object) -> None:
        return None

    def answer(self) -> dict[str, Any]:
        return {"peak_bytes": 0}

    def go(self) -> dict[str, Any]:
        self.steps[self.settings.name] += 1
        if self.settings.feeding == "free":
            raise BenchError("ended with code 1:\nsome.module.ValueError: in /a/folder")
        seconds = float(self.settings.micro_batch)
        if self.settings.compile:
            seconds = 60.0 if self.steps[self.settings.name] == 1 else 0.5
        return {"tokens": 1000, "seconds": seconds, "peak_bytes": 10**9}


def test_the_fastest_setting_is_taken_and_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "Worker", Probed)
    options = Options(1, 1, "", {}, lambda text: None)
    candidates = [TrlSettings(2), TrlSettings(8), TrlSettings(1), TrlSettings(4, "free")]
    found, probes = fastest(
        "trl_sft", {}, candidates, options=options, compiled=lambda s: replace(s, compile=True)
    )
    assert found == TrlSettings(1, compile=True)
    assert probes[found.name] == ("2000", "1.00 GB")  # the first steps, which compile, do not count
    assert probes["4 at once, padding-free"] == ("does not run here (ValueError)", "-")
    assert Probed.steps["2 at once, padded"] == 2
    assert Probed.steps["8 at once, padded"] == 1  # four times slower than the best so far: enough


def test_warm_up_counts_for_memory_alone() -> None:
    reports = [
        {"seconds": 9.0, "tokens": 10, "peak_bytes": 7, "loss": 1.0},
        {"seconds": 2.0, "tokens": 10, "peak_bytes": 5, "loss": 0.5, "executed": 8},
    ]
    found = Side.of("a", reports, {"peak_bytes": 3}, 1)
    assert found == Side("a", (2.0,), (10,), (8,), (0.5,), 3, 7)
    assert found.rates == [5.0]


def test_sides_take_turns_a_b_b_a() -> None:
    order: list[str] = []

    class Fake:
        def __init__(self, name: str) -> None:
            self.name = name

        def go(self) -> dict[str, Any]:
            order.append(self.name)
            return {"number": len(order)}

    own, other = take_turns(Fake("a"), Fake("b"), warm=1, pairs=3)  # type: ignore[arg-type]
    assert order == list("abbaabba")
    assert [report["number"] for report in own] == [1, 4, 5, 8]
    assert [report["number"] for report in other] == [2, 3, 6, 7]


def test_losses_apart_are_an_error_unless_batches_differ() -> None:
    options = Options(2, 1, "", {}, lambda text: None)
    own, near, far = ([{"loss": 0.5}, {"loss": 0.4 + d}] for d in (0.0, 9e-5, 2e-4))
    assert "at most 9.0e-05 apart" in _loss_gate(own, near, TrlSettings(4), options)
    with pytest.raises(BenchError, match="apart"):
        _loss_gate(own, far, TrlSettings(4), options)
    with pytest.raises(BenchError, match="apart"):
        _loss_gate(own, [{"loss": 0.5}, {"loss": float("nan")}], TrlSettings(4), options)
    assert "cannot be compared" in _loss_gate(own, far, TrlSettings(1, "packed"), options)


def test_score_distance_is_relative_above_one() -> None:
    assert score_distance([{"values": [-100.0, 0.5]}], [{"values": [-101.0, 0.5]}]) == pytest.approx(1 / 101)
    assert score_distance([{"values": [0.1]}], [{"values": [0.3]}]) == pytest.approx(0.2)
    assert not score_distance([{"values": [0.1, float("nan")]}], [{"values": [0.3, 0.2]}]) <= 1.0


# the report


def side(name: str, seconds: Sequence[float], peak: int) -> Side:
    count = len(seconds)
    return Side(name, tuple(seconds), (1000,) * count, (1200,) * count, (0.5,) * count, 10**9, peak)


def comparison(name: str = "w2a", own: Sequence[float] = (2.0, 1.0), peak: int = 2 * 10**9) -> Comparison:
    workload = WORKLOADS[name]
    peer = side("TRL SFTTrainer (4 at once, padded)", (4.0, 4.0), 4 * 10**9)
    shares = Spread(0.5, 0.4, 0.6)
    luthier = side("Luthier", own, peak)
    return Comparison(workload, luthier, peer, ("Work.",), ("Gate.",), shares, (3e11, 2e11), 0.1, 2.0)


def test_a_ratio_is_of_useful_tokens_pair_by_pair() -> None:
    result = comparison()
    assert result.ratios == Spread(3.0, 2.0, 4.0)
    assert result.memory_ratio == 0.5
    shorter = replace(result, peer=replace(result.peer, tokens=(500, 500)))
    assert shorter.ratios == Spread(6.0, 4.0, 8.0)  # half the tokens in the same time


@pytest.mark.parametrize(
    ("name", "own", "peak", "said"),
    [
        ("w2a", (1.0, 1.0), 10**9, []),
        ("w2a", (2.0, 2.0), 10**9, ["below the goal of 3.5"]),
        ("w2a", (5.0, 8.0), 10**9, ["slower"]),
        ("w2b", (0.4, 0.4), 2 * 10**9, ["peak memory 0.50"]),
        ("w7", (1.0, 5.0), 10**9, ["slower in at least one pair"]),
        ("w1", (2.0, 2.0), 4 * 10**9, ["below the goal of 3", "peak memory 1.00"]),
    ],
)
def test_what_was_missed_is_said(name: str, own: tuple[float, float], peak: int, said: list[str]) -> None:
    misses = comparison(name, own, peak).misses()
    assert len(misses) == len(said)
    assert all(part in miss for part, miss in zip(said, misses, strict=True))


def test_the_summary_has_a_row_per_workload() -> None:
    workload = WORKLOADS["w8"]
    assert isinstance(workload, StartupWorkload)
    start = Startup(workload, Spread(0.5, 0.4, 0.6), (), 0.0)
    lines = summary([comparison(), start]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    cells = [cell.strip() for cell in lines[2].split("|")]
    assert cells[1] == "W2A"
    assert cells[3:] == ["TRL SFTTrainer", "3.00 [2.00, 4.00]", "3.5", "0.50", "-", "50%", "no", ""]
    assert "0.50 [0.40, 0.60] s" in lines[3]
    assert Startup(workload, Spread(0.3, 0.2, 0.5), ("torch",), 0.0).misses() == ["imports torch"]


def test_losing_cases_are_published() -> None:
    text = losing([comparison(own=(5.0, 5.0), peak=5 * 10**9)], {"w3": "a worker ended (KeyError)"})
    assert "W3: no result: a worker ended (KeyError)" in text
    assert "W2A: Luthier is slower: 0.80" in text
    assert "W2A: Luthier needs 1.25 times the peer's peak memory" in text
    assert "W2A: 50% of the SGEMM rate" in text


def test_a_report_says_what_was_not_measured() -> None:
    conditions = Conditions("python -m bench w2a --pairs 2", "A model", 2, 1, 3.0)
    text = write_report([comparison()], {}, [WORKLOADS["w7"]], conditions)
    assert "python -m bench w2a --pairs 2 --out docs/benchmarks.md" in text
    assert "SGEMM (2048 x 2048, fp32, same threads, same run): 250 [200, 300] GFLOP/s" in text
    assert "W7: negative control" in text.partition("## Not measured")[2]
    assert how_to_read(2) in text
    assert text.index("## Results") < text.index("## Losing cases") < text.index("## W2A")


def test_a_section_has_every_pair_and_probe() -> None:
    result = replace(comparison(), probes={"8 at once, padded": ("700", "4.00 GB")})
    text = section(result)
    assert "| 2 | 1.000 | 4.000 | 4.00 | 0.500000 | 0.500000 |" in text
    assert "| 8 at once, padded | 700 | 4.00 GB |" in text
    assert "1.500 [1.000, 2.000]" in text  # seconds per step
    assert "50% [40%, 60%]" in text
