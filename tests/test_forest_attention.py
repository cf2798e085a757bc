"""Attention over a forest, by itself: equal to dense masked softmax attention in float64.

Outputs and the gradients of queries, keys, values, the trunk's keys and values, and sinks. Only the public
call is used, so that any implementation of it can be put to the same test.

Legend: H query heads, G key/value heads, T packed tokens, n trunk tokens, d and d_v head widths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import pytest
import torch
from forests import SHAPES, Forest, forests, stretched
from hypothesis import example, given, settings
from hypothesis import strategies as st

from luthier.forest import attention
from luthier.forest.attention import Unsupported, forest_attention
from luthier.forest.layout import Layout, lay_out

LAYER = 3
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


class Attention(torch.nn.Module):
    """What a layer of Transformers tells its attention function about itself."""

    layer_idx = LAYER
    is_causal = True

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups


@dataclass(frozen=True)
class Kind:
    """One kind of attention."""

    heads: int = 2  # G
    groups: int = 1  # H = G * groups
    width: int = 8  # d
    value_width: int = 8  # d_v
    trunk: int = 0  # n
    scaling: float | None = None
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """What an architecture passes to its attention function; absent where it has none."""
        given = {"scaling": self.scaling, "sliding_window": self.window, "softcap": self.softcap}
        return {name: value for name, value in given.items() if value is not None}


KINDS = {
    "plain": Kind(),
    "grouped": Kind(groups=3),
    "one key head": Kind(heads=1, groups=4),
    "wide values": Kind(width=4, value_width=12, groups=2),
    "narrow values": Kind(width=12, value_width=5),
    "scaled": Kind(scaling=0.7),
    "window": Kind(window=3, groups=2),
    "window of one": Kind(window=1),
    "capped": Kind(softcap=1.5, groups=2),
    "sinks": Kind(sinks=True, groups=2),
    "window and sinks": Kind(window=4, sinks=True, groups=2),
    "window and cap": Kind(window=4, softcap=2.0, scaling=0.5),
    "everything": Kind(2, 3, 6, 10, 0, 0.4, 5, 2.0, True),
}


@st.composite
def kinds(draw: st.DrawFn) -> Kind:
    width = draw(st.sampled_from([2, 4, 8]))
    return Kind(
        heads=draw(st.integers(1, 3)),
        groups=draw(st.integers(1, 3)),
        width=width,
        value_width=draw(st.sampled_from([width, width, 1, 16])),
        trunk=draw(st.sampled_from([0, 0, 1, 5, 40])),
        scaling=draw(st.sampled_from([None, 0.3, 1.0])),
        window=draw(st.one_of(st.none(), st.integers(1, 12), st.just(60))),
        softcap=draw(st.sampled_from([None, None, 1.0, 20.0])),
        sinks=draw(st.booleans()),
    )


Inputs = dict[str, torch.Tensor]


def make_inputs(kind: Kind, tokens: int, dtype: torch.dtype, seed: int = 0) -> Inputs:
    """Leaves `[1, heads, tokens, width]`, by name; the sinks `[H]`."""
    dice = torch.Generator().manual_seed(seed)
    full = kind.heads * kind.groups
    shapes = {
        "query": (1, full, tokens, kind.width),
        "key": (1, kind.heads, tokens, kind.width),
        "value": (1, kind.heads, tokens, kind.value_width),
    }
    if kind.trunk:
        shapes["trunk key"] = (1, kind.heads, kind.trunk, kind.width)
        shapes["trunk value"] = (1, kind.heads, kind.trunk, kind.value_width)
    size = 1.5 if dtype == torch.float32 else 0.5  # bfloat16 has 3 digits: large scores are wrong by parts
    leaves = {name: size * torch.randn(shape, generator=dice) for name, shape in shapes.items()}
    if kind.sinks:
        leaves["sinks"] = torch.randn(full, generator=dice)
    return {name: leaf.to(dtype).requires_grad_() for name, leaf in leaves.items()}


def laid_out(sequences: Forest, kind: Kind, inputs: Inputs) -> Layout:
    if not kind.trunk:
        return lay_out(sequences)
    trunk = {LAYER: (inputs["trunk key"], inputs["trunk value"])}
    return lay_out(sequences, trunk=trunk, trunk_length=kind.trunk)


def by_forest(layout: Layout, kind: Kind, inputs: Inputs) -> torch.Tensor:
    """`[1, T, H, d_v]`; heads come out of a transposed `[1, T, heads, width]`, as models give them."""
    q, k, v = (
        inputs[name].transpose(1, 2).contiguous().transpose(1, 2) for name in ("query", "key", "value")
    )
    options = kind.options | ({"s_aux": inputs["sinks"]} if kind.sinks else {})
    output, weights = forest_attention(Attention(kind.groups), q, k, v, None, forest=layout, **options)
    assert weights is None
    return output


def by_hand(sequences: Forest, layout: Layout, kind: Kind, inputs: Inputs) -> torch.Tensor:
    """Dense attention of every node to the trunk and its ancestors, in float64."""
    wide = {name: leaf.double() for name, leaf in inputs.items()}
    query, key, value = wide["query"], wide["key"], wide["value"]
    if kind.trunk:
        key = torch.cat([wide["trunk key"], key], dim=2)
        value = torch.cat([wide["trunk value"], value], dim=2)
    key, value = (t.repeat_interleave(kind.groups, dim=1) for t in (key, value))
    scores = query @ key.transpose(2, 3) * (kind.scaling or kind.width**-0.5)
    if kind.softcap:
        scores = kind.softcap * torch.tanh(scores / kind.softcap)
    visible = visibility(sequences, layout, kind.trunk, kind.window)
    scores = scores.masked_fill(~visible, float("-inf"))
    if kind.sinks:
        sinks = wide["sinks"].view(1, -1, 1, 1).expand(1, -1, scores.shape[2], 1)
        scores = torch.cat([scores, sinks], dim=3)
    weights = torch.softmax(scores, dim=-1)[..., : key.shape[2]]
    return (weights @ value).transpose(1, 2)


def visibility(sequences: Forest, layout: Layout, trunk: int, window: int | None) -> torch.Tensor:
    """Bool `[T, n + T]`, from the definition: a token sees the latest `window` tokens of its own row."""
    visible = torch.zeros(len(layout.tokens), trunk + len(layout.tokens), dtype=torch.bool)
    for sequence, path in zip(sequences, layout.paths, strict=True):
        assert len(path) == len(sequence)
        columns = [*range(trunk), *(trunk + int(node) for node in path)]
        for place, node in enumerate(path):
            last = trunk + place + 1
            visible[node, columns[max(0, last - (window or last)) : last]] = True
    return visible


def check(sequences: Forest, kind: Kind, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
    tokens = len(lay_out(sequences).tokens)
    inputs = make_inputs(kind, tokens, dtype, seed)
    layout = laid_out(sequences, kind, inputs)
    got = by_forest(layout, kind, inputs)
    expected = by_hand(sequences, layout, kind, inputs)
    assert got.dtype == dtype
    assert got.shape == (1, tokens, kind.heads * kind.groups, kind.value_width)
    tolerance = TOLERANCE[dtype]
    # values that cancel in their mean leave the rounding of values
    size = max(
        largest(expected), 0.1 * largest(inputs["value"]), 0.1 * largest(inputs.get("trunk value", got))
    )
    assert largest_difference(got, expected) <= tolerance * size
    upstream = torch.randn(got.shape, generator=torch.Generator().manual_seed(seed + 1)).to(dtype)
    slopes = torch.autograd.grad(got, list(inputs.values()), upstream)
    wanted = torch.autograd.grad(expected, list(inputs.values()), upstream.double())
    # a token that sees only itself has no gradient in its score: rounding is measured against the largest
    unit = max(float(want.double().norm()) for want in wanted)
    for name, slope, want in zip(inputs, slopes, wanted, strict=True):
        assert slope.dtype == dtype, name
        error = float((slope.double() - want.double()).norm())
        assert error <= tolerance * max(float(want.double().norm()), 0.3 * unit), name


def largest_difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    return largest(got.detach().double() - expected.detach().double())


def largest(values: torch.Tensor) -> float:
    return float(values.detach().abs().max())


@pytest.mark.parametrize("trunk", [0, 6], ids=["no trunk", "trunk"])
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_attention(kind: str, trunk: int) -> None:
    for shape in ("prefixes that are whole sequences", "star", "very unequal lengths"):
        check(SHAPES[shape], replace(KINDS[kind], trunk=trunk))


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_forests(shape: str) -> None:
    for kind in (KINDS["plain"], KINDS["grouped"], KINDS["everything"], Kind(trunk=3, window=4)):
        check(SHAPES[shape], kind)


@settings(max_examples=120)
@given(sequences=forests(max_sequences=8, max_length=24), kind=kinds(), seed=st.integers(0, 99))
@example(sequences=[[3]], kind=Kind(trunk=5, window=2), seed=0)
@example(sequences=[[3, 4, 5], [3, 4, 6]], kind=Kind(trunk=5, window=2, sinks=True), seed=0)
@example(sequences=[[3] * 9, [3] * 9], kind=Kind(trunk=9, window=5, softcap=1.0), seed=0)
def test_equals_dense_attention(sequences: Forest, kind: Kind, seed: int) -> None:
    check(sequences, kind, seed=seed)


@pytest.mark.parametrize("kind", ["grouped", "everything"])
@pytest.mark.parametrize(("shape", "times"), [("a binary tree", 7), ("duplicates", 35), ("fork", 270)])
def test_long_segments(shape: str, times: int, kind: str) -> None:
    """Implementations cut long segments and put short ones together; so the same shapes, longer."""
    check(stretched(SHAPES[shape], times), replace(KINDS[kind], heads=1, trunk=times))


@pytest.mark.slow
@settings(max_examples=1500)
@given(sequences=forests(), kind=kinds(), seed=st.integers(0, 9999))
def test_equals_dense_attention_on_many_forests(sequences: Forest, kind: Kind, seed: int) -> None:
    check(sequences, kind, seed=seed)


@pytest.mark.slow
@settings(max_examples=150)
@given(
    sequences=forests(max_sequences=8, max_length=12),
    kind=kinds(),
    times=st.sampled_from([3, 10, 30, 100]),
    trunk=st.sampled_from([0, 1, 33, 400]),
)
def test_equals_dense_attention_on_long_forests(
    sequences: Forest, kind: Kind, times: int, trunk: int
) -> None:
    check(stretched(sequences, times), replace(kind, heads=1, trunk=trunk))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@settings(max_examples=60)
@given(sequences=forests(max_sequences=8, max_length=24), kind=kinds(), seed=st.integers(0, 99))
def test_the_kernel_of_accelerators_by_its_plain_form(sequences: Forest, kind: Kind, seed: int) -> None:
    """What is compiled on CUDA, here uncompiled and without its backward, which the CPU does not have."""
    kind = replace(kind, value_width=kind.width)
    inputs = make_inputs(kind, len(lay_out(sequences).tokens), torch.float32, seed)
    layout = laid_out(sequences, kind, inputs)
    with mock.patch.object(attention, "fits_kernel", return_value=True), torch.no_grad():
        for chosen in (kind, replace(kind, window=kind.window or 3)):
            expected = by_hand(sequences, layout, chosen, inputs)
            got = by_forest(layout, chosen, inputs)
            assert largest_difference(got, expected) <= 1e-5 * largest(expected)


@settings(max_examples=15)
@given(sequences=forests(max_sequences=6, max_length=16), kind=kinds())
def test_bfloat16(sequences: Forest, kind: Kind) -> None:
    check(sequences, kind, torch.bfloat16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_on_an_accelerator(kind: str) -> None:
    for shape, sequences in SHAPES.items():
        inputs = make_inputs(KINDS[kind], len(lay_out(sequences).tokens), torch.float32)
        here = by_hand(sequences, lay_out(sequences), KINDS[kind], inputs)
        there = {name: leaf.detach().cuda().requires_grad_() for name, leaf in inputs.items()}
        got = by_forest(lay_out(sequences), KINDS[kind], there)
        assert largest_difference(got.cpu(), here) <= 1e-4 * largest(here), shape
        slopes = torch.autograd.grad(got.sum(), list(there.values()))
        wanted = torch.autograd.grad(here.sum(), list(inputs.values()))
        for slope, want in zip(slopes, wanted, strict=True):
            assert largest_difference(slope.cpu(), want) <= 1e-4 * max(largest(want), 1.0)


# How the call behaves -------------------------------------------------------------------------------


def test_a_trunk_equals_its_tokens_in_the_row() -> None:
    """Not against the dense reference: the same function, the tokens once before and once inside."""
    kind = replace(KINDS["everything"], window=7, trunk=5)
    stem, rows = [90, 91, 92, 93, 94], SHAPES["prefixes that are whole sequences"]
    inside = lay_out([[*stem, *row] for row in rows])
    tokens = len(inside.tokens)
    whole = make_inputs(replace(kind, trunk=0), tokens, torch.float32)
    parts = {
        name: leaf.detach()[:, :, 5:].clone().requires_grad_() if leaf.ndim == 4 else leaf
        for name, leaf in whole.items()
    }
    parts["trunk key"] = whole["key"].detach()[:, :, :5].clone().requires_grad_()
    parts["trunk value"] = whole["value"].detach()[:, :, :5].clone().requires_grad_()
    assert inside.paths[0][:5].tolist() == [0, 1, 2, 3, 4]
    one_row = by_forest(inside, replace(kind, trunk=0), whole)[:, 5:]
    before = by_forest(laid_out(rows, kind, parts), kind, parts)
    assert largest_difference(before, one_row) <= 1e-5 * largest(one_row)
    upstream = torch.randn_like(before)
    slopes = dict(
        zip(
            parts,
            torch.autograd.grad(before, [*parts.values()], upstream, materialize_grads=True),
            strict=True,
        )
    )
    wanted = dict(zip(whole, torch.autograd.grad(one_row, [*whole.values()], upstream), strict=True))
    for name in ("key", "value"):
        joined = torch.cat([slopes[f"trunk {name}"], slopes[name]], dim=2)
        assert largest_difference(joined, wanted[name]) <= 1e-5 * largest(wanted[name])
    assert largest_difference(slopes["query"], wanted["query"][:, :, 5:]) <= 1e-5 * largest(wanted["query"])


@pytest.mark.parametrize("kind", ["grouped", "everything"])
@pytest.mark.parametrize(
    "trained", [("query",), ("key",), ("value",), ("trunk key",), ("query", "trunk value")]
)
def test_only_what_is_trained_gets_a_gradient(kind: str, trained: tuple[str, ...]) -> None:
    """Prefix tuning trains the trunk of a frozen model; LoRA on queries alone trains only these."""
    chosen, rows = replace(KINDS[kind], trunk=4), SHAPES["a comb"]
    inputs = make_inputs(chosen, len(lay_out(rows).tokens), torch.float32)
    for name, leaf in inputs.items():
        leaf.requires_grad_(name in trained)
    layout = laid_out(rows, chosen, inputs)
    leaves = [inputs[name] for name in trained]
    slopes = torch.autograd.grad(by_forest(layout, chosen, inputs).square().sum(), leaves)
    wanted = torch.autograd.grad(by_hand(rows, layout, chosen, inputs).square().sum(), leaves)
    for slope, want in zip(slopes, wanted, strict=True):
        assert float((slope - want).norm()) <= 1e-5 * float(want.norm())


@pytest.mark.parametrize("kind", ["plain", "window", "everything"])
def test_one_layout_serves_many_layers_and_steps(kind: str) -> None:
    """Layers of several windows share a layout, with and without gradients, and a graph is used twice."""
    rows = SHAPES["star"]
    layout = lay_out(rows)
    for chosen in (
        KINDS[kind],
        replace(KINDS[kind], window=2),
        KINDS[kind],
        replace(KINDS[kind], window=None),
    ):
        inputs = make_inputs(chosen, len(layout.tokens), torch.float32)
        expected = by_hand(rows, layout, chosen, inputs)
        bound = 1e-5 * largest(expected)
        with torch.no_grad():
            assert largest_difference(by_forest(layout, chosen, inputs), expected) <= bound
        with torch.inference_mode():
            assert largest_difference(by_forest(layout, chosen, inputs), expected) <= bound
        got = by_forest(layout, chosen, inputs)
        assert largest_difference(got, expected) <= bound
        leaves = list(inputs.values())
        once = torch.autograd.grad(got.square().sum(), leaves, retain_graph=True)
        again = torch.autograd.grad(got.square().sum(), leaves)
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_inputs_and_upstream_are_left_as_they_were() -> None:
    kind, rows = KINDS["everything"], SHAPES["a comb"]
    inputs = make_inputs(kind, len(lay_out(rows).tokens), torch.float32)
    before = {name: leaf.detach().clone() for name, leaf in inputs.items()}
    got = by_forest(lay_out(rows), kind, inputs)
    upstream = torch.randn_like(got)
    kept = upstream.clone()
    torch.autograd.grad(got, list(inputs.values()), upstream)
    assert torch.equal(upstream, kept)
    assert all(torch.equal(leaf, before[name]) for name, leaf in inputs.items())


def test_upstream_of_any_stride() -> None:
    """`.sum()` sends one number expanded to every place; a transposed product sends columns."""
    kind, rows = KINDS["grouped"], SHAPES["a comb"]
    inputs = make_inputs(kind, len(lay_out(rows).tokens), torch.float32)
    leaves, layout = list(inputs.values()), lay_out(rows)
    shape = by_forest(layout, kind, inputs).shape
    columns = torch.randn(*reversed(shape)).permute(3, 2, 1, 0)
    for upstream in (torch.ones(1).expand(shape), columns):
        slopes = torch.autograd.grad(by_forest(layout, kind, inputs), leaves, upstream)
        wanted = torch.autograd.grad(by_hand(rows, layout, kind, inputs), leaves, upstream.double())
        for slope, want in zip(slopes, wanted, strict=True):
            assert float((slope - want).norm()) <= 1e-5 * max(float(want.norm()), 1.0)


def test_keys_and_values_are_kept_for_generation() -> None:
    kind, rows = KINDS["wide values"], SHAPES["star"]
    inputs = make_inputs(kind, len(lay_out(rows).tokens), torch.float32)
    layout = lay_out(rows)
    layout.kept = {}
    by_forest(layout, kind, inputs)
    key, value = layout.kept[LAYER]
    assert torch.equal(key, inputs["key"])
    assert torch.equal(value, inputs["value"])


def test_scores_of_any_size_do_not_overflow() -> None:
    rows = SHAPES["star"]
    for kind in (KINDS["plain"], KINDS["sinks"], KINDS["capped"]):
        inputs = make_inputs(kind, len(lay_out(rows).tokens), torch.float32)
        large = {name: (60.0 * leaf.detach()).requires_grad_() for name, leaf in inputs.items()}
        got = by_forest(lay_out(rows), kind, large)
        expected = by_hand(rows, lay_out(rows), kind, large)
        assert largest_difference(got, expected) <= 1e-3 * largest(expected)
        slopes = torch.autograd.grad(got.sum(), list(large.values()))
        assert all(bool(slope.isfinite().all()) for slope in slopes)


@pytest.mark.parametrize(
    "term",
    [
        {"dropout": 0.1},
        {"position_bias": torch.zeros(1)},
        {"indices": torch.zeros(1)},
        {"block_indices": torch.zeros(1)},
        {"sinks": torch.zeros(1)},
        {"is_causal": False},
    ],
    ids=lambda term: next(iter(term)),
)
def test_a_term_that_it_does_not_compute_is_refused(term: dict[str, Any]) -> None:
    """Each is passed by an architecture of Transformers; to leave it out would be wrong without a word."""
    kind = KINDS["plain"]
    inputs = make_inputs(kind, 3, torch.float32)
    layout = lay_out([[3, 4, 5]])
    three = (inputs[name] for name in ("query", "key", "value"))
    with pytest.raises(Unsupported):
        forest_attention(Attention(1), *three, None, forest=layout, **term)


def test_a_mask_of_the_models_own_is_refused() -> None:
    inputs = make_inputs(KINDS["plain"], 3, torch.float32)
    three = (inputs[name] for name in ("query", "key", "value"))
    with pytest.raises(Unsupported, match="mask"):
        forest_attention(Attention(1), *three, torch.zeros(1, 1, 3, 3), forest=lay_out([[3, 4, 5]]))
