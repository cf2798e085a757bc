"""The sections of the report that are the same for every run."""

from __future__ import annotations

from bench.sft import WARM


def peer_settings() -> str:
    """What TRL was given, and what it cannot have on a CPU."""
    return """## What the peer was given

TRL's SFTTrainer trains a PEFT model that starts from Luthier's own fresh adapter, on the same token ids,
loss weights, batches in the same order, rates and gradient clipping (norm 1). Batch sizes and lengths
are nearly even by construction (the tickets nearest to one length), so that TRL pads little.

- On: the fused, tiled head (the only loss path of this version; no logits of the whole batch are kept),
  fused AdamW, SDPA attention, no gradient checkpointing (its default recomputes; memory allows doing
  without), no logging, no checkpoints, no filter for NaN losses.
- Probed, and taken where fastest: micro-batches of 8, 4, 2 and 1 with gradient accumulation to 8;
  padding-free (documented for FlashAttention only, which has no CPU version; through SDPA it runs with a
  dense mask, and gives the same losses); torch.compile on the fastest of these.
- Not on: packing, because it puts other sequences together and cuts them off at a length, so that the
  batches would no longer be the same, and it needs what padding-free needs; Liger kernels
  (Triton, GPU only); Hub kernels (none for this model's layers on CPU); FlashAttention (GPU only);
  FlexAttention (no backward pass on CPU); bf16 (Luthier runs fp32 here).
- On a CPU TRL's head computes all positions, prompt and padding included: its restriction to trained
  positions is reserved for Triton devices. That part of the difference is not due to shared prefixes.

Luthier runs `luthier.train.train` with its defaults; only the checkpoint it would write every minute is
switched off, because the time it waits for its turn would count."""


def how_to_read(pairs: int) -> str:
    """The method, and what each figure means."""
    return f"""## How to read this

- Each side is a process of its own that stops at every step boundary until the parent lets it go: A B B
  A ..., one step at a time, never both at once. {WARM} steps of each are warm-up, {pairs} are timed. A
  pair is the same batch on both sides, one right after the other. Figures are medians with [smallest,
  largest].
- Useful tokens are those of the original sequences, before sharing and without padding: useful tokens/s
  compare the sides. Executed tokens are what really goes through the blocks, padding included, shared
  prefixes once.
- Peak memory is the largest resident set of the process, with libraries and the model's weights. It is
  at TRL's fastest settings; the tables of settings say what the others need.
- Share of the SGEMM rate: 4 N T + 6 N_lora T + 4 V d T_t + 12 a P L floating-point operations per step
  (N block-linear parameters, T executed tokens, T_t predictions, V vocabulary, d width, P visible
  query-key pairs, a attention width, L layers), over the time that the machine would need at its
  measured rate. Element-wise work is not in the formula.
- The gate compares the first batch to one row per sequence through the model's own forward pass in fp32,
  with the log-softmax in fp64: torch's fp32 log-softmax over the vocabulary has an error of its own, given
  beside the gate, that is larger than the forest's.
- Absolute times mean something only on a named, otherwise idle machine. The ratio travels better."""
