"""The estimate before training: the plan against what training does, numbers against references."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny, with_lora
from tiny_training import equal, make_items, make_model, trainable
from torch.utils.flop_counter import FlopCounterMode

from luthier.chat import ChatFormat, TrainingSequence
from luthier.demo import DATA
from luthier.errors import TrainingError
from luthier.examples.read import read_examples
from luthier.methods import SFT, Item
from luthier.models import attach_adapter, load_model
from luthier.models.held import hold_base
from luthier.recipe import Adapter, Train
from luthier.train import estimate, loop, machine
from luthier.train.batches import batches_per_epoch, epoch_batches
from luthier.train.estimate import Estimate, Probe, estimate_training
from luthier.train.loop import MICRO_TOKENS
from luthier.train.memory import sum_over
from luthier.train.work import STEPS_LOOKED_AT, Work, plan_training, shape_of, work_of

CPU = torch.device("cpu")


def item(*rows: str, trained: int = 1) -> Item:
    """Sequences of one character per token; the last `trained` of each are trained."""
    sequences = [
        TrainingSequence(tuple(map(ord, row)), (0.0,) * (len(row) - trained) + (1.0,) * trained)
        for row in rows
    ]
    return Item("here:1", tuple(sequences))


def shared(item: Item) -> bool:
    return True


def unshared_rows(item: Item) -> bool:
    return False


def estimated(model: Any = None, **changes: Any) -> Estimate:
    given: dict[str, Any] = {
        "method": SFT(),
        "items": make_items(),
        "validation": make_items(4, seed=9),
        "settings": tiny_training.settings(),
        "seed": 1,
    }
    return estimate_training(make_model() if model is None else model, **(given | changes))


# --- the plan -------------------------------------------------------------------------------------


def test_work_by_hand() -> None:
    """abc, abd and x: nodes a b c d x; depths 1 2 3 3 1; b is followed by c and by d."""
    items = [item("abc", "abd"), item("x", trained=0)]
    assert work_of(items, shares=shared) == Work(executed=5, predictions=2, pairs=1 + 2 + 3 + 3 + 1)
    assert work_of(items, shares=unshared_rows) == Work(executed=7, predictions=2, pairs=6 + 6 + 1)


@settings(max_examples=25)
@given(st.integers(0, 99), st.integers(1, 3), st.integers(8, 200), st.sampled_from([8, 20, 1024]))
def test_the_plan_is_what_training_does(seed: int, epochs: int, batch_tokens: int, micro: int) -> None:
    """Counted by the loop's own functions, step for step."""
    items = make_items(9, seed=seed)
    asked = Train(epochs=epochs, batch_tokens=batch_tokens)
    plan = plan_training(items, items[:2], asked, seed=seed, micro_tokens=micro, shares=shared)
    executed = [
        sum_over(
            [items[i] for i in batch], lambda micro: 0.0, micro_tokens=micro, shares=shared
        ).executed_tokens
        for epoch in range(epochs)
        for batch in epoch_batches(items, batch_tokens=batch_tokens, seed=seed, epoch=epoch)
    ]
    steps = batches_per_epoch(items, batch_tokens) * epochs
    assert (plan.steps, plan.executed_tokens) == (steps, sum(executed))
    assert plan.tokens == epochs * sum(i.tokens for i in items)
    assert plan.trained_tokens == epochs * SFT().total(items)
    largest = work_of(plan.largest, shares=shared)
    assert (largest.executed, largest.pairs) == max((work.executed, work.pairs) for work in plan.micros)
    assert plan.validations == epochs
    assert sum(work.executed for work in plan.validation) >= work_of(items[:2], shares=shared).executed


@pytest.mark.parametrize("micro", [8, 1024])
def test_the_estimate_counts_what_the_summary_will(micro: int, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(estimate, "MICRO_TOKENS", micro)
    model = make_model()
    told = estimated(model)
    _, summary = tiny_training.run(tmp_path, model=model, micro_tokens=told.micro_tokens)
    counted = ("steps", "tokens", "trained_tokens", "executed_tokens", "micro_tokens")
    assert {name: getattr(told, name) for name in counted} == {name: summary[name] for name in counted}


def test_a_long_training_is_judged_by_a_part_of_its_first_epoch() -> None:
    items = make_items(3 * STEPS_LOOKED_AT)
    asked = Train(epochs=20, batch_tokens=20)
    plan = plan_training(items, [], asked, seed=0, micro_tokens=1024, shares=shared)
    looked_at = plan.steps / plan.scale
    assert STEPS_LOOKED_AT <= looked_at <= 2 * STEPS_LOOKED_AT
    per_epoch = plan.steps // 20
    exact = plan_training(
        items, [], Train(batch_tokens=20, epochs=1), seed=0, micro_tokens=1024, shares=shared
    )
    assert plan.executed_tokens == pytest.approx(
        20 * exact.executed_tokens * per_epoch / exact.steps, rel=0.03
    )


# --- operations -----------------------------------------------------------------------------------


def test_operations_by_hand() -> None:
    """Llama: 2 layers of 4 x 8 heads, 2 of them keys; q 32x32, k and v 32x16, o 32x32, three of 32x48."""
    blocks = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    adapters = 2 * 4 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))
    shape = shape_of(with_lora(tiny("llama").requires_grad_(False)))
    assert (shape.frozen, shape.trained, shape.head, shape.attention) == (blocks, adapters, 97 * 32, 2 * 32)
    assert not shape.head_trained
    work = Work(executed=10, predictions=3, pairs=40)
    assert shape.step_flops(work) == ((4 * blocks + 6 * adapters) * 10 + 4 * 97 * 32 * 3 + 12 * 64 * 40)
    assert shape.forward_flops(work) == 2 * (blocks + adapters) * 10 + 2 * 97 * 32 * 3 + 4 * 64 * 40


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2", "gpt_neox", "phi3", "gemma2"])
def test_operations_against_torchs_counter(kind: str) -> None:
    """Full fine-tuning of one row: attention there computes all pairs, hidden ones too."""
    model = tiny(kind, attn_implementation="eager")
    ids = torch.arange(3, 14)[None]
    with FlopCounterMode(display=False) as counter:
        forward = model(input_ids=ids, use_cache=False).logits
        after_forward = counter.get_total_flops()
        forward.sum().backward()
    rotary = {"llama": 1, "qwen3": 1, "gpt_neox": 1, "phi3": 1, "gemma2": 1}.get(kind, 0)
    shape = shape_of(model)
    work = Work(executed=11, predictions=11, pairs=11 * 11)
    # the angles of rotary embeddings are a product too: head width / 2 by positions
    angles = after_forward - shape.forward_flops(work)
    assert 0 <= angles <= rotary * 2 * 11 * 16
    assert counter.get_total_flops() - angles == pytest.approx(shape.step_flops(work), rel=1e-9)


def test_of_experts_only_the_active_ones_count() -> None:
    """Mixtral with 2 of 4 experts of 3 x 32 x 48, and a router of 4 x 32."""
    attention = 2 * 32 * 32 + 2 * 32 * 16
    shape = shape_of(tiny("mixtral").requires_grad_(False))
    assert shape.frozen == 2 * (attention + 2 * 3 * 32 * 48 + 4 * 32)


def test_a_base_in_int8_has_the_same_operations() -> None:
    exact, held = make_model(), make_model()
    assert hold_base(held.get_base_model(), "int8") > 0  # type: ignore[operator]
    assert shape_of(held) == shape_of(exact)


# --- measuring ------------------------------------------------------------------------------------


def test_estimating_leaves_no_trace(tmp_path: Path) -> None:
    touched, other = make_model(), make_model()
    torch.manual_seed(3)
    before, state = trainable(touched), torch.get_rng_state()
    estimated(touched)
    assert equal(before, trainable(touched))
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in touched.parameters())
    tiny_training.run(tmp_path / "a", model=touched)
    tiny_training.run(tmp_path / "b", model=other)
    assert equal(trainable(touched), trainable(other))


class Machine:
    """A clock that moves by a known rule of what is computed, and memory that grows with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, rate: float = 1e7, overhead: float = 0.02) -> None:
        self.rate, self.overhead = rate, overhead
        self.now, self.cold = 0.0, 5.0
        self.bytes_per_token, self.peak = 1000, 0
        self.ran: list[int] = []
        self.fails: Callable[[int], bool] = lambda tokens: False
        monkeypatch.setattr(estimate, "_forward_and_backward", self.compute)
        monkeypatch.setattr(estimate, "_first_call", self.first)
        monkeypatch.setattr(estimate, "_optimizer_seconds", lambda model, clock: 0.5)
        monkeypatch.setattr(estimate, "used_bytes", lambda device: 10_000_000)
        monkeypatch.setattr(machine, "used_bytes", lambda device: 10_000_000 + self.peak)

    def clock(self) -> float:
        return self.now

    def first(self, model: Any, item: Item) -> None:
        self.now += self.cold

    def compute(self, model: Any, method: Any, items: Sequence[Item]) -> None:
        work = work_of(items, shares=shared)
        self.ran.append(work.executed)
        if self.fails(work.executed):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        self.now += self.overhead + shape_of(model).step_flops(work) / self.rate
        self.peak = self.bytes_per_token * work.executed


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(estimate, "TINY_TOKENS", 8)
    monkeypatch.setattr(estimate, "SMALL_TOKENS", 20)
    return Machine(monkeypatch)


def rows(count: int, length: int = 8) -> list[Item]:
    return [item(chr(65 + i % 26) + chr(65 + i // 26) + "x" * (length - 2)) for i in range(count)]


def test_seconds_are_those_of_steps_overheads_optimizer_and_validation(clocked: Machine) -> None:
    """A long training, so that large micro-batches are measured too: the fit is then exact."""
    model, items, held = make_model(), rows(100), rows(10)
    asked = Train(epochs=9, batch_tokens=80)
    told = estimated(model, items=items, validation=held, settings=asked, clock=clocked.clock)
    plan = plan_training(items, held, asked, seed=1, micro_tokens=MICRO_TOKENS, shares=shared)
    shape = shape_of(model)
    seconds = sum(clocked.overhead + shape.step_flops(work) / clocked.rate for work in plan.micros)
    seconds += 9 * sum(
        clocked.overhead + shape.forward_flops(work) / clocked.rate for work in plan.validation
    )
    assert told.seconds == pytest.approx(seconds + 0.5 * plan.steps, rel=1e-3)
    assert told.flops == pytest.approx(sum(map(shape.step_flops, plan.micros)))
    assert max(clocked.ran) == work_of(plan.largest, shares=shared).executed


def test_peak_memory_is_the_largest_micro_batch_with_what_a_step_keeps(clocked: Machine) -> None:
    model = make_model()
    asked = Train(epochs=9, batch_tokens=80)
    told = estimated(model, items=rows(100), settings=asked, clock=clocked.clock)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    activations = estimate.HEAP_GROWTH * 1000 * max(clocked.ran)
    assert told.peak_memory_bytes == pytest.approx(10_000_000 + activations + 4 * 4 * trained, abs=2)


def test_measuring_is_short(clocked: Machine) -> None:
    """Where the training is short, or one micro-batch takes long, only a few tokens are computed."""
    short = estimated(items=rows(40), settings=Train(epochs=1, batch_tokens=80), clock=clocked.clock)
    assert max(clocked.ran) < 40
    assert short.seconds > 0
    clocked.rate = 1e3
    clocked.ran.clear()
    told = estimated(items=rows(100), settings=Train(batch_tokens=2000), clock=clocked.clock)
    assert max(clocked.ran) < 40
    clocked.rate, clocked.ran = 1e7, []
    told = estimated(items=rows(100), settings=Train(epochs=99, batch_tokens=80), clock=clocked.clock)
    assert max(clocked.ran) > 40
    small = 4 * (0.02 + 28 * told.flops / told.executed_tokens / 1e7)
    assert told.measured_seconds - clocked.cold <= estimate.MEASURE_SECONDS + small


def test_time_that_is_limited_is_not_estimated_beyond(clocked: Machine) -> None:
    asked = Train(epochs=50, batch_tokens=80, max_minutes=0.1)
    assert estimated(items=rows(40), settings=asked, clock=clocked.clock).seconds == 6


def test_the_line_goes_through_the_two_largest_sizes_and_noise_does_not_bend_it_out_of_shape() -> None:
    model = make_model()
    probe = Probe(model, SFT(), shape_of(model), shares=shared, clock=time.perf_counter)
    probe._tiny, probe._small = (1e6, 0.5), (4e6, 1.4)  # 0.2 and 0.3 for every million
    assert [probe._seconds(flops) for flops in (1e6, 4e6, 10e6)] == pytest.approx([0.5, 1.4, 3.2])
    probe._large = [(10e6, 2.0), (10e6, 2.8)]
    assert [probe._seconds(flops) for flops in (4e6, 10e6)] == pytest.approx([1.4, 2.4])
    probe._small = (4e6, 3.0)  # slower than the larger one: half of the time is overhead, no more
    assert [probe._seconds(flops) for flops in (10e6, 20e6)] == pytest.approx([2.4, 3.6])
    probe._small = (4e6, 0.1)  # no overhead, not less
    assert [probe._seconds(flops) for flops in (10e6, 5e6)] == pytest.approx([2.4, 1.2])


# --- choosing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("available", "chosen", "fits"),
    [(10**9, 1024, True), (900_000, 512, True), (250_000, 128, True), (0, 64, False)],
)
def test_the_micro_batch_is_the_default_or_the_largest_power_of_two_that_fits(
    available: int, chosen: int, fits: bool, clocked: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thousand bytes a token, of which 15% more are expected, in 85% of what is available."""
    model = make_model()
    state = 4 * 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    monkeypatch.setattr(estimate, "available_bytes", lambda device: available + round(state / 0.85))
    asked = Train(batch_tokens=1600)
    told = estimated(model, items=rows(200), settings=asked, clock=clocked.clock)
    assert (told.micro_tokens, told.fits) == (chosen, fits)
    again = estimated(model, items=rows(200), settings=asked, clock=clocked.clock)
    assert again.micro_tokens == chosen


def test_memory_that_runs_out_while_measuring_means_less_at_once(clocked: Machine, monkeypatch: Any) -> None:
    monkeypatch.setattr(estimate, "available_bytes", lambda device: 1_700_000)
    clocked.rate = 1e9  # so that large ones are measured
    clocked.fails = lambda tokens: tokens > 500
    told = estimated(items=rows(200), settings=Train(batch_tokens=1600, epochs=99), clock=clocked.clock)
    assert told.micro_tokens == 512
    clocked.fails = lambda tokens: True
    with pytest.raises(TrainingError, match=r"here:1: \d+ tokens do not fit in memory"):
        estimated(items=rows(200), clock=clocked.clock)


def test_another_failure_is_not_taken_for_a_lack_of_memory(clocked: Machine, monkeypatch: Any) -> None:
    def broken(*given: Any) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(estimate, "_forward_and_backward", broken)
    with pytest.raises(RuntimeError, match="multiplied"):
        estimated(clock=clocked.clock)


# --- the machine ----------------------------------------------------------------------------------


def group(folder: Path, limit: str, used: int, idle: int | None = None, *, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = (
        ("memory.max", "memory.current")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    if idle is not None:
        name = "inactive_file" if version == 2 else "total_inactive_file"
        (folder / "memory.stat").write_text(f"anon 1\n{name} {idle}\n")


def test_limits_of_containers(tmp_path: Path) -> None:
    """The tightest of all groups above counts; cache that is not in use is given back."""
    me, root = tmp_path / "cgroup", tmp_path / "fs"
    me.write_text("0::/user/job\n")
    assert machine._left_in_groups(me, root) is None
    group(root, "max", 1)
    group(root / "user", "1000", 700, 50)
    group(root / "user/job", "max", 300)
    assert machine._left_in_groups(me, root) == 350
    group(root / "user/job", "400", 390, 20)
    assert machine._left_in_groups(me, root) == 30
    me.write_text("0::/elsewhere/of/the/host\n")
    group(root, "900", 100)
    assert machine._left_in_groups(me, root) == 800
    me.write_text("4:memory:/job\n1:cpu,cpuacct:/\n0::/\n")
    group(root, "max", 1)
    group(root / "memory", str(2**63 - 4096), 1, version=1)
    assert machine._left_in_groups(me, root) is None
    group(root / "memory/job", "5000", 4000, 500, version=1)
    assert machine._left_in_groups(me, root) == 1500
    assert machine._left_in_groups(tmp_path / "none", root) is None


def test_available_memory_is_the_smaller_of_system_and_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_left_in_groups", lambda me, root: None)
    whole = machine.available_bytes(CPU)
    assert whole > 10**8
    monkeypatch.setattr(machine, "_left_in_groups", lambda me, root: 12345)
    assert machine.available_bytes(CPU) == 12345


def test_the_watch_sees_memory_that_is_gone_again() -> None:
    machine.give_back_memory()
    with machine.watching_memory(CPU) as watch:
        before = machine.used_bytes(CPU)
        held = torch.ones(60_000_000)
        time.sleep(0.2)
        del held
        machine.give_back_memory()
    assert machine.used_bytes(CPU) < before + 120_000_000
    assert before + 230_000_000 < watch.peak_bytes < before + 280_000_000


def test_the_rate_of_matrix_products_is_measured_in_a_moment() -> None:
    began = time.perf_counter()
    rate = machine.matmul_rate(CPU, seconds=0.1)
    assert time.perf_counter() - began < 5
    assert 1e8 < rate < 1e14


# --- on the embedded model ------------------------------------------------------------------------


def tickets(chat: ChatFormat, count: int) -> list[Item]:
    """As workload W2a: support tickets behind one system prompt, about 45 tokens of 105 or more."""
    system = (
        "You triage support mail of a shop for home goods. Reply with one line of JSON: category, urgency."
    )
    examples = list(read_examples(DATA).examples)[:count]
    return SFT().items(examples, chat, system)


def drawn(count: int, *, shared: int, least: int, most: int) -> list[Item]:
    """Rows of `least` to `most` tokens after `shared` common ones; half of each row's own are trained."""
    dice = random.Random(0)
    prefix = [dice.randrange(1000, 40000) for _ in range(shared)]
    items = []
    for i in range(count):
        own = [dice.randrange(1000, 40000) for _ in range(dice.randint(least, most))]
        weights = [0.0] * shared + [float(2 * k > len(own)) for k in range(len(own))]
        items.append(Item(f"row {i}", (TrainingSequence((*prefix, *own), tuple(weights)),)))
    return items


WORKLOADS = {
    "w1": partial(drawn, 32, shared=0, least=30, most=600),
    "w2b": partial(drawn, 64, shared=350, least=50, most=70),
    "w7": partial(drawn, 16, shared=0, least=512, most=512),
}


@pytest.mark.slow
@pytest.mark.parametrize("workload", ["w1", "w2a", "w2b", "w7"])
def test_estimates_are_within_a_quarter_of_what_happens(
    workload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processor seconds of one thread: wall-clock time is also that of others on the machine."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", float("inf"))
    loaded = load_model("smollm2-135m", device="cpu")
    chat = ChatFormat(loaded.tokenizer)
    items = tickets(chat, 64) if workload == "w2a" else WORKLOADS[workload]()
    held = items[:4]
    model = attach_adapter(loaded, Adapter(), seed=0)
    asked = Train(epochs=1, batch_tokens=8 * sum(i.tokens for i in items) // len(items))
    told = estimated(model, items=items, validation=held, settings=asked, seed=0, clock=time.process_time)
    with machine.watching_memory(CPU) as watch:
        began = time.process_time()
        _, summary = tiny_training.run(
            tmp_path, model=model, items=items, validation=held, settings=asked, peak=1e-4, seed=0,
            micro_tokens=told.micro_tokens,
        )  # fmt: skip
        seconds = time.process_time() - began
    assert told.executed_tokens == summary["executed_tokens"]
    assert 0.75 < told.seconds / seconds < 1.25
    assert 0.75 < told.peak_memory_bytes / watch.peak_bytes < 1.25
