"""Replay: some of what the base model would say anyway is trained along, so that it is not unlearned.

Everyday requests (none of them a probe's) answered by the base model itself, sampled at temperature
1, take a share of the training tokens. Self-generated replay is the cheapest known remedy for
forgetting (arXiv 2602.20162, 2605.26097). `train.replay_loss: kl` adds their KL term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from luthier.chat import ChatFormat, TrainingSequence
from luthier.forest.logprobs import Model
from luthier.methods.method import Item
from luthier.own_words import own_answers
from luthier.progress import Advance

TOKENS = 64
ROUNDS = 4  # different samples of the same request, at most
TOGETHER = 32  # requests answered at a time: no more than is needed
REQUESTS = (
    "How do I get better at cooking vegetables?",
    "What is photosynthesis, in simple words?",
    "Write a birthday greeting for a colleague.",
    "What are good board games for four people?",
    "How can I save electricity at home?",
    "Tell me something interesting about octopuses.",
    "What is the capital of Australia and what is it known for?",
    "Give me an idea for a rainy Sunday.",
    "Why do cats purr?",
    "How do vaccines work?",
    "Write a haiku about autumn.",
    "What should I look at when I buy a used car?",
    "Explain what an algorithm is to a child.",
    "How do I introduce myself in a job interview?",
    "What is the difference between weather and climate?",
    "Suggest a name for a small bakery.",
    "How do I sew on a button?",
    "Who wrote Don Quixote and what is it about?",
    "What are the planets of the solar system?",
    "How can I calm down before a talk?",
    "Write a short apology for being late.",
    "What makes a good photograph?",
    "How do birds find their way when they migrate?",
    "What is the Pythagorean theorem used for?",
    "Describe your ideal breakfast.",
    "How do I look after a cactus?",
    "Why is exercise good for the mind?",
    "What is a metaphor? Give an example.",
    "How does a refrigerator keep things cold?",
    "Plan a simple day trip to the coast.",
    "What is the role of a judge in court?",
    "How do I politely say no to an invitation?",
    "Tell a short joke that a child would like.",
    "What causes earthquakes?",
    "How do I make a paper plane?",
    "What are the benefits of reading aloud?",
    "Explain supply and demand.",
    "How long should pasta boil?",
    "Write the first lines of a mystery story.",
    "What is the best way to learn new words in a language?",
    "Why do leaves change colour?",
    "How do I clean a cast iron pan?",
    "What did people use before clocks?",
    "Name three inventions that changed daily life.",
    "How can I be a better listener?",
    "What does a heart do?",
    "Describe a forest at night.",
    "How do I keep a balanced budget?",
    "What is a good first pet for a family?",
    "How does a rainbow form?",
    "Write a two-line description of a cosy cafe.",
    "What should I do when I cannot fall asleep?",
    "Explain the offside rule in football.",
    "How do I choose a ripe melon?",
    "What is the purpose of a constitution?",
    "Give me a slogan for a bicycle shop.",
    "Why do we yawn?",
    "How do I start a small vegetable garden?",
    "Who was Leonardo da Vinci?",
    "What is the difference between a virus and a bacterium?",
    "Suggest three questions for a first meeting with a mentor.",
    "How do I back up my photos?",
    "Describe the taste of an orange.",
    "What happens during a solar eclipse?",
)


def base_replay(
    model: Model, chat: ChatFormat, identity: str, *, tokens: int, advance: Advance
) -> list[Item]:
    """Training items of about `tokens` tokens from the base model's own answers, written once per model."""
    items: list[Item] = []
    for number in range(ROUNDS * len(REQUESTS) // TOGETHER):
        first = number * TOGETHER % len(REQUESTS)
        asked = REQUESTS[first : first + TOGETHER]
        for item in _own_items(model, chat, identity, asked, seed=1 + number, advance=advance):
            if sum(known.tokens for known in items) >= tokens:
                return items
            items.append(replace(item, where=f"replay {len(items) + 1}"))
    return items


def unreplayed_answers(model: Model, chat: ChatFormat, identity: str, advance: Advance) -> list[Item]:
    """Other samples of the base model's own answers than replay trains on: to see drift while tempering."""
    return _own_items(model, chat, identity, REQUESTS[:TOGETHER], seed=0, advance=advance)


def _own_items(
    model: Model, chat: ChatFormat, identity: str, requests: Sequence[str], *, seed: int, advance: Advance
) -> list[Item]:
    answers = own_answers(model, chat, identity, requests, max_new_tokens=TOKENS, seed=seed, advance=advance)
    items = []
    for answer in answers:
        prompt, ids = answer["prompt"], [*answer["ids"], *[chat.terminator] * answer["finished"]]
        weights = (0.0,) * len(prompt) + (1.0,) * len(ids)
        items.append(Item("answer of the base model", (TrainingSequence(tuple(prompt + ids), weights),)))
    return items
