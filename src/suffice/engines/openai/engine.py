"""The remote engine: any OpenAI-compatible server, by URL. Knows nothing about weights, templates or tokenizers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any, Self

from aiohttp import ClientPayloadError, ClientResponse

from suffice.checkpoints.chat_tokenizer import load_tokenizer
from suffice.engines.base import AnswerPrefix, Capabilities, Chunk, Finish, GenerationRequest, Health, TokenCount
from suffice.engines.openai.answer_reader import AnswerReader
from suffice.engines.openai.client import NETWORK_ERRORS, OpenAIClient, drain, read_body
from suffice.engines.openai.continuation import CHARGES_CAP, Continuation
from suffice.engines.openai.requests import Dialect, error_message, is_chat, json_object
from suffice.engines.openai.sse import EventParser
from suffice.errors import EngineError, ModelError
from suffice.prompt import Prompt
from suffice.token_ratios import estimate_prompt_tokens

__all__ = ["RemoteEngine"]

_CONTEXT_KEYS = ("max_model_len", "context_length", "context_window")  # vLLM and SGLang, OpenRouter, Groq
_USUAL_CONCURRENCY = 16  # requests: more wait in a hosted API's rate limit
_READ_AHEAD = 1024  # pieces of one answer that wait for a slow caller before its server is left waiting too


class RemoteEngine:
    """Generates on an OpenAI-compatible server: vLLM, SGLang, TensorRT-LLM, llama.cpp, Ollama or a hosted API.

    Answers are always streamed. `stop_tokens` are not sent: servers end at the model's own end tokens, and hosted APIs
    take four stop words at most. Reasoning (`reasoning_content`) stays apart from the text.

    Args:
        base_url: the server's address, with or without `/v1`.
        model: the model's name there; `None` takes the first that the server lists.
        api_key: sent as a bearer token; `None` reads SUFFICE_API_KEY, then OPENAI_API_KEY; '' sends none.
        connect_timeout: seconds to wait for a connection.
        read_timeout: seconds of silence allowed, before the first byte and between two.
        proxy: URL of an HTTP proxy. The environment's proxies are not used.
        tokenizer: folder or hub id of the model's tokenizer: prompts are then counted here, and answers can be
            continued on servers that cannot continue a message.

    Raises:
        UsageError: an argument cannot be used.
        ModelError: the tokenizer cannot be found.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        connect_timeout: float = 10.0,
        read_timeout: float = 300.0,
        proxy: str | None = None,
        tokenizer: str | None = None,
    ) -> None:
        self._client = OpenAIClient(base_url, api_key, connect_timeout, read_timeout, proxy)
        self._model = model
        self.listed_models: tuple[str, ...] = ()
        """What the server listed when the engine was entered."""
        self._owner = ""
        self._tokenizer = load_tokenizer(tokenizer) if tokenizer else None
        self._continuation = Continuation(self._client, self._tokenizer)
        self._context_tokens: int | None = None
        self._dialect = Dialect()
        self._can_tokenize = True
        self._running: dict[str, asyncio.Task[None]] = {}

    @property
    def model_name(self) -> str:
        """The model's name on the server; the server's own name until one is known."""
        return self._model or self._client.host

    @property
    def decode_token(self) -> None:
        return None  # the server decodes

    async def __aenter__(self) -> Self:
        """Connects, and asks the server for its models.

        Raises:
            EngineError: the server cannot be reached, or does not list its models when none was named.
            ModelError: the server has no model and none was named.
        """
        await self._client.start()
        try:
            await self._find_model()
        except BaseException:
            await self._client.close()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._running.values():
            task.cancel()
        await self._client.close()

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        if request.id in self._running:
            raise EngineError(f"request id {request.id!r} is already running: give every request its own")
        run = _Answer(AnswerReader(request, self._client.host))
        task = self._running[request.id] = asyncio.create_task(self._generate(request, run))
        task.add_done_callback(run.end)
        try:
            while True:
                item = run.pieces.popleft() if run.pieces else await run.next()
                if isinstance(item, BaseException):
                    raise item
                yield item
                if item.finish is not None:
                    return
        finally:
            del self._running[request.id]
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def resume_point(self, request: GenerationRequest, written: AnswerPrefix, then: str = "") -> AnswerPrefix:
        """Where an answer that has ended can be continued; see `engines.openai.continuation`."""
        return await self._continuation.resume_point(request, written, then, self._owner, self._model or "")

    def capabilities(self) -> Capabilities:
        return Capabilities(
            context_tokens=self._context_tokens,
            charges="cap" if self._owner in CHARGES_CAP else "nothing",
            counts_tokens=self._tokenizer is not None or self._can_tokenize,
            forwards_unknown_fields=True,
            usual_concurrency=_USUAL_CONCURRENCY,
        )

    async def count_tokens(self, prompt: Prompt) -> TokenCount:
        """Tokens of a prompt: exact where the tokenizer is known and from servers with a /tokenize route (vLLM,
        SGLang), else estimated by characters."""
        if prompt.ids:
            return TokenCount(len(prompt.ids))
        if self._tokenizer is not None:
            return TokenCount(len(self._tokenizer.prompt_ids(prompt)))
        if self._can_tokenize:
            subject: dict[str, Any] = {"messages": [*prompt.messages]} if prompt.is_chat else {"prompt": prompt.raw}
            if prompt.tools:
                subject["tools"] = [*prompt.tools]
            url = f"{self._client.root}/tokenize"
            status, text = await self._client.ask("POST", url, {"model": self._model, **subject})
            count = json_object(text).get("count") if status == 200 else None
            if isinstance(count, int):
                return TokenCount(count)
            self._can_tokenize = status not in (200, 404, 405, 501)  # 200 without a count: another route of that name
        return TokenCount(estimate_prompt_tokens(prompt), exact=False)

    async def health(self) -> Health:
        """Whether the server answers: on /health where there is one, else on /v1/models. Never raises."""
        status, text = 0, ""
        for url in (f"{self._client.root}/health", f"{self._client.api}/models"):
            try:
                status, text = await self._client.ask("GET", url)
            except EngineError as error:
                return Health(False, str(error))
            if status == 200:
                return Health(True)
            if status not in (401, 403, 404, 405):
                break
        return Health(False, str(self._client.refusal(status, text)))

    async def _find_model(self) -> None:
        status, text = await self._client.ask("GET", f"{self._client.api}/models")
        if status != 200 and self._model is None:
            refusal = self._client.refusal(status, text)
            if status in (401, 403):  # nor would it answer anything else
                raise refusal
            raise EngineError(f"{refusal}; it does not list its models, so name the one to use")
        listed = json_object(text).get("data") if status == 200 else None
        models = [entry for entry in listed or () if isinstance(entry, dict) and entry.get("id")]
        self.listed_models = tuple(str(entry["id"]) for entry in models)
        if self._model is None:
            if not models:
                where = self._client.host
                raise ModelError(f"{where}: the server has no model: load one there, or name the one to use")
            self._model = str(models[0]["id"])
        for entry in models:
            if entry["id"] == self._model:
                self._context_tokens = next((entry[k] for k in _CONTEXT_KEYS if isinstance(entry.get(k), int)), None)
                self._owner = str(entry.get("owned_by") or "").lower()
        vllm, suffice = self._owner == "vllm", self._owner == "suffice"
        self._dialect = replace(self._dialect, token_ids=vllm, on_runaway=suffice)

    async def _generate(self, request: GenerationRequest, run: _Answer) -> None:
        """Reads one answer from the server into `run`, apart from the caller's pace.

        A task of its own, because aiohttp drops what it has buffered when a connection breaks: a reader must be
        waiting at the socket for every piece, or a caller who takes a moment over one would lose those behind it.
        """
        try:
            async with await self._open(request) as response:
                await self._read(response, run)
        except NETWORK_ERRORS as error:
            if not run.reader.complete:
                reason = self._client.explain(error, run.reader.after())
                raise EngineError(reason, where=self._client.host) from error
        except EngineError as error:
            raise error.in_words(self._client.without_key(error.message)) from None
        run.pass_on(run.reader.last())

    async def _open(self, request: GenerationRequest) -> ClientResponse:
        """Sends the request, once more for each thing that the server turns out not to know, and remembers those."""
        route = "chat/completions" if is_chat(request) else "completions"
        dialect = self._dialect
        while True:
            body = dialect.body(request, self._model)
            response = await self._client.post_stream(f"{self._client.api}/{route}", body, request)
            if response.status == 200:
                self._dialect = dialect
                return response
            async with response:
                text = await read_body(response)
            adapted = dialect.without_what_is_refused(response.status, text)
            if adapted == dialect:
                raise self._client.refusal(response.status, text, response)
            dialect = adapted

    async def _read(self, response: ClientResponse, run: _Answer) -> None:
        """Passes the pieces of an answer on until its end."""
        if response.content_type in ("application/json", "text/html"):
            run.read(await self._whole_answer(response))
            run.reader.done = True
            return
        parser = EventParser()
        async for block in response.content.iter_any():
            try:
                events = parser.feed(block)
            except ValueError as error:
                raise EngineError(f"{error}, {run.reader.after()}", where=self._client.host) from None
            for data in events:
                run.read(data)
            if run.reader.done:
                await drain(response)
                return
            if len(run.pieces) >= _READ_AHEAD:
                run.caught_up.clear()
                await run.caught_up.wait()
        if rest := parser.close():
            if rest.strip() != "[DONE]" and not json_object(rest):
                raise ClientPayloadError("the last event is not whole")
            run.read(rest)

    async def _whole_answer(self, response: ClientResponse) -> str:
        """The answer of a server that does not stream: JSON, in the same shape but for `message` instead of `delta`."""
        text = await read_body(response)
        if not json_object(text):
            raise EngineError(
                f"the server answers with {response.content_type} instead of a stream of events: "
                f"{error_message(text)}; is this the address of its API?",
                where=f"{self._client.host} ({self._client.api})",
            )
        return text


@dataclass(slots=True)
class _Answer:
    """One answer on its way from the task that reads the server to the iterator that the caller holds."""

    reader: AnswerReader
    pieces: deque[Chunk | BaseException] = field(default_factory=deque)
    news: asyncio.Future[None] | None = None
    """What the caller waits for: the next piece."""
    caught_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the caller has taken every piece and wants more."""

    async def next(self) -> Chunk | BaseException:
        self.caught_up.set()
        while not self.pieces:
            self.news = asyncio.get_running_loop().create_future()
            await self.news
        return self.pieces.popleft()

    def read(self, data: str) -> None:
        if (chunk := self.reader.read(data)) is not None:
            self.pass_on(chunk)

    def end(self, task: asyncio.Task[None]) -> None:
        """Passes on what ended the task, where that was not the answer's end; it may never have taken a step."""
        if task.cancelled():
            self.pass_on(self.reader.last(Finish("cancelled")))
        elif (error := task.exception()) is not None:
            self.pass_on(error)

    def pass_on(self, piece: Chunk | BaseException) -> None:
        self.pieces.append(piece)
        if self.news is not None and not self.news.done():
            self.news.set_result(None)
