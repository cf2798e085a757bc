"""Tools in real chat templates: shown or refused, one prompt, calls trained as written and read back."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from chat_tokenizers import byte_level, dressed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier.candidates import few_shot_messages, prompt_messages
from luthier.chat import PLAIN_TEMPLATE, ChatFormat
from luthier.errors import DataError, ModelError
from luthier.examples import Example, Message
from luthier.examples.tool_calls import ToolCall, link, write_json
from luthier.grade.json_fields import JsonFields
from luthier.methods.preference import answer_sequences

# Template -> what ends an answer that calls.
ENDS = {
    "qwen2_5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "qwen3_5_think": "<|im_end|>",
    "llama3_1": "<|eot_id|>",
    "llama3_2": "<|eot_id|>",
    "gptoss": "<|call|>",
    "glm4moe": "</s>",
    "lfm2_v2": "<|im_end|>",
    "gemma4": "<|tool_response>",
    "nemotron_3_nano": "<|im_end|>",
    "muse_glimmer": "<|eot|>",
}
ONE_CALL_ONLY = ("llama3_1", "llama3_2", "gptoss")
NOT_BESIDE_TEXT = ("llama3_1", "llama3_2", "gptoss", "lfm2_v2", "muse_glimmer")
TEXT_ELSEWHERE = ("gemma4", "gptoss")  # behind the calls, or as reasoning: not read back as it was
APART = ("muse_glimmer",)  # several calls are turns of their own, and one answer ends with its first turn
MISSING = {
    "gemma": "which tools are on offer and calls of tools and what tools return",
    "deepseekv3": "which tools are on offer",
    "lfm2": "calls of tools",
}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Today's weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "where"},
                "days": {"type": "integer", "description": "how many"},
            },
            "required": ["city"],
        },
    },
}
SYSTEM, ASKED = Message("system", "Be brief."), Message("user", "Weather?")
CALLED = Message("assistant", "", tool_calls=(ToolCall("weather", '{"city": "Köln", "days": 3}'),))
TOLD, SAID = Message("tool", "21 °C"), Message("assistant", "It is 21 °C.")

every_template = pytest.mark.parametrize("name", ENDS)
few = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
texts = st.text(
    st.sampled_from(" .:Aé<|>/_🙂日'\"{%}\\") | st.characters(codec="utf-8", exclude_categories=("C", "Z")),
    min_size=1,
    max_size=20,
).map(lambda text: f"x{text.strip()}")


@cache
def chat_format(name: str) -> ChatFormat:
    return ChatFormat(dressed(name))


def example(*messages: Message, **more: Any) -> Example:
    return Example("id", messages or (SYSTEM, ASKED, CALLED, TOLD, SAID), "f.jsonl", 3, tools=(TOOL,), **more)


@every_template
def test_the_tools_the_call_and_the_result_reach_the_model(name: str) -> None:
    shown = chat_format(name).render(example().asked, generation=True)
    for text in ("weather", "Today's weather", "city", "Köln", "21 °C"):
        assert text in shown


@every_template
def test_encode_equals_apply_chat_template(name: str) -> None:
    form, messages = chat_format(name), example().asked
    bare = [{key: value for key, value in m.items() if key != "tools"} for m in link(messages)]
    for generation in (False, True):
        expected = form.tokenizer.apply_chat_template(
            bare, tools=[TOOL], tokenize=False, add_generation_prompt=generation
        )
        assert form.render(messages, generation=generation) == expected
        assert form.encode(messages, generation=generation) == form.tokenizer.encode(
            expected, add_special_tokens=False
        )


@every_template
def test_training_shows_the_inference_prompt_and_trains_the_call(name: str) -> None:
    form, told = chat_format(name), example()
    call, answer = form.training(told)
    messages = told.with_tools(told.messages)
    assert list(call.ids[: call.prompt_tokens]) == form.prompt(messages[:2])
    assert list(answer.ids[: answer.prompt_tokens]) == form.prompt(messages[:4]) == form.prompt(told.asked)
    (_, _), (text, _) = form.show_mask(call)
    assert text.endswith(ENDS[name]) and text.count(ENDS[name]) == 1
    assert "weather" in text and "Köln" in text
    trained = form.show_mask(answer)[1][0]
    assert "21 °C." in trained and "Köln" not in trained and "tool" not in trained.replace("It is", "")
    context = form.show_mask(answer)[0][0]
    assert "21 °C" in context and "Köln" in context, "the call and its result are context"


@every_template
def test_generation_stops_where_a_call_ends(name: str) -> None:
    form = chat_format(name)
    form.prompt(example().asked)
    (call, _) = form.training(example())
    assert call.ids[-1] in form.stop_ids
    assert not set(call.ids[call.prompt_tokens : -1]) & form.stop_ids


@every_template
@few
@given(city=texts, days=st.integers(-9, 99), data=st.data())
def test_a_call_is_read_back_as_the_answer_that_graders_compare(
    name: str, city: str, days: int, data: st.DataObject
) -> None:
    form = chat_format(name)
    if name in ("glm4moe", "qwen3_5_think", "nemotron_3_nano", "muse_glimmer"):
        city = city.replace("<", "").replace("&", "")  # they write values as they are, between tags
    arguments = data.draw(st.permutations([("city", city), ("days", days)]))
    call = ToolCall("weather", write_json(dict(arguments)))
    told = example(ASKED, Message("assistant", "", tool_calls=(call,)))
    (sequence,) = form.training(told)
    written = sequence.ids[sequence.prompt_tokens :]
    for ids in (written, written[:-1]):
        assert form.answer(ids, told.asked) == told.answer
    (again,) = answer_sequences(told, [told.answer], form, None)
    by_name = replace(call, arguments=write_json(dict(sorted(arguments))))
    (sorted_one,) = form.training(example(ASKED, Message("assistant", "", tool_calls=(by_name,))))
    assert again == sorted_one, "the text of an answer is written as the template writes calls"


@every_template
def test_several_calls_are_all_written_or_refused(name: str) -> None:
    form = chat_format(name)
    other = ToolCall("weather", '{"city": "Bonn", "days": 1}')
    told = example(ASKED, Message("assistant", "", tool_calls=(*CALLED.tool_calls, other)))
    if name in ONE_CALL_ONLY:
        with pytest.raises(DataError, match=r"single tool-calls|leaves out") as caught:
            form.training(told)
        assert caught.value.where == "f.jsonl:3"
        return
    (sequence,) = form.training(told)
    assert "Köln" in form.show_mask(sequence)[1][0] and "Bonn" in form.show_mask(sequence)[1][0]
    if name not in APART:
        assert form.answer(sequence.ids[sequence.prompt_tokens :], told.asked) == told.answer


@every_template
def test_words_beside_a_call_are_written_or_refused(name: str) -> None:
    form = chat_format(name)
    told = example(ASKED, Message("assistant", "I look it up.", tool_calls=CALLED.tool_calls))
    try:
        (sequence,) = form.training(told)
    except DataError as error:
        assert name in NOT_BESIDE_TEXT
        assert "leaves out the text beside the calls" in error.message
        assert error.where == "f.jsonl:3" and error.fix
        return
    written = sequence.ids[sequence.prompt_tokens :]
    assert "I look it up." in form.show_mask(sequence)[1][0]
    if name not in TEXT_ELSEWHERE:
        assert form.answer(written, told.asked) == told.answer


@every_template
def test_arguments_never_become_control_tokens(name: str) -> None:
    form = chat_format(name)
    spelled = [t.content for t in form.tokenizer.added_tokens_decoder.values()]
    plain = example()
    call = ToolCall("weather", write_json({"city": "x" + " ".join(spelled), "days": 3}))
    sly = {**TOOL["function"], "description": " ".join(spelled)}  # type: ignore[dict-item]
    told = Example(
        "id",
        (
            SYSTEM,
            ASKED,
            Message("assistant", "", tool_calls=(call,)),
            Message("tool", " ".join(spelled)),
            SAID,
        ),
        "f.jsonl",
        3,
        tools=({"type": "function", "function": sly},),
    )
    control = set(form.tokenizer.added_tokens_decoder)
    for ours, theirs in zip(form.training(told), form.training(plain), strict=True):
        assert [i for i in ours.ids if i in control] == [i for i in theirs.ids if i in control]


@pytest.mark.parametrize("name", MISSING)
def test_a_template_that_cannot_show_tools_is_named(name: str) -> None:
    form = chat_format(name)
    form.tokenizer.name_or_path = "acme/model"
    told = example()
    with pytest.raises(ModelError) as caught:
        form.encode(told.with_tools(told.messages))
    assert caught.value.message == f"the chat template of acme/model does not show {MISSING[name]}"
    assert caught.value.fix
    for ask in (lambda: form.training(told), lambda: form.prompt(told.asked)):
        with pytest.raises(ModelError, match="acme/model does not show"):
            ask()


def test_a_base_model_cannot_show_tools() -> None:
    form = ChatFormat(byte_level(None))
    assert form.tokenizer.chat_template.endswith(PLAIN_TEMPLATE)
    with pytest.raises(ModelError, match="does not show which tools are on offer"):
        form.training(example())
    without = Example("id", (ASKED, TOLD, SAID), "f", 1)
    assert len(form.training(without)) == 1, "a result alone is a turn that it can write"


def test_arguments_are_given_as_text_to_a_template_that_takes_no_objects() -> None:
    form = chat_format("deepseekv3")
    told = Example("id", (ASKED, CALLED, TOLD, SAID), "f", 1)
    call, _ = form.training(told)
    text = form.show_mask(call)[1][0]
    assert '```json\n{"city": "Köln", "days": 3}\n```' in text
    assert form.answer(call.ids[call.prompt_tokens :], told.asked[:1]) == told.messages[1].text


PRINTED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NINE = (
    "{% for m in messages %}{% for c in m.tool_calls or [] %}{% if c.id | length != 9 %}"
    "{{ raise_exception('ids of nine characters') }}{% endif %}<|im_start|>{{ c.id }} "
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}<|im_end|>\n'
    "{% endfor %}{% if not m.tool_calls %}<|im_start|>{{ m.role }}\n{{ m.tool_call_id or '' }}{{ m.content }}"
    "<|im_end|>\n{% endif %}{% endfor %}{% if tools %}{{ tools }}{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chatml(template: str) -> ChatFormat:
    return ChatFormat(byte_level(template, ("<|im_start|>", "<|im_end|>"), eos="<|endoftext|>"))


def test_arguments_printed_as_python_does_are_given_as_text() -> None:
    form = chatml(PRINTED)
    (call, _) = form.training(Example("id", (ASKED, CALLED, TOLD, SAID), "f", 1))
    assert form.show_mask(call)[1][0] == 'weather{"city": "Köln", "days": 3}<|im_end|>'
    assert any("cannot be read back" in note for note in form.notes)
    assert form.answer(call.ids[call.prompt_tokens :], []) == 'weather{"city": "Köln", "days": 3}'


def test_ids_that_a_template_refuses_are_numbered() -> None:
    form = chatml(NINE)
    own = Message("assistant", "", tool_calls=(ToolCall("weather", "{}", "call_long_id"),))
    result = Message("tool", "21 °C", tool_call_id="call_long_id")
    shown = form.render(example(ASKED, own, result, SAID).asked)
    assert "<|im_start|>call00000 {" in shown and "<|im_start|>tool\ncall0000021 °C" in shown
    nine = Message("assistant", "", tool_calls=(ToolCall("weather", "{}", "abcdefghi"),))
    assert "<|im_start|>abcdefghi {" in form.render(example(ASKED, nine, SAID).asked)


def test_results_are_linked_to_the_calls_that_wait() -> None:
    calls = (ToolCall("a", "{}"), ToolCall("b", "{}", "own"), ToolCall("a", "{}"))
    turns = [
        Message("assistant", "", tool_calls=calls),
        Message("tool", "", tool_call_id="own"),
        Message("tool", ""),
        Message("tool", "", name="a"),
        Message("tool", "too many"),
    ]
    linked = link([turn.as_dict() for turn in turns])
    assert [call["id"] for call in linked[0]["tool_calls"]] == ["call00000", "own", "call00002"]
    assert [(turn.get("tool_call_id"), turn.get("name")) for turn in linked[1:]] == [
        ("own", "b"),
        ("call00000", "a"),
        ("call00002", "a"),
        (None, None),
    ]


def test_an_answer_without_tools_is_left_as_it_is() -> None:
    form = chat_format("qwen2_5")
    text = '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>'
    ids = form.tokenizer.encode(text)
    assert form.answer(ids, [{"role": "user", "content": "q"}]) == text
    asked = example().asked
    assert form.answer(ids, asked) == '{"name": "weather", "arguments": {}}'
    rambling = form.tokenizer.encode(text + " That was it.")
    assert form.answer(rambling, asked) == text + " That was it.", (
        "words after a call: not what was asked for"
    )
    before = form.tokenizer.encode("I look.\n" + text)
    assert form.answer(before, asked) == 'I look.\n{"name": "weather", "arguments": {}}'
    json_text = '{"name": "weather", "arguments": {}}'
    plain = form.sequence([{"role": "user", "content": "q"}], json_text)
    assert form.show_mask(plain)[1][0] == json_text + "<|im_end|>", "no tools: an answer is its letters"


def test_examples_in_prompts_show_calls_with_their_results() -> None:
    form, shown = chat_format("qwen2_5"), example()
    asked = Example(
        "other", (Message("system", "Own."), Message("user", "Rain?"), SAID), "f", 9, tools=(TOOL,)
    )
    plain = Example("plain", (Message("user", "Hi"), Message("assistant", "Hello")), "f", 10)
    messages = few_shot_messages([asked], [shown, plain], form, None, shots=2, seed=0)["other"]
    assert [m["role"] for m in messages].count("tool") == 1
    assert {(m["role"], m["content"]) for m in messages} >= {("user", "Hi"), ("assistant", "Hello")}
    text = form.render(messages, generation=True)
    assert text.count('<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"') == 1
    assert text.index("Köln") < text.index("<tool_response>\n21 °C") < text.index("Rain?")
    assert "Today's weather" in text, "the tools on offer are those of the example that is asked"
    assert prompt_messages(asked, form, None) == asked.asked


def test_graders_compare_name_and_arguments_in_any_order() -> None:
    swapped = Message("assistant", "", tool_calls=(ToolCall("weather", '{"days": 3, "city": "Köln"}', "c9"),))
    assert example(ASKED, swapped).answer == example(ASKED, CALLED).answer
    told = example(ASKED, CALLED)
    grader = JsonFields()
    assert [grader.grade(answer, told.answer, told).value for answer in (told.answer, "{}", SAID.text)] == [
        1.0,
        0.0,
        0.0,
    ]
    assert json.loads(told.answer) == {"name": "weather", "arguments": {"city": "Köln", "days": 3}}


def test_a_message_from_an_answer() -> None:
    told = example()
    assert told.answered(CALLED.text) == CALLED
    assert told.answered("It rains.") == Message("assistant", "It rains.")
    plain = Example("i", (ASKED, SAID), "f", 1)
    assert plain.answered(CALLED.text) == Message("assistant", CALLED.text)
