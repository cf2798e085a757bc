"""The sections of the report that are the same for every run."""

from __future__ import annotations

from bench.sides import WARM, WARM_COMPILED


def peer_settings() -> str:
    """What the peers were given, and what they cannot have on a CPU."""
    return """## What the peers were given

Same token ids, loss weights, batches in the same order, rates, gradient clipping (norm 1), fp32, threads,
and Luthier's own fresh adapter to start from. `--peer NAME=SETTING` gives a setting by hand.

**TRL, all trainers.** On: the fused, tiled head (the only loss path of this version; no logits of the
whole batch are kept), fused AdamW, SDPA attention, no gradient checkpointing (its default recomputes;
memory allows doing without), no logging, no checkpoints, no filter for NaN losses; each batch is sorted
by length, so that micro-batches pad little. Probed, and taken where fastest: micro-batches with
gradient accumulation to the whole batch; padding-free (documented for FlashAttention only, which has no
CPU version; through SDPA it runs with a dense mask, and gives the same losses). torch.compile is probed
on W7, where every batch has one shape, the best case for it; where lengths vary it took six minutes and
was slower (W1: 168 against 176 tokens/s, docs/log.md). On W1 also what is made for lengths that vary:
`batch_rebalance`, `group_by_length`, and best-fit packing to the longest sequence, of which the last
two make other batches, so that useful tokens/s are compared and losses are not. Not on: packing
elsewhere (it needs what padding-free needs, and other batches); Liger kernels (Triton, GPU only); Hub
kernels (none for this model's layers on CPU); FlashAttention (GPU only); FlexAttention (no backward
pass on CPU); bf16 (Luthier runs fp32 here). On a CPU TRL's head computes all positions, prompt and
padding included: its restriction to trained positions is reserved for Triton devices. That part of the
difference is not due to shared prefixes.

**TRL's DPOTrainer.** Reference log-probabilities computed once before training, as its documentation
offers and as Luthier does too. Padding-free is announced but switched off in this version.

**TRL's GRPOTrainer.** Its loss path alone: generation is replaced by what the plan holds, rewards by given
advantages, on both sides. Reference log-probabilities are computed before the clock starts; with one
update a step the old policy is the policy itself.

**lm-eval's `hf` backend**, as a library with the loaded model: its own batching by length, its cache for
one-token continuations (options here have several), batch sizes probed. It computes the log-softmax of
every position of every option's sequence.

**Transformers' `generate`**: greedy, left-padded batches of neighbours in length, batch sizes and both
caches probed. W6B-PREFIX gives it more: its documentation of caches shows how a caller can fill a cache
with a prefix and hand a copy to each prompt; here the copy is repeated for a whole batch, which it does
not show. Neither side may stop early.

Luthier runs `luthier.train.train`, `luthier.forest.score` and `luthier.generate.generate` with their
defaults; only its checkpoints are switched off, as TRL's are."""


def how_to_read(pairs: int) -> str:
    """The method, and what each figure means."""
    return f"""## How to read this

- Each side is a process of its own that stops at every step boundary until the parent lets it go: A B B A
  ..., one step at a time, never both at once. {WARM} step of each is warm-up ({WARM_COMPILED} where the
  peer compiles; where a step takes minutes, a short call instead), {pairs} are timed. A pair is the same
  step on both sides, one right after the other. Figures are medians with [smallest, largest].
- Useful tokens are those of the original sequences, before sharing and without padding: useful tokens/s
  compare the sides. Executed tokens are what really goes through the blocks, padding included, shared
  prefixes once.
- Peak memory is the largest resident set of the process, with libraries and the model's weights. It is
  at the peer's fastest settings; the tables of settings say what the others need.
- Share of the SGEMM rate: 4 N T + 6 N_lora T + 4 V d T_t + 12 a P L floating-point operations per
  training step, 2 N T + 2 V d T_t + 4 a P L when scoring (N block-linear parameters, T distinct prefixes,
  T_t distinct predictions, V vocabulary, d width, P visible query-key pairs, a attention width, L layers;
  counted from the sequences alone), over the time that the machine would need at its measured rate.
  Element-wise work is not in the formula, nor are prefixes that are computed again in another
  micro-batch.
- The gate compares loss and gradient of a batch to one row per sequence through the model's own forward
  pass and PEFT's own LoRA in fp32, with the log-softmax in fp64: torch's fp32 log-softmax over the
  vocabulary has an error of its own, given beside the gate, that is larger than the forest's.
- "Goal reached" is about speed and memory; the share of the SGEMM rate has a goal of 70% of its own, and
  is listed under the losing cases.
- Absolute times mean something only on a named, otherwise idle machine. The ratio travels better."""
