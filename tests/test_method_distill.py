"""Distillation: the divergence by hand, in float64 and by TRL, its gradients, a student that answers."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from chat_tokenizers import byte_level
from tiny_models import relative_error, tiny, with_lora
from tiny_run import CHATML
from tiny_training import Crash, crash_at, make_items, make_model, outcome, run, same, settings, trainable

from luthier.chat import ChatFormat, TrainingSequence
from luthier.errors import ModelError, RecipeError
from luthier.examples.example import Example, Message
from luthier.forest import SoftTargets
from luthier.forest.head import Head
from luthier.forest.soft_targets import dense_expected_logprobs, expected_logprobs
from luthier.methods import SFT, Distill, Item, build_method
from luthier.recipe import dump_recipe, parse_recipe
from luthier.recipe.method_options import writes_own
from luthier.train import loop
from luthier.train.lessons import Lessons, rows_of, teach
from luthier.train.outputs import outputs_of

METHOD = Distill("teacher")


def item_of(tokens: int, soft: SoftTargets | None = None) -> Item:
    sequence = TrainingSequence(tuple(range(3, tokens + 6)), (0.0,) * 3 + (1.0,) * tokens)
    return Item("d:1", (sequence,), soft=() if soft is None else (soft,))


def made_up(
    tokens: int, *, heat: float = 1.0, seed: int = 0, cap: float | None = None
) -> tuple[SoftTargets, torch.Tensor, Head]:
    """A teacher's targets, the student's hidden states and its head, float64 and of other widths."""
    dice = torch.Generator().manual_seed(seed)
    teacher = Head(torch.randn(11, 4, generator=dice).double(), None, 1.0, cap)
    student = Head(torch.randn(11, 6, generator=dice).double(), None, 0.7, cap)
    soft = SoftTargets(torch.randn(tokens, 4, generator=dice).double() * 2, teacher, heat)
    return soft, torch.randn(tokens, 6, generator=dice).double(), student


def by_numpy(soft: SoftTargets, hidden: torch.Tensor, head: Head) -> Any:
    """KL(q || p) of each token, from its definition."""
    t = soft.head.logits(soft.hidden).numpy() / soft.temperature
    z = head.logits(hidden.detach()).numpy() / soft.temperature
    q, p = (np.exp(x - x.max(1, keepdims=True)) for x in (t, z))
    q, p = q / q.sum(1, keepdims=True), p / p.sum(1, keepdims=True)
    return (q * (np.log(q) - np.log(p))).sum(1)


# --- the loss -------------------------------------------------------------------------------------


def test_the_loss_by_hand() -> None:
    """The teacher says 3 to 1, the student 1 to 1 and then 1 to 3."""
    log3 = math.log(3.0)
    head = Head(torch.tensor([[1.0], [0.0]]), None, 1.0, None)
    soft = SoftTargets(torch.tensor([[log3], [log3]]), head)
    assert soft.entropy.tolist() == pytest.approx([2 * math.log(2) - 0.75 * log3] * 2, abs=1e-6)
    values = expected_logprobs(head, torch.tensor([[0.0], [-log3]]), soft)
    item = item_of(2, soft)
    each = [0.75 * math.log(1.5) + 0.25 * math.log(0.5), 0.5 * log3]
    assert METHOD.total([item]) == 2
    assert METHOD.loss([item], [[values]]).item() == pytest.approx(sum(each), abs=1e-6)
    # half as warm: 9 to 1 against 1 to 1; twice: sqrt 3 to 1
    for heat, odds in ((0.5, 9.0), (2.0, math.sqrt(3.0))):
        warm = SoftTargets(torch.tensor([[log3]]), head, heat)
        q = odds / (1 + odds)
        kl = q * math.log(2 * q) + (1 - q) * math.log(2 * (1 - q))
        own = expected_logprobs(head, torch.tensor([[0.0]]), warm)
        assert METHOD.loss([item_of(1, warm)], [[own]]).item() == pytest.approx(kl, abs=1e-6)


@pytest.mark.parametrize("heat", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_the_loss_is_the_divergence_and_not_below_0(heat: float, cap: float | None) -> None:
    for seed in range(4):
        soft, hidden, head = made_up(9, heat=heat, seed=seed, cap=cap)
        expected = by_numpy(soft, hidden, head)
        assert (expected >= 0).all()
        fused = expected_logprobs(head, hidden, soft)
        dense = dense_expected_logprobs(head.logits(hidden), soft)
        for values in (fused, dense):  # float32, as the forest gives them
            loss = METHOD.loss([item_of(9, soft)], [[values]])
            assert loss.item() == pytest.approx(expected.sum(), rel=2e-5, abs=2e-5)
            assert ((-values - soft.entropy.to(values)) > -1e-5).all()


def test_weights_count_and_plain_items_are_imitated() -> None:
    soft, hidden, head = made_up(2, seed=3)
    sequence = TrainingSequence((1, 2, 3), (0.0, 2.0, 0.5))
    weighted = Item("w", (sequence,), soft=(soft,))
    values = expected_logprobs(head, hidden, soft)
    kl = by_numpy(soft, hidden, head)
    assert METHOD.total([weighted]) == 2.5
    assert METHOD.loss([weighted], [[values]]).item() == pytest.approx(2 * kl[0] + 0.5 * kl[1], rel=1e-4)
    logps = torch.tensor([-0.5, -1.5])
    plain = item_of(2)
    assert METHOD.loss([plain], [[logps]]).item() == SFT().loss([plain], [[logps]]).item() == 2.0
    together = METHOD.loss([weighted, plain], [[values], [logps]])
    apart = METHOD.loss([weighted], [[values]]) + METHOD.loss([plain], [[logps]])
    torch.testing.assert_close(together, apart)
    torch.testing.assert_close(METHOD.loss([plain, weighted], [[logps], [values]]), together)


@pytest.mark.parametrize("heat", [1.0, 0.5, 3.0])
def test_in_double_precision_the_loss_is_its_formula(heat: float) -> None:
    """What the method makes of what it is given, without the head, which counts in single precision."""
    dice = torch.Generator().manual_seed(6)
    weights = [(0.5, 2.0, 1.0), (0.25,), (3.0, 1.0)]
    logits = [torch.randn(len(w), 11, generator=dice).double().requires_grad_() for w in weights]
    taught = [torch.softmax(2 * torch.randn(len(w), 11, generator=dice).double() / heat, 1) for w in weights]
    items = [
        Item(
            "d:1",
            (TrainingSequence(tuple(range(len(w) + 1)), (0.0, *w)),),
            soft=(SimpleNamespace(entropy=-(q * q.log()).sum(1)),),  # type: ignore[arg-type]
        )
        for w, q in zip(weights, taught, strict=True)
    ]
    logps = [torch.log_softmax(z / heat, 1) for z in logits]
    given = [[(q * logp).sum(1)] for q, logp in zip(taught, logps, strict=True)]
    total = 0.0
    for w, q, z in zip(weights, taught, logits, strict=True):
        scores = np.exp(z.detach().numpy() / heat)
        p = scores / scores.sum(1, keepdims=True)
        total += (np.array(w) * (q.numpy() * np.log(q.numpy() / p)).sum(1)).sum()
    loss = METHOD.loss(items, given)
    assert loss.dtype == torch.float64 and METHOD.total(items) == 7.75
    assert loss.item() == pytest.approx(total, rel=1e-12)
    for z, w, q, logp in zip(logits, weights, taught, logps, strict=True):
        (slope,) = torch.autograd.grad(loss, z, retain_graph=True)
        expected = torch.tensor(w).double()[:, None] * (logp.detach().exp() - q) / heat
        torch.testing.assert_close(slope, expected, rtol=1e-10, atol=1e-14)
    # the teacher itself has nothing to learn, whatever the weights
    itself = [[(q * q.log()).sum(1)] for q in taught]
    assert METHOD.loss(items, itself).item() == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize("heat", [1.0, 2.5])
def test_the_gradient_is_that_of_the_divergence(heat: float) -> None:
    """d KL / d z = (p - q) / T, by autograd of the definition in float64."""
    soft, hidden, head = made_up(7, heat=heat, seed=5)
    hidden.requires_grad_()
    ours = METHOD.loss([item_of(7, soft)], [[expected_logprobs(head, hidden, soft)]])
    (mine,) = torch.autograd.grad(ours, hidden)
    log_q = torch.log_softmax(soft.head.logits(soft.hidden) / heat, 1)
    log_p = torch.log_softmax(head.logits(hidden) / heat, 1)
    (reference,) = torch.autograd.grad((log_q.exp() * (log_q - log_p)).sum(), hidden)
    assert relative_error(mine, reference) < 1e-5
    by_formula = (log_p.exp() - log_q.exp()) / heat * head.scale @ head.weight
    assert relative_error(mine, by_formula) < 1e-5

    def loss(values: torch.Tensor) -> torch.Tensor:
        return METHOD.loss([item_of(7, soft)], [[values]]) / 7

    logps = torch.linspace(-3, -0.1, 7, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(loss, logps, eps=1e-6, atol=1e-8)


@pytest.mark.parametrize("cuts", [[1, 1, 1, 1], [2, 2], [3, 1]])
def test_any_micro_batches_add_up_to_the_batch(cuts: list[int]) -> None:
    made = [made_up(n, seed=n) for n in (3, 5, 1)]
    items = [*(item_of(len(soft.hidden), soft) for soft, _, _ in made), item_of(4)]
    logps = [[expected_logprobs(head, hidden, soft)] for soft, hidden, head in made]
    logps.append([torch.tensor([-0.5, -1.0, -0.2, -2.0])])
    parts, at = [], 0
    for size in cuts:
        parts.append(METHOD.loss(items[at : at + size], logps[at : at + size]))
        at += size
    torch.testing.assert_close(sum(parts), METHOD.loss(items, logps))


@pytest.mark.filterwarnings("ignore")  # what TRL warns of is its own
@pytest.mark.parametrize("heat", [1.0, 2.0])
def test_the_loss_is_trls_generalized_divergence(heat: float) -> None:
    """beta = 0, where TRL's is the forward KL; the mean over the tokens that have a label."""
    pytest.importorskip("trl")
    gkd = pytest.importorskip("trl.experimental.gkd")
    soft, hidden, head = made_up(8, heat=heat, seed=2)
    student = head.logits(hidden)[None]
    labels = torch.arange(8)[None]
    expected = gkd.GKDTrainer.generalized_jsd_loss(
        student, soft.head.logits(soft.hidden)[None], labels=labels, beta=0.0, temperature=heat
    )
    item = item_of(8, soft)
    ours = METHOD.loss([item], [[expected_logprobs(head, hidden, soft)]]) / METHOD.total([item])
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)


# --- through the forest ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def a_checkpoint_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("luthier.train.saving.COST_FACTOR", 0.0)


def test_a_teacher_that_is_the_student_teaches_nothing() -> None:
    model = with_lora(tiny("llama"))
    items = teach(model, make_items(6), temperature=1.0, vocabulary=rows_of(model))
    loss = METHOD.loss(items, outputs_of(model, METHOD, items)) / METHOD.total(items)
    assert abs(loss.item()) < 1e-5
    trained = [p for p in model.parameters() if p.requires_grad]
    plain = make_items(6)
    usual = SFT().loss(plain, outputs_of(model, SFT(), plain)) / SFT().total(plain)
    for none, some in zip(
        torch.autograd.grad(loss, trained), torch.autograd.grad(usual, trained), strict=True
    ):
        assert float(none.abs().max()) < 1e-4 * float(some.abs().max())


@pytest.mark.parametrize("heat", [1.0, 2.0])
def test_a_training_step_is_that_of_plain_transformers(heat: float) -> None:
    model, teacher = with_lora(tiny("llama")), tiny("llama", seed=3, hidden_size=48)
    items = teach(teacher, make_items(6), temperature=heat, vocabulary=97)
    trained = [p for p in model.parameters() if p.requires_grad]
    ours = METHOD.loss(items, outputs_of(model, METHOD, items))
    theirs = torch.zeros(())
    for item in items:
        for sequence in item.sequences:
            ids = torch.tensor([sequence.ids])
            with torch.no_grad():
                log_q = torch.log_softmax(teacher(input_ids=ids).logits[0, :-1] / heat, 1)
            log_p = torch.log_softmax(model(input_ids=ids).logits[0, :-1] / heat, 1)
            kl = (log_q.exp() * (log_q - log_p)).sum(1)
            theirs = theirs + kl[torch.tensor([w > 0 for w in sequence.weights[1:]])].sum()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)
    for mine, reference in zip(
        torch.autograd.grad(ours, trained), torch.autograd.grad(theirs, trained), strict=True
    ):
        assert relative_error(mine, reference) < 2e-4


def test_a_padded_head_is_cut_and_a_short_one_refused() -> None:
    padded = tiny("llama", seed=3, vocab_size=104)
    (item, *_) = teach(padded, make_items(2), temperature=1.0, vocabulary=97)
    assert len(item.soft[0].head.weight) == 97
    with pytest.raises(ModelError, match="90 rows, and the model's 97") as caught:
        teach(tiny("llama", vocab_size=90), make_items(2, seed=1), temperature=1.0, vocabulary=97)
    assert "from: samples" in str(caught.value.fix)


TOKENIZER = byte_level(CHATML, ("<|im_start|>", "<|im_end|>"), eos="<|im_end|>")
SMALL = {"num_hidden_layers": 1, "vocab_size": len(TOKENIZER)}


def lessons(model: Any, folder: Path | None = None, **changes: Any) -> Lessons:
    given = {
        "model": model,
        "teacher": tiny("llama", seed=8, **SMALL),
        "chat": ChatFormat(TOKENIZER),
        "temperature": 1.0,
        "max_new_tokens": 6,
        "seed": 4,
        "folder": folder,
    }
    return Lessons(**(given | changes))


def prompts(count: int = 8) -> list[Item]:
    asked = Example("e", (Message("user", "q"), Message("assistant", "a")), "d.jsonl", 1)
    rows = [(*range(3, 7 + number % 3), 20 + number) for number in range(count)]
    return [
        Item(f"d.jsonl:{i}", (TrainingSequence(row, (0.0,) * len(row)),), asked=asked, to_come=6)
        for i, row in enumerate(rows)
    ]


def test_a_step_of_its_own_answers(tmp_path: Path) -> None:
    model = with_lora(tiny("llama", **SMALL))
    ask = lessons(model, tmp_path / "rollouts")
    plain = make_items(2)
    updates = ask([*prompts(5), *plain], 3)
    (part,) = updates.parts
    assert part[5:] == plain and len(part) == 7
    for prompt, item in zip(prompts(5), part, strict=False):
        (own,), (asked,) = item.sequences, prompt.sequences
        assert own.ids[: len(asked.ids)] == asked.ids
        assert own.weights == (0.0,) * len(asked.ids) + (1.0,) * (len(own.ids) - len(asked.ids))
        assert 1 <= item.trained_tokens <= 6 and item.where == prompt.where
        assert len(item.soft[0].hidden) == item.trained_tokens
    written = (tmp_path / "rollouts/000004.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(written) == 5
    tokens = [item.trained_tokens for item in part[:5]]
    entropy = sum(float(item.soft[0].entropy.sum()) for item in part[:5])
    assert updates.numbers["length"] == pytest.approx(sum(tokens) / 5)
    assert updates.numbers["teacher_entropy"] == pytest.approx(entropy / sum(tokens))
    # the same weights and step give the same answers, another step others
    again, other = ask(prompts(5), 3), ask(prompts(5), 4)
    ids = [[item.sequences[0].ids for item in made.parts[0][:5]] for made in (updates, again, other)]
    assert ids[0] == ids[1] != ids[2]
    assert lessons(model)(plain, 0).parts == [plain]


def train_own(folder: Path, **changes: Any) -> Any:
    model = make_model(**SMALL)
    method = Distill("teacher", "own")
    given: dict[str, Any] = {
        "method": method,
        "items": [*prompts(), *make_items(3)],
        "validation": [],
        "settings": settings(epochs=3),
        "ask": lessons(model),
    }
    return model, run(folder, model=model, **(given | changes))


def test_a_student_comes_near_its_teacher_on_its_own_answers(tmp_path: Path) -> None:
    """KL(teacher || student) on fresh answers of the student, before and after."""
    model, _ = train_own(tmp_path / "a", items=prompts(), settings=settings(epochs=12), peak=3e-2)

    def divergence(student: Any) -> float:
        (part,) = lessons(student, seed=99)(prompts(), 0).parts
        with torch.no_grad():
            return float(METHOD.loss(part, outputs_of(student, METHOD, part)) / METHOD.total(part))

    before, after = divergence(make_model(**SMALL)), divergence(model)
    assert 0 < after < 0.9 * before


def test_a_training_that_samples_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = train_own(tmp_path / "whole")
    with pytest.raises(Crash):
        train_own(tmp_path / "cut", show=crash_at(4))
    resumed = train_own(tmp_path / "cut")
    assert same(outcome(tmp_path / "whole", whole[1]), outcome(tmp_path / "cut", resumed[1]))
    other = train_own(tmp_path / "other", seed=2)
    assert not torch.equal(
        torch.cat([p.flatten() for p in trainable(other[0]).values()]),
        torch.cat([p.flatten() for p in trainable(whole[0]).values()]),
    )


# --- the recipe -----------------------------------------------------------------------------------


def made(method: Any, base: Path = Path("/home/ada")) -> Any:
    return parse_recipe({"model": "m", "data": "d.jsonl", "method": method}, base=base)


def test_the_options_and_the_way_back(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    recipe = made({"kind": "distill", "teacher": "big", "from": "own", "temperature": 2}, tmp_path)
    dumped = recipe.model_dump()["method"]
    teacher = str(tmp_path / "big")
    assert dumped == {"kind": "distill", "teacher": teacher, "from": "own", "temperature": 2.0}
    assert build_method(recipe.method) == Distill(teacher, "own", 2.0)
    assert parse_recipe(recipe.model_dump(mode="json"), base=tmp_path) == recipe
    assert "from: own" in dump_recipe(recipe)
    plain = made({"kind": "distill", "teacher": "org/big"})
    assert build_method(plain.method) == Distill("org/big", "examples", 1.0)


def test_own_counts_as_online() -> None:
    for source, online in (("own", True), ("examples", False), ("samples", False)):
        recipe = made({"kind": "distill", "teacher": "t", "from": source})
        assert writes_own(recipe.method) is recipe.selects_by_score is online
    assert writes_own("sft") is False


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("distill", "missing key 'method.teacher'"),
        ({"kind": "distill", "teacher": "t", "from": "owns"}, "method.from"),
        ({"kind": "distill", "teacher": "t", "form": "own"}, "unknown key 'method.form'"),
        ({"kind": "distill", "teacher": "t", "source": "own"}, "unknown key 'method.source'"),
        ({"kind": "distill", "teacher": "t", "temperature": 0}, "method.temperature"),
    ],
)
def test_mistakes(method: Any, told: str) -> None:
    with pytest.raises(RecipeError, match=told) as caught:
        made(method)
    if "form" in told:
        assert "did you mean 'method.from'" in str(caught.value.fix)


def test_items_are_prompts_where_the_student_answers() -> None:
    chat = ChatFormat(byte_level(CHATML, ("<|im_start|>", "<|im_end|>"), eos="<|im_end|>"))
    example = Example("e", (Message("user", "fox?"), Message("assistant", "brown")), "d.jsonl", 7)
    (given,) = METHOD.items([example], chat, "Be kind.")
    assert given == SFT().items([example], chat, "Be kind.")[0]
    (asked,) = Distill("t", "own").items([example], chat, "Be kind.")
    (own,), (whole,) = asked.sequences, given.sequences
    assert own.ids == whole.ids[: whole.prompt_tokens] and not any(own.weights)
    assert asked.asked is example and asked.tokens == given.tokens
    assert not asked.soft
