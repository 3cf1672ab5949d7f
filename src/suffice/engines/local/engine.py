"""The local engine: transformers' continuous batching in this process, on CPU or one CUDA device."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suffice.checkpoints.load_model import LoadedModel, load_model
from suffice.checkpoints.model_source import resolve_model
from suffice.engines.base import AnswerPrefix, Capabilities, Chunk, Finish, GenerationRequest, Health, TokenCount
from suffice.engines.local.logprobs import LogprobRecorder
from suffice.engines.local.model_text import ModelTokenizer
from suffice.engines.local.sampling import SamplingParams
from suffice.engines.local.token_stream import AnswerStream
from suffice.errors import EngineError, ModelError, PromptTooLongError, UsageError, first_line
from suffice.memory import MemoryMeter, human_bytes, is_memory_error
from suffice.prompt import Prompt
from suffice.watch.streaming_text import IncrementalDecoder

if TYPE_CHECKING:
    from suffice.engines.local.batching import Manager
    from suffice.engines.local.plain_generate import PlainGenerator
    from suffice.engines.local.start_up import Started

__all__ = ["FIRST_UNKNOWN_TRANSFORMERS", "OLDEST_TRANSFORMERS", "LocalEngine"]

OLDEST_TRANSFORMERS, FIRST_UNKNOWN_TRANSFORMERS = "5.20", "5.25"
"""The versions whose continuous batching is known here: from the first on, and before the second."""

_LOG = logging.getLogger(__name__)


class LocalEngine:
    """Runs a model in this process. Requests with different limits and sampling share one batch.

    A seed makes an answer repeatable on the same machine, whatever else runs beside it, up to rounding: logits differ
    in the last bits with the number of requests in a step, which can flip a near-tie.

    `Usage.answer_tokens` and `Chunk.token_ids` count the end token, as `max_new_tokens` does; the text never shows it.

    Args:
        model: a folder, a hub id, a short id, a model that is loaded already, or None for the adapters' base model or
            the bundled model.
        adapters: LoRA folders, merged when the model is loaded.
        hub: `hf` or `modelscope`.
        dtype: `auto`, `bf16`, `fp16` or `fp32`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        trust_remote_code: run Python code that comes with the model.
        kv_tokens: size of the KV cache in tokens; None takes it from the memory that is free.
        memory_utilization: the share (above 0, at most 1) of the device's memory that other programs leave, which
            weights and cache may take; None takes 80 % of what is free beside the weights, on the CPU 25 %.
        max_batch_tokens: most tokens in one step, which is also how much of a long prompt is read at once.
        concurrency: requests at once that the cache is to have room for at full context, where memory allows; None
            stands for 32.
        cache_for_work: make the cache with the first request, and no larger than it can use, or than `expect` has said.
        notify: told in one line what the engine has decided, or could not do; the log gets it when None.
        ignore_end_tokens: generate `max_new_tokens` whatever the model says, for measurements.

    Raises:
        ModelError: the model cannot be found (at once) or loaded (on entering).
    """

    def __init__(
        self,
        model: str | Path | LoadedModel | None = None,
        *,
        adapters: Sequence[str | Path] = (),
        hub: str = "hf",
        dtype: str = "auto",
        device: str = "auto",
        trust_remote_code: bool = False,
        kv_tokens: int | None = None,
        memory_utilization: float | None = None,
        max_batch_tokens: int | None = None,
        concurrency: int | None = None,
        cache_for_work: bool = False,
        notify: Callable[[str], None] | None = None,
        ignore_end_tokens: bool = False,
    ) -> None:
        self._load: Callable[[], LoadedModel]
        if isinstance(model, LoadedModel):
            self._source, self._load = model.source, lambda: model
        else:
            self._source = resolve_model(model, adapters=adapters, hub=hub)
            self._load = partial(
                load_model, self._source, hub=hub, dtype=dtype, device=device, trust_remote_code=trust_remote_code
            )
        self._wish: dict[str, Any] = {
            "kv_tokens": kv_tokens,
            "utilization": memory_utilization,
            "step_tokens": max_batch_tokens,
        }
        self._work: tuple[int, int] | None = None  # requests at once, and tokens of the longest
        self._concurrency, self._cache_for_work, self._notify = concurrency, cache_for_work, notify or _LOG.info
        self._ignore_end_tokens = ignore_end_tokens
        self._tokenizer: ModelTokenizer | None = None  # set while the engine is entered
        self._started: Started | PlainStarted | None = None
        self._streams: dict[str, AnswerStream] = {}
        self._numbers = count()
        self._failure: str | None = None

    @property
    def model_name(self) -> str:
        return self._source.name

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer of transformers."""
        return self._ready().tokenizer

    @property
    def decode_token(self) -> Callable[[int], str]:
        return self._ready().decode_token

    async def __aenter__(self) -> LocalEngine:
        self._loop = asyncio.get_running_loop()
        self._starting, self._left = asyncio.Lock(), asyncio.Event()
        self._tokenizer = ModelTokenizer(await asyncio.to_thread(self._load_model))
        gc.freeze()  # a million objects of torch and transformers, which transformers' own collections would walk
        try:
            if not self._cache_for_work:
                self._started = await asyncio.to_thread(self._start)
        except BaseException:
            self._tokenizer = None
            gc.unfreeze()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        for stream in self._streams.values():
            stream.end(Finish("cancelled", what="the engine was closed"))
        started, self._started, self._tokenizer = self._started, None, None
        if started is not None:
            await asyncio.to_thread(started.close)
        gc.unfreeze()

    def expect(self, *, requests: int, tokens: int) -> None:
        """Say what will be asked, before the first request: with `cache_for_work`, the cache is made for it.

        Args:
            requests: at once.
            tokens: of the longest of them, prompt and answer.
        """
        self._work = requests, tokens

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        """Generate one answer.

        Raises:
            PromptTooLongError: the prompt leaves no room in the context or in the KV cache.
            UsageError: a request with this id is running, or it asks for something that makes no sense.
            EngineError: generation failed.
        """
        tokenizer = self._ready()
        if any(stream.request.id == request.id for stream in self._streams.values()):
            raise UsageError(f"a request with the id {request.id!r} is already running: give each its own id")
        prompt = list(tokenizer.prompt_ids(request.prompt))
        after = list(request.prefix.token_ids) if request.prefix is not None else []
        manager = await self._manager_for(len(prompt) + len(after) + max(1, request.max_new_tokens))
        limit, at_limit = self._room(request, len(prompt) + len(after))
        sampling = SamplingParams.of(request.sampling, tokenizer.generation)
        end_tokens = {} if self._ignore_end_tokens else tokenizer.end_tokens(request.stop_tokens)
        decoder = IncrementalDecoder(tokenizer.decode, after)
        recorder = None
        if request.logprobs is not None:
            recorder = LogprobRecorder(len(prompt), request.logprobs, tokenizer.token_bytes)
        stream = AnswerStream(request, decoder, len(prompt), end_tokens, at_limit, recorder)
        thinking = not after and tokenizer.opens_thinking(prompt)
        key = str(next(self._numbers))
        self._streams[key] = stream
        try:
            accepted = manager.submit(
                prompt + after,
                key,
                max_new_tokens=limit,
                reservation=request.reservation or limit,
                end_ids=[*end_tokens],
                sampling=sampling,
                recorder=recorder,
            )
            if not accepted:
                raise EngineError(f"generation has stopped: {self._failure or 'the engine is closing'}")
            while True:
                chunk = await stream.next()
                yield replace(chunk, thinking=True) if thinking else chunk
                thinking = False
                if chunk.finish is not None:
                    return
        finally:
            self._streams.pop(key, None)
            self._left.set()
            if stream.running:
                stream.running = False
                manager.cancel_request(key)

    async def resume_point(self, request: GenerationRequest, written: AnswerPrefix, then: str = "") -> AnswerPrefix:
        tokenizer = self._ready()
        ids = written.token_ids or tokenizer.text_ids(written.text)
        while ids and IncrementalDecoder.is_unfinished(tokenizer.decode(ids)):
            ids = ids[:-1]
        return AnswerPrefix(written.text + then, (*ids, *tokenizer.text_ids(then)))

    def capabilities(self) -> Capabilities:
        tokenizer = self._ready()
        return Capabilities(
            context_tokens=tokenizer.context_tokens,
            kv_tokens=None if self._manager is None else self._manager.kv_tokens,
            default_max_new_tokens=tokenizer.default_max_new_tokens,
            charges="reservation",
            calls_in_text=True,
            ignores_end_tokens=self._ignore_end_tokens,
        )

    def reserved_tokens(self) -> int:
        return self._manager.reserved_tokens() if self._manager is not None else 0

    def memory_meter(self) -> MemoryMeter:
        """Measures the device that the model is on, and the KV cache."""
        device = str(self._ready().model.device)
        return MemoryMeter(
            device,
            lambda: None if self._manager is None else self._manager.kv_bytes,
            kv_may_fill=lambda: self._started is not None and self._started.for_work,
        )

    async def count_tokens(self, prompt: Prompt) -> TokenCount:
        return TokenCount(len(self._ready().prompt_ids(prompt)))

    async def health(self) -> Health:
        """Not ok before loading, and after a failure until a request succeeds."""
        if self._tokenizer is None:
            return Health(False, "the model is not loaded")
        return Health(self._failure is None, self._failure or "")

    def _ready(self) -> ModelTokenizer:
        if self._tokenizer is None:
            raise EngineError("the engine is not started: use `async with engine:`")
        return self._tokenizer

    def _room(self, request: GenerationRequest, prompt_tokens: int) -> tuple[int, Finish]:
        """The most tokens the answer may have, and its finish when it has them.

        Whose limit `max_new_tokens` is, is not known here. A budget has been clipped to the context already; the KV
        cache is known here alone, and requests without a budget may ask for anything.
        """
        if request.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens is {request.max_new_tokens}: it must be at least 1")
        limit, at_limit = request.max_new_tokens, Finish("length")
        longest = None if self._manager is None else self._manager.longest_request
        for total, name in ((self._ready().context_tokens, "context"), (longest, "memory")):
            if total is None:
                continue
            if prompt_tokens >= total:
                raise PromptTooLongError(prompt_tokens, total, self._words(name))
            if total - prompt_tokens < limit:
                limit, at_limit = total - prompt_tokens, Finish("length", name, str(total))
        return limit, at_limit

    def _words(self, limit: str) -> str:
        if limit == "context" or self._manager is None or self._manager.kv_bytes is None:
            return "the model's context"
        per_token, (_, total) = self._manager.kv_bytes_per_token, self._manager.kv_bytes
        return f"the room in the KV cache ({human_bytes(total)} at {per_token:,} bytes a token)"

    def _load_model(self) -> LoadedModel:
        try:
            return self._load()
        except ModelError as error:
            if error.__cause__ is None or not is_memory_error(error.__cause__):
                raise
            reason, files = first_line(error.__cause__), Path(self._source.location).glob("*.safetensors")
            size = sum(each.stat().st_size for each in files) if self._source.local else 0
            takes = f"they take {human_bytes(size)} on disk; " if size else ""
            raise ModelError(
                f"no memory for the weights of {self.model_name} ({reason}): {takes}free memory there, or take a "
                f"smaller or a quantised model, or --device cpu; `suffice plan --model {self._source.location}` says "
                "what fits"
            ) from error.__cause__

    @property
    def _manager(self) -> Manager | PlainGenerator | None:
        return None if self._started is None else self._started.manager

    async def _manager_for(self, needed: int) -> Manager | PlainGenerator:
        """The manager, made when the first request comes, again after a failure, and again for a request of more tokens
        than the cache for the expected work holds, as soon as none is running."""
        needed = min(needed, self._ready().context_tokens)
        async with self._starting:
            if self._work is None and self._cache_for_work:
                self._work = 1, needed
            if self._started is not None and self._work is not None and self._started.is_outgrown(needed):
                while self._streams:
                    self._left.clear()
                    await self._left.wait()
                self._work = self._work[0], max(self._work[1], needed)
                await asyncio.to_thread(self._close)
            if self._started is None:
                self._started = await asyncio.to_thread(self._start)
            return self._started.manager

    def _start(self) -> Started | PlainStarted:
        """Continuous batching, or plain `generate` where this version of transformers or this model does not have it.

        Raises:
            EngineError: no memory.
        """
        receive = partial(self._tell, self._receive)
        if (why := unknown_transformers()) is None:
            from suffice.engines.local.cache_size import CacheWish
            from suffice.engines.local.start_up import start_manager

            requests, tokens = self._work or (self._concurrency, None)
            wish = CacheWish(**self._wish, requests=requests, tokens=tokens)
            model, context, give_up = (
                self._ready().model,
                self._ready().context_tokens,
                partial(self._tell, self._give_up),
            )
            try:
                started = start_manager(model, context, wish, receive, give_up)
            except EngineError:
                raise
            except Exception as error:  # whatever transformers says of a model that it cannot batch
                why = f"transformers cannot batch this model continuously ({first_line(error)})"
            else:
                for line in started.notices:
                    self._notify(line)
                return started
        self._notify(f"notice: {why}, so {self.model_name} answers in batches of plain `generate`, which is slower")
        from suffice.engines.local.plain_generate import PlainGenerator

        return PlainStarted(PlainGenerator(self._ready().model, receive))

    def _close(self) -> None:
        started, self._started = self._started, None
        if started is not None:
            started.close()

    def _tell(self, function: Callable[..., None], news: object) -> None:
        """From the generation thread to the event loop."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, news)

    def _receive(self, outputs: list[Any]) -> None:
        for output in outputs:
            stream = self._streams.get(output.request_id)
            if stream is None:
                continue
            stream.receive(output)
            if not stream.running and output.error is None:
                self._failure = None

    def _give_up(self, error: Exception) -> None:
        """The generation thread has died: running answers fail, and the next request gets a new thread."""
        self._failure = f"{type(error).__name__}: {error}"
        for stream in self._streams.values():
            stream.end(self._failure)
        self._close()


@dataclass(frozen=True, slots=True)
class PlainStarted:
    """The same as `start_up.Started`, for plain `generate`."""

    manager: PlainGenerator
    for_work: bool = False

    def is_outgrown(self, needed: int) -> bool:
        return False

    def close(self) -> None:
        self.manager.close()


def unknown_transformers() -> str | None:
    """What is wrong with the version of transformers, whose continuous batching is extended on the inside; None where
    it is one that has been tried."""
    installed = version("transformers")
    if _numbers(OLDEST_TRANSFORMERS) <= _numbers(installed) < _numbers(FIRST_UNKNOWN_TRANSFORMERS):
        return None
    tried = f">={OLDEST_TRANSFORMERS},<{FIRST_UNKNOWN_TRANSFORMERS}"
    return f"transformers {installed} is installed, and continuous batching has been tried with {tried}"


def _numbers(text: str) -> tuple[int, ...]:
    """Major and minor version."""
    return tuple(map(int, text.split(".")[:2]))
