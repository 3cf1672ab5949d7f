"""The remote engine against a real server on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from suffice.budget import Budgeter
from suffice.engines.base import Chunk, Engine, Finish, GenerationRequest, Health, Message, Sampling, TokenCount, Usage
from suffice.engines.openai.engine import RemoteEngine
from suffice.engines.openai.requests import addresses, error_message
from suffice.engines.openai.sse import EventParser
from suffice.errors import EngineError, ModelError, UsageError
from suffice.prompt import Prompt
from suffice.testing.fake_openai import FakeOpenAI, Reply
from suffice.token_ratios import estimate_prompt_tokens

HI: tuple[Message, ...] = ({"role": "user", "content": "hi there"},)


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SUFFICE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def ask(**changes: Any) -> GenerationRequest:
    plain = GenerationRequest(id="r1", prompt=Prompt(HI), max_new_tokens=64)
    return replace(plain, **changes)


async def collect(engine: Engine, request: GenerationRequest | None = None) -> list[Chunk]:
    return [chunk async for chunk in engine.submit(request or ask())]


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def with_server(
    use: Callable[[FakeOpenAI, RemoteEngine], Awaitable[Any]], *replies: Reply, server: Any = None, **engine: Any
) -> Any:
    """Runs `use` with a fresh server and engine."""

    async def main() -> Any:
        async with FakeOpenAI(**(server or {})) as fake:
            fake.script(*replies)
            async with RemoteEngine(fake.url, **engine) as remote:
                return await use(fake, remote)

    return asyncio.run(main())


def answer(*replies: Reply, request: GenerationRequest | None = None, **options: Any) -> list[Chunk]:
    return with_server(lambda _, engine: collect(engine, request), *replies, **options)


async def until_error(
    engine: Engine, request: GenerationRequest | None = None, pause: Callable[[], Awaitable[Any]] | None = None
) -> tuple[str, str]:
    """The text that arrived, and the error that ended it. `pause` is awaited after each piece."""
    text = ""
    try:
        async for chunk in engine.submit(request or ask()):
            text += chunk.text
            if pause is not None:
                await pause()
    except EngineError as error:
        return text, str(error)
    pytest.fail(f"no error after {text!r}")


def failure(*replies: Reply, request: GenerationRequest | None = None, **options: Any) -> tuple[str, str]:
    text, error = with_server(lambda _, engine: until_error(engine, request), *replies, **options)
    assert "\n" not in error
    assert error.startswith("127.0.0.1:")
    return text, error


# --- answers --------------------------------------------------------------------------------------


def test_chat_streams_text_finish_and_usage() -> None:
    chunks = answer(Reply(pieces=("你好", ", ", "world")))
    assert [chunk.text for chunk in chunks] == ["你好", ", ", "world", ""]
    assert [chunk.finish for chunk in chunks[:-1]] == [None] * 3
    assert chunks[-1].finish == Finish("stop", "end_token")
    assert chunks[-1].usage == Usage(7, 3, exact=True)


def test_completions_use_the_prompt_and_the_other_route() -> None:
    async def use(server: FakeOpenAI, engine: RemoteEngine) -> None:
        chunks = await collect(engine, ask(prompt=Prompt(raw="one two three four"), max_new_tokens=3))
        assert text_of(chunks) == "one two three"
        assert chunks[-1].finish == Finish("length")
        (request,) = server.generations
        assert request.path == "/v1/completions"
        assert request.body["prompt"] == "one two three four"
        assert "messages" not in request.body

    with_server(use)


def test_only_what_was_asked_for_is_sent() -> None:
    async def use(server: FakeOpenAI, engine: RemoteEngine) -> None:
        await collect(engine)
        await collect(engine, ask(sampling=Sampling(temperature=0, top_k=40, seed=7), stop_tokens=("<|im_end|>",)))
        bare, full = (request.body for request in server.generations)
        assert bare == {
            "model": "fake-model",
            "messages": list(HI),
            "max_tokens": 64,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        assert full == bare | {"temperature": 0, "top_k": 40, "seed": 7}

    with_server(use)


@pytest.mark.parametrize(
    ("reply", "finish"),
    [
        (Reply(stop_reason=151645), Finish("stop", "end_token", "151645")),
        (Reply(finish_reason="length"), Finish("length")),
        (Reply(finish_reason="content_filter"), Finish("stop", "content_filter")),
        (Reply(finish_reason="tool_calls"), Finish("stop", "tool_calls")),
        (Reply(finish_reason=None), Finish("stop", "", "the server gave no finish_reason")),
        (Reply(finish_reason=None, usage=(7, 64)), Finish("length")),
        (Reply(done=False), Finish("stop", "end_token")),
    ],
)
def test_finish_reasons_are_kept_true(reply: Reply, finish: Finish) -> None:
    assert answer(reply)[-1].finish == finish


def test_an_answer_that_the_server_gave_up_is_an_error() -> None:
    text, error = failure(Reply(finish_reason="abort"))
    assert text == "Hello, world"
    assert "gave the request up (abort) after 3 pieces" in error


def test_usage_is_counted_where_the_server_does_not_say() -> None:
    usage = answer(Reply(pieces=("a", "b"), reasoning=("x", "y", "z"), usage=None))[-1].usage
    assert usage == Usage(estimate_prompt_tokens(Prompt(HI)), 5, exact=False, thinking_tokens=3)


def test_reasoning_is_not_text() -> None:
    chunks = answer(Reply(pieces=("42",), reasoning=("let me ", "think"), usage=(7, 9)))
    assert text_of(chunks) == "42"
    assert chunks[-1].usage == Usage(7, 9)


def test_a_server_that_does_not_stream() -> None:
    body = {"choices": [{"message": {"content": "whole"}, "finish_reason": "length"}], "usage": None}
    chunks = answer(Reply(body=body))
    assert text_of(chunks) == "whole"
    assert chunks[-1].finish == Finish("length")


def test_many_requests_at_once() -> None:
    async def use(server: FakeOpenAI, engine: RemoteEngine) -> None:
        asked = [ask(id=f"r{n}", prompt=Prompt(({"role": "user", "content": f"number {n}"},))) for n in range(32)]
        answers = await asyncio.gather(*(collect(engine, request) for request in asked))
        assert [text_of(chunks) for chunks in answers] == [f"number {n}" for n in range(32)]

    with_server(use)


def test_a_finished_answer_leaves_its_connection_to_the_next() -> None:
    async def use(server: FakeOpenAI, engine: RemoteEngine) -> None:
        for _ in range(3):
            await collect(engine)
        assert len({request.peer for request in server.requests}) == 1

    with_server(use, Reply(piece_delay=0.005))


def test_one_id_cannot_run_twice() -> None:
    async def use(_: FakeOpenAI, engine: RemoteEngine) -> None:
        first = engine.submit(ask())
        await anext(first)
        with pytest.raises(EngineError, match="'r1' is already running"):
            await collect(engine)
        await first.aclose()
        assert text_of(await collect(engine)) == "hi there"

    with_server(use)


# --- the stream's bytes ---------------------------------------------------------------------------


def sse(*pieces: str, ascii_only: bool = True, end: str = "\n\n") -> bytes:
    events = [json.dumps({"choices": [{"delta": {"content": piece}}]}, ensure_ascii=ascii_only) for piece in pieces]
    events += [json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]}), "[DONE]"]
    return "".join(f"data: {event}{end}" for event in events).encode()


def test_characters_cut_between_packets_arrive_whole() -> None:
    whole = sse("好🙂", ascii_only=False)
    cut = [whole[i : i + 1] for i in range(whole.index("好".encode()), whole.index("🙂".encode()) + 4)]
    start, end = whole.index("好".encode()), whole.index("🙂".encode()) + 4
    chunks = answer(Reply(raw=[whole[:start], *cut, whole[end:]]))
    assert [chunk.text for chunk in chunks] == ["好🙂", ""]


def test_surrogates_cut_between_pieces_arrive_whole() -> None:
    assert [chunk.text for chunk in answer(Reply(raw=[sse("a\ud83d", "\ude42b")]))] == ["a", "🙂b", ""]
    assert text_of(answer(Reply(raw=[sse("a\ud83d", "b")]))) == "a\ufffdb"
    assert text_of(answer(Reply(raw=[sse("a\ud83d")]))) == "a\ufffd"


def test_an_event_that_is_nested_without_end_is_an_error() -> None:
    deep = b'data: {"choices": ' + b"[" * 100_000 + b"\n\n"
    with pytest.raises(EngineError, match="malformed JSON from the server before the first piece"):
        answer(Reply(raw=[deep]))


def test_surrogates_anywhere_else_are_joined_or_replaced_too() -> None:
    def event(**delta: Any) -> dict[str, Any]:
        return {"choices": [{"delta": delta}]}

    def call(name: str, arguments: str) -> dict[str, Any]:
        return event(tool_calls=[{"index": 0, "id": "c", "function": {"name": name, "arguments": arguments}}])

    likely = event(content="x")
    likely["choices"][0]["logprobs"] = {
        "content": [{"token": "\ud83d", "logprob": value} for value in (float("nan"), -float("inf"), float("inf"), -1)]
    }
    events = [event(reasoning_content="a\ud83d"), event(reasoning_content="\ude42"), call("f\ud83d", '{"a":"\ud83d')]
    events += [call("", '\ude42"}'), likely, {"choices": [{"delta": {}, "finish_reason": "stop"}]}]
    request = ask(logprobs=0)
    body = "".join(f"data: {json.dumps(each)}\n\n" for each in events).encode() + b"data: [DONE]\n\n"
    chunks = answer(Reply(raw=[body]), request=request)
    assert "".join(chunk.reasoning for chunk in chunks) == "a🙂"
    functions = [piece["function"] for chunk in chunks for piece in chunk.tool_calls]
    assert functions[0]["name"] == "f\ufffd"
    assert json.loads("".join(each["arguments"] for each in functions)) == {"a": "🙂"}
    found = [each for chunk in chunks for each in chunk.logprobs]
    assert [(each.token, each.logprob) for each in found] == [("\ufffd", -9999.0)] * 3 + [("\ufffd", -1.0)]


def test_the_half_of_a_character_at_the_end_of_a_call_is_replaced() -> None:
    piece = {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a":"\ud83d'}}
    event = {"choices": [{"delta": {"tool_calls": [piece]}, "finish_reason": "tool_calls"}]}
    chunks = answer(Reply(raw=[f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode()]))
    pieces = [(each["index"], each["function"]["arguments"]) for chunk in chunks for each in chunk.tool_calls]
    assert pieces == [(0, '{"a":"'), (0, "\ufffd")]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), None, 10**400, -(10**400)], ids=lambda value: str(value)[:5]
)
def test_log_probabilities_that_are_no_numbers_say_nothing(value: Any) -> None:
    columns = {"tokens": ["a"], "token_logprobs": [value], "top_logprobs": [{"a": -1.0, "b": value}]}
    objects = {"content": [{"token": "a", "logprob": value, "top_logprobs": [{"token": "b", "logprob": value}]}]}
    for logprobs in (columns, objects):
        event = {"choices": [{"text": "a", "logprobs": logprobs, "finish_reason": "stop"}]}
        body = f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode()
        [found] = [each for chunk in answer(Reply(raw=[body]), request=ask(logprobs=1)) for each in chunk.logprobs]
        assert (found.logprob, found.others[-1].logprob) == (-9999.0, -9999.0)


def test_comments_crlf_and_a_missing_last_blank_line() -> None:
    body = b": ping\r\n\r\nevent: message\r\nid: 1\r\n" + sse("x", end="\r\n\r\n").rstrip()
    assert text_of(answer(Reply(raw=[body]))) == "x"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_cut_anywhere(size: int) -> None:
    stream = (
        "\ufeffdata: one\r\n\r\n: comment\r\ndata:two\r\ndata: zwei 二\r\n\r\n"
        "event: x\n\ndata: three\r\rdata\n\ndata: end"
    ).encode()
    parser = EventParser()
    events = [event for i in range(0, len(stream), size) for event in parser.feed(stream[i : i + size])]
    assert [*events, parser.close()] == ["one", "two\nzwei 二", "three", "", "end"]


@pytest.mark.parametrize("first", ["", "\ufeff"])
def test_whole_events_are_read_as_events_in_parts_are(first: str) -> None:
    block = f"{first}data: one\n\n: ping\n\ndata:two\ndata: zwei 二\n\n\n\nevent: x\ndata: three\n\ndata: \n\n".encode()
    whole, parts = EventParser(), EventParser()
    told = [*whole.feed(block), *whole.feed(block[len(first.encode()) :])]
    events = ["one", "two\nzwei 二", "three", ""]
    assert told == [*events, *events]
    assert [event for at in range(len(block)) for event in parts.feed(block[at : at + 1])] == events


def test_an_event_without_end_is_refused() -> None:
    parser = EventParser(max_bytes=100)
    for _ in range(20):
        assert parser.feed(b"data: 789\n\n") == ["789"]
        assert parser.feed(b": not held\n") == []
    assert parser.feed(b"data: 789\n" * 23) == []
    with pytest.raises(ValueError, match="longer than 100 bytes"):
        parser.feed(b"data: 789")


# --- what servers do not know ---------------------------------------------------------------------


def test_a_server_without_stream_options_is_asked_again_and_remembered() -> None:
    async def use(server: FakeOpenAI, engine: RemoteEngine) -> None:
        for _ in range(2):
            chunks = await collect(engine)
            assert text_of(chunks) == "hi there"
            assert chunks[-1].usage == Usage(estimate_prompt_tokens(Prompt(HI)), 2, exact=False)
        assert ["stream_options" in request.body for request in server.generations] == [True, False, False]

    with_server(use, server={"unknown": ["stream_options"]})


def test_a_server_that_wants_max_completion_tokens() -> None:
    refusal = Reply.refusal(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")

    async def use(server: FakeOpenAI, engine: RemoteEngine) -> None:
        assert text_of(await collect(engine)) == "Hello, world"
        first, second = (request.body for request in server.generations)
        assert first["max_tokens"] == second["max_completion_tokens"] == 64
        assert "max_tokens" not in second

    with_server(use, refusal, Reply())


def test_a_refusal_that_a_retry_does_not_cure_is_reported_and_not_remembered() -> None:
    refusal = Reply.refusal(400, "'max_tokens' or 'max_completion_tokens' is too large: 64")

    async def use(server: FakeOpenAI, engine: RemoteEngine) -> None:
        with pytest.raises(EngineError, match="HTTP 400: 'max_tokens' or 'max_completion_tokens' is too large: 64"):
            await collect(engine)
        assert len(server.generations) == 2
        await collect(engine)
        assert "max_tokens" in server.generations[-1].body

    with_server(use, refusal, refusal, Reply())


def test_a_parameter_that_the_server_refuses_is_passed_on_as_its_error() -> None:
    _, error = failure(request=ask(sampling=Sampling(top_k=5)), server={"unknown": ["top_k"]})
    assert error.endswith("HTTP 400: Unrecognized request argument supplied: top_k")


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply.refusal(500, "CUDA out of memory"), "HTTP 500: CUDA out of memory"),
        (Reply.refusal(429, "slow down", Retry_After="7"), "HTTP 429: slow down; Retry-After: 7"),
        (Reply.refusal(401, "who are you"), "HTTP 401: who are you; no key was sent: set SUFFICE_API_KEY"),
        (Reply(status=503, body="overloaded,\n come back"), "HTTP 503: overloaded, come back"),
        (Reply(status=502, body="<html><head><title>Bad Gateway</title></head></html>"), "HTTP 502: Bad Gateway"),
        (Reply(status=301, body="-", headers={"Location": "https://x/v1"}), "it moved to https://x/v1: use that"),
        (Reply(body="<html><h1>Welcome</h1></html>"), "answers with text/html instead of a stream of events: Welcome"),
        (Reply(body={"error": "no model loaded"}), "the server failed before the first piece: no model loaded"),
    ],
)
def test_server_errors_become_one_line(reply: Reply, message: str) -> None:
    text, error = failure(reply)
    assert text == ""
    assert message in error


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(error_event={"error": {"message": "boom"}}), "the server failed after 3 pieces: boom"),
        (Reply(error_event={"object": "error", "message": "boom"}), "the server failed after 3 pieces: boom"),
        (Reply(error_event={"choices": [3]}), "malformed event from the server"),
        (Reply(error_event=[1]), "malformed JSON from the server after 3 pieces: [1]"),
        (Reply(drop_after=3), "connection dropped after 3 pieces"),
        (Reply(finish_reason=None, done=False, usage=None), "connection dropped after 3 pieces"),
        (Reply(hang_after=3), "the server sent nothing for 0.2 s after 3 pieces"),
    ],
)
def test_what_arrived_before_a_failure_is_kept(reply: Reply, message: str) -> None:
    text, error = failure(reply, read_timeout=0.2)
    assert text == "Hello, world"
    assert message in error


def test_a_stream_that_ends_within_an_event_was_dropped() -> None:
    whole = sse("x")
    text, error = failure(Reply(raw=[whole[: whole.index(b"finish_reason")]]))
    assert text == "x"
    assert "connection dropped after 1 piece" in error


def test_a_slow_caller_still_gets_all_that_arrived_before_the_drop() -> None:
    async def use(server: FakeOpenAI, engine: RemoteEngine) -> None:
        text, error = await until_error(engine, pause=server.idle.wait)
        assert text == "Hello, world"
        assert "connection dropped after 3 pieces" in error

    with_server(use, Reply(drop_after=3, piece_delay=0.01))


def test_a_drop_after_the_finish_reason_costs_only_the_usage() -> None:
    chunks = answer(Reply(drop_after=4))
    assert text_of(chunks) == "Hello, world"
    assert chunks[-1].finish == Finish("stop", "end_token")
    assert chunks[-1].usage == Usage(estimate_prompt_tokens(Prompt(HI)), 3, exact=False)


def test_slow_headers_time_out() -> None:
    _, error = failure(Reply(header_delay=5), read_timeout=0.1)
    assert error.endswith("the server sent nothing for 0.1 s before the first piece")


def test_a_mistake_in_the_request_reaches_the_caller() -> None:
    with pytest.raises(TypeError):
        answer(request=ask(prompt=Prompt(({"role": "user", "content": object()},))))


def enter(url: str, **options: Any) -> None:
    async def main() -> None:
        async with RemoteEngine(url, **options):
            pass

    asyncio.run(main())


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EngineError, match=rf"^127.0.0.1:{port}: cannot connect: Connection refused; is the server"):
        enter(f"http://127.0.0.1:{port}")


def test_no_such_host() -> None:
    with pytest.raises(EngineError, match=r"^nowhere\.invalid: no such host"):
        enter("http://nowhere.invalid/v1")


def test_a_server_that_accepts_no_connection() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):  # fill the backlog, so that the next connection is left waiting
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with pytest.raises(EngineError, match=r"no connection within 0\.2 s"):
            enter(f"http://127.0.0.1:{full.getsockname()[1]}", connect_timeout=0.2)


def test_a_server_that_speaks_something_else() -> None:
    async def main() -> None:
        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(EngineError, match="does not speak HTTP"):
                await RemoteEngine(f"http://127.0.0.1:{port}").__aenter__()
            with pytest.raises(EngineError, match="TLS failed"):
                await RemoteEngine(f"https://127.0.0.1:{port}").__aenter__()

    asyncio.run(main())


# --- ending early ---------------------------------------------------------------------------------


def test_closing_the_iterator_closes_the_connection() -> None:
    async def use(server: FakeOpenAI, engine: RemoteEngine) -> None:
        stream = engine.submit(ask())
        assert (await anext(stream)).text == "Hello"
        await stream.aclose()
        await asyncio.wait_for(server.abandoned.wait(), 5)
        assert server.running == 0

    with_server(use, Reply(hang_after=1))


def test_a_cancelled_task_closes_the_connection_while_it_waits() -> None:
    async def use(server: FakeOpenAI, engine: RemoteEngine) -> None:
        task = asyncio.create_task(collect(engine))
        await server.busy.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.abandoned.wait(), 5)

    with_server(use, Reply(header_delay=60))


# --- model, capacity, tokens, health --------------------------------------------------------------


def test_the_first_model_and_its_context() -> None:
    models = [{"id": "a/b", "max_model_len": 32768}, {"id": "c"}]

    async def use(_: FakeOpenAI, engine: RemoteEngine) -> tuple[str, int | None]:
        return engine.model_name, engine.capabilities().context_tokens

    assert with_server(use, server={"models": models}) == ("a/b", 32768)
    assert with_server(use, server={"models": models}, model="c") == ("c", None)
    assert with_server(use, server={"models": None}, model="mine") == ("mine", None)


def test_no_model_is_said_clearly() -> None:
    async def use(*_: Any) -> None:
        pass

    with pytest.raises(ModelError, match="has no model: load one there, or name the one to use"):
        with_server(use, server={"models": []})
    with pytest.raises(EngineError, match=r"HTTP 404: no route GET /v1/models; .*name the one to use"):
        with_server(use, server={"models": None})


def test_tokens_are_counted_by_the_server() -> None:
    async def use(server: FakeOpenAI, engine: RemoteEngine) -> None:
        assert await engine.count_tokens(Prompt(HI)) == TokenCount(31)
        assert server.requests[-1].body == {"model": "fake-model", "messages": list(HI)}
        await engine.count_tokens(Prompt(raw="raw"))
        assert server.requests[-1].body == {"model": "fake-model", "prompt": "raw"}

    with_server(use, server={"tokenize": 31})


@pytest.mark.parametrize("tokenize", [None, {"tokens": []}])
def test_a_missing_tokenizer_is_asked_for_once(tokenize: Any) -> None:
    async def use(server: FakeOpenAI, engine: RemoteEngine) -> None:
        for _ in range(2):
            assert await engine.count_tokens(Prompt(HI)) == TokenCount(estimate_prompt_tokens(Prompt(HI)), exact=False)
        assert [request.path for request in server.requests].count("/tokenize") == 1

    with_server(use, server={"tokenize": tokenize})


def test_what_is_counted_without_a_tokenizer_is_what_a_budget_counts() -> None:
    tool = {"type": "function", "function": {"name": "weather", "description": "Tells the weather of a place."}}
    parts = [{"type": "text", "text": "a" * 40}, {"type": "image_url", "image_url": {"url": "data:..."}}]
    turns = ({"role": "user", "content": parts}, {"role": "assistant", "content": None})
    prompts = [Prompt(raw="a" * 400), Prompt(raw="字" * 100), Prompt(turns), Prompt(turns, tools=(tool,))]

    async def use(server: FakeOpenAI, engine: RemoteEngine) -> None:
        counts = [await engine.count_tokens(prompt) for prompt in prompts]
        assert [count.exact for count in counts] == [False] * 4
        assert [count.tokens for count in counts] == [
            Budgeter.load().decide(prompt).prompt_tokens for prompt in prompts
        ]
        assert 20 < counts[2].tokens < counts[3].tokens < 80

    with_server(use, server={"tokenize": None})


def test_health() -> None:
    async def use(server: FakeOpenAI, engine: RemoteEngine) -> None:
        assert await engine.health() == Health(True)
        server.health = None
        assert await engine.health() == Health(True)
        server.health = 503
        assert await engine.health() == Health(False, f"127.0.0.1:{server.port}: HTTP 503: loading the model")
        server.health = server.models = None
        assert not (await engine.health()).ok

    with_server(use)


def test_health_of_a_server_that_is_gone() -> None:
    async def main() -> Health:
        async with FakeOpenAI() as server:
            engine = await RemoteEngine(server.url).__aenter__()
        health = await engine.health()
        await engine.__aexit__()
        return health

    health = asyncio.run(main())
    assert not health.ok
    assert "cannot connect" in health.detail


# --- address and key ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "root", "api"),
    [
        ("http://h:8000", "http://h:8000", "http://h:8000/v1"),
        ("http://h:8000/", "http://h:8000", "http://h:8000/v1"),
        ("http://h:8000/v1", "http://h:8000", "http://h:8000/v1"),
        ("http://h:8000/v1/", "http://h:8000", "http://h:8000/v1"),
        ("https://h/api/v1/chat/completions", "https://h/api", "https://h/api/v1"),
        ("https://h/api/paas/v4", "https://h/api/paas", "https://h/api/paas/v4"),
        ("https://h/v1beta/openai/", "https://h/v1beta/openai", "https://h/v1beta/openai"),
        ("http://h/engine", "http://h/engine", "http://h/engine/v1"),
    ],
)
def test_addresses(given: str, root: str, api: str) -> None:
    assert addresses(given) == (root, api)


@pytest.mark.parametrize("given", ["localhost:8000", "", "ftp://h", "http://", "http://h:99999"])
def test_bad_addresses(given: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(given))):
        RemoteEngine(given)


@pytest.mark.parametrize(
    "given",
    ["http://u:secret@h/v1", "htp://u:secret@h", "http://u:secret@h:99999", "http://[u:secret@h", "h?key=secret"],
)
def test_addresses_with_more_than_an_address_are_not_shown(given: str) -> None:
    with pytest.raises(UsageError, match="must hold no user, password, query or fragment") as caught:
        RemoteEngine(given)
    assert "secret" not in str(caught.value)


def test_bad_settings() -> None:
    with pytest.raises(UsageError, match="read_timeout is 0"):
        RemoteEngine("http://h", read_timeout=0)
    with pytest.raises(UsageError, match="the API key holds characters") as caught:
        RemoteEngine("http://h", api_key="sk-密")
    assert "sk-" not in str(caught.value)


def test_the_key_comes_from_the_argument_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(server: FakeOpenAI, engine: RemoteEngine) -> str | None:
        await collect(engine)
        return server.generations[0].headers.get("Authorization")

    assert with_server(use) is None
    monkeypatch.setenv("OPENAI_API_KEY", "from-openai")
    assert with_server(use) == "Bearer from-openai"
    monkeypatch.setenv("SUFFICE_API_KEY", "from-suffice\n")
    assert with_server(use) == "Bearer from-suffice"
    assert with_server(use, api_key="given") == "Bearer given"
    assert with_server(use, api_key="") is None


def test_the_key_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = "sk-very-secret"
    for reply in (Reply.refusal(401, f"bad key {key}"), Reply(error_event={"error": f"bad key {key}"})):
        _, error = failure(reply, api_key=key)
        assert "bad key ***" in error
    for refused in ({"model": "m"}, {}):
        with pytest.raises(EngineError, match=r"HTTP 401: Incorrect API key provided: \*\*\*"):
            with_server(lambda _, engine: collect(engine), server={"key": "right"}, api_key=key, **refused)
    assert key not in caplog.text
    assert key not in repr(RemoteEngine("http://h", api_key=key))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": {"message": "a"}}', "a"),
        ('{"error": "b"}', "b"),
        ('{"detail": "c"}', "c"),
        ('{"detail": [{"loc": ["body", "top_k"], "msg": "too small"}]}', "body.top_k: too small"),
        ('{"odd": 1}', '{"odd": 1}'),
        ("", "no reason given"),
        ("plain\x1b[31m\ntext", "plain[31m text"),
        ("x" * 600, "x" * 499 + "…"),
    ],
)
def test_error_bodies(body: str, message: str) -> None:
    assert error_message(body) == message
