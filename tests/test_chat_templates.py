"""Properties of every real chat template: parity, one prompt, one terminator, text stays text."""

from __future__ import annotations

from functools import cache

import pytest
from chat_tokenizers import dressed, template_text
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from luthier.chat import ChatFormat
from luthier.examples.example import Example, Message

# Template -> what ends an answer. DeepSeek-R1 and Nemotron open new answers otherwise than they write past
# ones; SmolVLM and LLaVA take lists of parts; Gemma has no system role; GLM writes no end of an answer.
ENDS = {
    "llama3": "<|eot_id|>",
    "llama3_2": "<|eot_id|>",
    "qwen2_5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "qwen3_5_think": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "gemma4": "<turn|>",
    "phi3": "<|end|>",
    "glm4moe": "</s>",
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "lfm2": "<|im_end|>",
    "gptoss": "<|return|>",
    "smolvlm": "<end_of_utterance>",
    "llava_next": "</s>",
    "deepseek_r1_distill": "<｜end▁of▁sentence｜>",
    "nemotron_3_nano": "<|im_end|>",
}
# Templates that write an answer character for character; the others strip it.
EXACT = ("qwen2_5", "phi3", "lfm2", "gptoss", "smolvlm", "llava_next", "deepseek_r1_distill")
NO_SYSTEM = ("gemma",)
PARTS = ("smolvlm", "llava_next")

every_template = pytest.mark.parametrize("name", ENDS)
few = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
texts = st.text(
    st.sampled_from(" \n\tab.:Aé<|>/_🙂日\u00a0\u200b\ue000'\"{%}") | st.characters(codec="utf-8"),
    max_size=25,
)
said = texts.filter(lambda text: text.strip() != "")


@cache
def chat_format(name: str) -> ChatFormat:
    return ChatFormat(dressed(name))


def conversation(name: str, system: str, *turns: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]
    return messages if name in NO_SYSTEM else [{"role": "system", "content": system}, *messages]


def control_ids(name: str) -> set[int]:
    return set(chat_format(name).tokenizer.added_tokens_decoder)


def spelled(name: str) -> list[str]:
    return [t.content for t in chat_format(name).tokenizer.added_tokens_decoder.values()]


def specials(name: str) -> list[str]:
    return [t.content for t in chat_format(name).tokenizer.added_tokens_decoder.values() if t.special]


@every_template
@few
@given(system=said, turns=st.lists(said, min_size=1, max_size=4))
def test_encode_equals_apply_chat_template(name: str, system: str, turns: list[str]) -> None:
    messages = conversation(name, system, *turns)
    assume(not any(control in m["content"] for m in messages for control in spelled(name)))
    form = chat_format(name)
    shaped = [m | {"content": [{"type": "text", "text": m["content"]}]} for m in messages]
    for generation in (False, True):
        ids = form.tokenizer.apply_chat_template(
            shaped if name in PARTS else messages, add_generation_prompt=generation, return_dict=False
        )
        assert form.encode(messages, generation=generation) == ids
    assert form.prompt(messages) == ids


@every_template
@few
@given(system=said, turns=st.lists(said, min_size=2, max_size=6).filter(lambda turns: len(turns) % 2 == 0))
def test_training_shows_the_inference_prompt_and_trains_the_answer(
    name: str, system: str, turns: list[str]
) -> None:
    form = chat_format(name)
    messages = conversation(name, system, *turns)
    assume(not any(control in m["content"] for m in messages for control in spelled(name)))
    example = Example("id", tuple(Message(**m) for m in messages), "data.jsonl", 7)
    sequences = form.training(example)
    starts = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    assert len(sequences) == len(starts)
    for start, sequence in zip(starts, sequences, strict=True):
        prompt, content = form.prompt(messages[:start]), messages[start]["content"]
        n = len(prompt)
        answer = list(sequence.ids[n:])
        assert list(sequence.ids[:n]) == prompt
        assert sequence.prompt_tokens == n
        assert sequence.weights == (0.0,) * n + (1.0,) * len(answer)
        assert answer.count(form.terminator) == 1
        assert answer[-1] == form.terminator
        assert form.decode(answer).strip() == content.strip()
        if name in EXACT:
            assert form.decode(answer) == content
        assert form.decode([*answer, *prompt]) == form.decode(answer)


@every_template
@few
@given(data=st.data())
def test_messages_never_become_control_tokens(name: str, data: st.DataObject) -> None:
    form = chat_format(name)
    asked = st.lists(texts | st.sampled_from(spelled(name)), min_size=1, max_size=6).map("".join)
    answered = st.lists(texts | st.sampled_from(specials(name)), min_size=1, max_size=6).map("".join)
    system, user, again, answer = (data.draw(s.filter(str.strip)) for s in (asked, asked, asked, answered))
    assume(not any(t in answer for t in set(spelled(name)) - set(specials(name))))
    messages = conversation(name, system, user, "fine", again)
    neutral = conversation(name, "s", "u", "fine", "v")
    prompt = form.prompt(messages)
    control = control_ids(name)
    assert [i for i in prompt if i in control] == [i for i in form.prompt(neutral) if i in control]
    shown = form.tokenizer.decode(prompt)
    for message in messages:
        assert message["content"].strip() in shown
    assert form.render(messages, generation=True) == shown

    ids = form.sequence(messages, answer).ids
    plain = form.sequence(neutral, "w").ids
    assert ids[: len(prompt)] == tuple(prompt)
    assert [i for i in ids if i in control] == [i for i in plain if i in control]
    assert form.decode(ids[len(prompt) :]).strip() == answer.strip()


@every_template
def test_terminator_is_what_the_template_writes(name: str) -> None:
    form = chat_format(name)
    vocabulary = form.tokenizer.get_vocab()
    assert form.terminator == vocabulary[ENDS[name]]
    assert form.stop_ids == {form.terminator, vocabulary["</s>"]}


@every_template
def test_bos_is_written_at_most_once(name: str) -> None:
    form = chat_format(name)
    ids = form.prompt(conversation(name, "s", "u", "a <s>", "v <s>"))
    expected = int("bos_token" in template_text(name))
    assert ids.count(form.tokenizer.bos_token_id) == expected
    assert (ids[0] == form.tokenizer.bos_token_id) == bool(expected)


@every_template
def test_the_mask_shows_the_answer_and_its_end(name: str) -> None:
    form = chat_format(name)
    messages = conversation(name, "s", "say it")
    context, trained = form.show_mask(form.sequence(messages, "it"))
    assert context == (form.render(messages, generation=True), False)
    assert trained[0].endswith("it" + ENDS[name])
    assert trained[1] is True


@every_template
def test_system_text_reaches_the_model(name: str) -> None:
    form = chat_format(name)
    with_system = form.with_system([{"role": "user", "content": "U"}], "be brief")
    assert with_system[0] == {"role": "system", "content": "be brief"}
    assert "be brief" in form.render(with_system, generation=True)
    assert any("system" in note for note in form.notes) == (name in NO_SYSTEM)


@pytest.mark.parametrize("name", ["phi3", "llama3", "gemma3"])
@few
@given(user=said, answer=said)
def test_control_tokens_that_swallow_spaces_keep_the_prompt(name: str, user: str, answer: str) -> None:
    form = _swallowing(name)
    assume(not any(control in user + answer for control in spelled(name)))
    prompt = form.prompt([{"role": "user", "content": user}])
    ids = form.sequence([{"role": "user", "content": user}], answer).ids
    assert ids[: len(prompt)] == tuple(prompt)
    assert form.decode(ids[len(prompt) :]).strip() == answer.strip()
    spelling = form.prompt([{"role": "user", "content": user + " <s>  b"}])
    assert spelling.count(form.tokenizer.bos_token_id) == prompt.count(form.tokenizer.bos_token_id)
    assert " <s>  b" in form.tokenizer.decode(spelling)


@cache
def _swallowing(name: str) -> ChatFormat:
    return ChatFormat(dressed(name, rstrip=True))
