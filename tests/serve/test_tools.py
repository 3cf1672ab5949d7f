"""Tools and their calls, in front of servers and on the local engine, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import suffice
from serving import Server, serving
from suffice.checkpoints.chat_tokenizer import ChatTokenizer, load_tokenizer
from suffice.engines.base import Capabilities
from suffice.engines.local.engine import LocalEngine
from suffice.errors import UsageError
from suffice.prompt import Prompt
from suffice.session import Request, Session
from suffice.testing.fake_openai import FakeOpenAI
from suffice.testing.fake_openai import Reply as Scripted
from suffice.testing.scripted_engine import ScriptedEngine
from suffice.watch import CallSplitter

TINY = Path(suffice.__file__).with_name("models") / "tiny"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL: tuple[dict[str, Any], ...] = (
    {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}},
    {"index": 0, "function": {"arguments": '{"city": '}},
    {"index": 0, "function": {"arguments": '"北京"}'}},
)


def merged(events: list[Any], index: int = 0) -> tuple[str, str | None]:
    """The text and the finish reason of one choice of a stream."""
    choices = [choice for event in events for choice in event["choices"] if choice["index"] == index]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return text, next((choice["finish_reason"] for choice in choices if choice["finish_reason"]), None)


def test_tools_go_to_the_upstream_and_calls_come_back_whole(server: FakeOpenAI, gateway: Server) -> None:
    server.script(Scripted(pieces=("Let me see.",), tool_calls=CALL, finish_reason="tool_calls", usage=(9, 20)))
    fields = {"tools": [WEATHER], "tool_choice": "auto", "parallel_tool_calls": False}
    said = gateway.chat("weather?", **fields).json
    [choice] = said["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me see."
    [call] = choice["message"]["tool_calls"]
    assert call == {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "北京"}'},
    }
    assert said["usage"]["completion_tokens"] == 20
    assert {name: server.generations[-1].body[name] for name in fields} == fields

    events = gateway.chat("weather?", stream=True, **fields).events
    deltas = [event["choices"][0]["delta"] for event in events]
    assert [piece for delta in deltas for piece in delta.get("tool_calls", ())] == list(CALL)
    assert merged(events) == ("Let me see.", "tool_calls")


def test_a_call_without_text_has_null_content_and_is_accounted(server: FakeOpenAI, gateway: Server) -> None:
    server.script(Scripted(pieces=(), tool_calls=CALL, finish_reason="tool_calls", usage=None))
    said = gateway.chat("weather?", tools=[WEATHER]).json
    assert said["choices"][0]["message"]["content"] is None
    assert said["usage"]["completion_tokens"] == 3  # pieces, where the server does not say


@pytest.mark.parametrize(("tokens", "reason"), [(8, "length"), (7, "tool_calls")])
def test_a_call_that_the_cap_has_cut_says_length(server: FakeOpenAI, gateway: Server, tokens: int, reason: str) -> None:
    server.script(Scripted(pieces=(), tool_calls=CALL[:2], finish_reason="tool_calls", usage=(9, tokens)))
    [choice] = gateway.chat("weather?", tools=[WEATHER], max_tokens=8).json["choices"]
    assert choice["finish_reason"] == reason
    server.script(Scripted(pieces=(), tool_calls=CALL, finish_reason="tool_calls", usage=(9, 8)))
    [choice] = gateway.chat("weather?", tools=[WEATHER], max_tokens=8).json["choices"]
    assert choice["finish_reason"] == "tool_calls"  # it was whole just in time


def test_a_server_that_does_not_stream_or_number_its_calls(server: FakeOpenAI, gateway: Server) -> None:
    calls = [{"id": f"call_{i}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for i in (1, 2)]
    choice = {"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": calls}}
    body = {
        "choices": [choice | {"finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 9},
    }
    server.script(Scripted(body=body))
    assert gateway.chat("go", tools=[WEATHER]).json["choices"][0]["message"]["tool_calls"] == calls
    events = gateway.chat("go", tools=[WEATHER], stream=True).events
    pieces = [piece for event in events for piece in event["choices"][0]["delta"].get("tool_calls", ())]
    assert [piece["index"] for piece in pieces] == [0, 1]
    server.script(Scripted(pieces=(), tool_calls=[{**CALL[0], "index": None}, {"function": {"arguments": "{}"}}]))
    [call] = gateway.chat("go", tools=[WEATHER]).json["choices"][0]["message"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": "{}"}


def test_calls_of_a_wrong_shape_are_the_servers_fault(server: FakeOpenAI, gateway: Server) -> None:
    server.script(Scripted(pieces=(), tool_calls=["weather"]))
    reply = gateway.chat("go", tools=[WEATHER])
    assert (reply.status, "malformed" in reply.json["error"]["message"]) == (502, True)


def test_arguments_that_loop_are_ended(server: FakeOpenAI, gateway: Server) -> None:
    spin = [{"index": 0, "function": {"arguments": "\\n \\n "}}] * 400
    server.script(Scripted(pieces=(), tool_calls=(CALL[0], *spin), finish_reason="tool_calls", usage=(9, 401)))
    said = gateway.chat("weather?", tools=[WEATHER]).json
    assert said["suffice"]["finish_detail"] == "repetition"
    assert said["choices"][0]["finish_reason"] == "length"  # half a call is none


def test_a_conversation_with_calls_goes_on_as_it_is(server: FakeOpenAI, gateway: Server) -> None:
    server.script(Scripted())
    messages = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": {}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    assert gateway.post("/v1/chat/completions", {"messages": messages}).status == 200
    assert server.generations[-1].body["messages"] == messages


def test_tools_are_counted_with_the_prompt(server: FakeOpenAI, gateway: Server) -> None:
    server.tokenize = 33
    gateway.chat("weather?", tools=[WEATHER])
    counted = [request.body for request in server.requests if "messages" in request.body and "tokenize" in request.path]
    assert counted[0]["tools"] == [WEATHER]


def test_a_template_without_tools_refuses_them() -> None:
    with serving(LocalEngine()) as server:
        reply = server.chat("weather?", tools=[WEATHER])
        assert reply.status == 400
        assert "chat template has no tools" in reply.json["error"]["message"]
        assert server.chat("Count from 1 to 3.", tools=[WEATHER], tool_choice="none").status == 200
        called = {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]}
        messages = [{"role": "user", "content": "hi"}, called, {"role": "tool", "content": "4", "tool_call_id": "a"}]
        assert server.post("/v1/chat/completions", {"messages": messages}).status == 400


class Calling(ScriptedEngine):
    """Writes its calls into the text, as a model does."""

    def capabilities(self) -> Capabilities:
        return replace(super().capabilities(), calls_in_text=True)


def test_calls_in_the_text_of_a_local_model_are_taken_out() -> None:
    one, two = (
        f'<tool_call>\n{{"name": "weather", "arguments": {{"city": "{city}"}}}}\n</tool_call>'
        for city in ("北京", "Rom")
    )
    with serving(Calling(f"Let me see.\n{one}\n{two}\n")) as server:
        said = server.chat("weather?", tools=[WEATHER]).json
        [choice] = said["choices"]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "Let me see.")
        calls = choice["message"]["tool_calls"]
        assert [json.loads(call["function"]["arguments"])["city"] for call in calls] == ["北京", "Rom"]
        assert len({call["id"] for call in calls}) == 2
        events = server.chat("weather?", tools=[WEATHER], stream=True).events
        assert merged(events) == ("Let me see.", "tool_calls")
        plain = server.chat("weather?").json  # who gives no tools gets what the model wrote
        assert plain["choices"][0]["message"]["content"].count("<tool_call>") == 2
        cut = server.chat("weather?", tools=[WEATHER], max_tokens=40).json["choices"][0]
        assert cut["finish_reason"] == "length"
        assert cut["message"]["content"] == f"Let me see.\n{one}"[:40]  # nothing is lost
        assert "tool_calls" not in cut["message"]


def test_a_template_with_tools_shows_them_and_calls_as_objects() -> None:
    tokenizer = load_tokenizer(str(TINY)).tokenizer
    tokenizer.chat_template = (
        "{% for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}"
        "{% for message in messages %}<{{ message.role }}>{{ message.content }}"
        "{% for call in message.tool_calls or [] %}{{ call.function.arguments.city }}!{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    chat = ChatTokenizer(tokenizer, "tiny")
    call = {"id": "a", "function": {"name": "weather", "arguments": '{"city": "北京"}'}}
    messages: list[Any] = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    ids = chat.prompt_ids(Prompt(tuple(messages), tools=(WEATHER,)))
    # The calls end a turn: their answer comes next, so this one is not gone on with.
    assert chat.decode(ids) == "[weather]<user>weather?<assistant>北京!<assistant>"
    assert len(chat.prompt_ids(Prompt(tuple(messages)))) < len(ids)


def test_a_template_that_refuses_a_conversation_says_so() -> None:
    tokenizer = load_tokenizer(str(TINY)).tokenizer
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(UsageError, match="roles must alternate"):
        ChatTokenizer(tokenizer, "tiny").prompt_ids(Prompt(({"role": "user", "content": "x"},)))


def test_python_gets_calls_too() -> None:
    text = '<tool_call>{"name": "weather", "arguments": {"city": "Rom"}}</tool_call>'
    request = Request(Prompt(({"role": "user", "content": "x"},), tools=(WEATHER,)))
    answer = asyncio.run(Session(Calling(text)).answer(request))
    assert (answer.text, answer.tool_calls[0]["function"]["arguments"]) == ("", '{"city": "Rom"}')


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_calls_are_found_wherever_the_text_is_cut(size: int) -> None:
    call = '<tool_call>{"name": "f", "arguments": {"a": "</b>"}}</tool_call>'
    wrong = "<tool_call>not JSON</tool_call>"
    text = f"a <tool {call}\n {call} b {wrong} c <tool_call"
    splitter = CallSplitter()
    parts: list[Any] = []
    for start in range(0, len(text), size):
        parts += splitter.push(text[start : start + size])
    parts.append(splitter.flush())
    shown = "".join("@" if isinstance(part, dict) else part for part in parts)
    assert shown == f"a <tool@@b {wrong} c <tool_call"
    assert [part["index"] for part in parts if isinstance(part, dict)] == [0, 1]


def test_the_local_engine_puts_tools_into_the_prompt_and_counts_them() -> None:
    with serving(LocalEngine()) as server:
        engine: Any = server.service.pool.upstreams[0].engine
        engine.tokenizer.chat_template = "{{ tools | tojson if tools else '' }}" + engine.tokenizer.chat_template
        ask: dict[str, Any] = {"temperature": 0, "max_tokens": 4}
        without, with_tools = (server.chat("Count to 3.", **ask, **more).json for more in ({}, {"tools": [WEATHER]}))
        assert with_tools["usage"]["prompt_tokens"] > without["usage"]["prompt_tokens"] + 20
        assert with_tools["suffice"]["budget"]["prompt_tokens"] == with_tools["usage"]["prompt_tokens"]
        assert with_tools["choices"][0]["message"]["content"]
