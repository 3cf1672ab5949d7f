"""The local engine: transformers' continuous batching in this process, on CPU or one CUDA device."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suffice.checkpoints.load_model import load_model
from suffice.checkpoints.model_source import resolve_model
from suffice.engines.base import AnswerPrefix, Capabilities, Chunk, Finish, GenerationRequest, Health, TokenCount
from suffice.engines.local.logprobs import LogprobRecorder
from suffice.engines.local.model_text import ModelTokenizer
from suffice.engines.local.sampling import SamplingParams
from suffice.engines.local.token_stream import AnswerStream
from suffice.errors import EngineError, ModelError, PromptTooLongError, UsageError
from suffice.memory import MemoryMeter, human_bytes, is_memory_error
from suffice.prompt import Prompt
from suffice.watch.streaming_text import IncrementalDecoder

if TYPE_CHECKING:
    from suffice.engines.local.batching import Manager

__all__ = ["FIRST_UNKNOWN_TRANSFORMERS", "OLDEST_TRANSFORMERS", "LocalEngine"]

OLDEST_TRANSFORMERS, FIRST_UNKNOWN_TRANSFORMERS = "5.20", "5.25"
"""The versions whose continuous batching is known here: from the first on, and before the second."""

_LEAST_KV_TOKENS = 256  # a smaller cache is of no use


class LocalEngine:
    """Runs a model in this process. Requests with different limits and sampling share one batch.

    A seed makes an answer repeatable on the same machine, whatever else runs beside it, up to rounding: logits differ
    in the last bits with the number of requests in a step, which can flip a near-tie.

    `Usage.answer_tokens` and `Chunk.token_ids` count the end token, as `max_new_tokens` does; the text never shows it.

    Args:
        model: a folder, a hub id, a short id, or None for the adapters' base model or the bundled model.
        adapters: LoRA folders, merged when the model is loaded.
        hub: `hf` or `modelscope`.
        dtype: `auto`, `bf16`, `fp16` or `fp32`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        trust_remote_code: run Python code that comes with the model.
        kv_tokens: size of the KV cache in tokens; None takes it from the memory that is free.
        max_batch_tokens: most tokens in one step, which is also how much of a long prompt is read at once.
        ignore_end_tokens: generate `max_new_tokens` whatever the model says, for measurements.

    Raises:
        UsageError: a version of transformers is installed that is too old or too new.
        ModelError: the model cannot be found (at once) or loaded (on entering).
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        adapters: Sequence[str | Path] = (),
        hub: str = "hf",
        dtype: str = "auto",
        device: str = "auto",
        trust_remote_code: bool = False,
        kv_tokens: int | None = None,
        max_batch_tokens: int | None = None,
        ignore_end_tokens: bool = False,
    ) -> None:
        _check_transformers()
        self._source = resolve_model(model, adapters=adapters, hub=hub)
        self._load = partial(
            load_model, self._source, hub=hub, dtype=dtype, device=device, trust_remote_code=trust_remote_code
        )
        self._kv_tokens, self._max_batch_tokens = kv_tokens, max_batch_tokens
        self._ignore_end_tokens = ignore_end_tokens
        self._tokenizer: ModelTokenizer | None = None  # set while the engine is entered
        self._manager: Manager | None = None
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
        self._starting = asyncio.Lock()
        self._tokenizer = ModelTokenizer(await asyncio.to_thread(self._load))
        self._manager = await asyncio.to_thread(self._new_manager)
        gc.freeze()  # a million objects of torch and transformers, which transformers' own collections would walk
        return self

    async def __aexit__(self, *error: object) -> None:
        for stream in self._streams.values():
            stream.end(Finish("cancelled", what="the engine was closed"))
        manager, self._manager, self._tokenizer = self._manager, None, None
        if manager is not None and manager.is_running():
            await asyncio.to_thread(manager.stop, hard_stop=True)
        gc.unfreeze()

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
        manager = await self._running_manager()
        prompt = list(tokenizer.prompt_ids(request.prompt))
        after = list(request.prefix.token_ids) if request.prefix is not None else []
        limit, at_limit = self._room(request, len(prompt) + len(after))
        sampling = SamplingParams.of(request.sampling, tokenizer.model.generation_config)
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
        return MemoryMeter(device, lambda: None if self._manager is None else self._manager.kv_bytes)

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
        if limit == "context" or self._manager is None:
            return "the model's context"
        per_token, (_, total) = self._manager.kv_bytes_per_token, self._manager.kv_bytes
        return f"the room in the KV cache ({human_bytes(total)} at {per_token:,} bytes a token)"

    async def _running_manager(self) -> Manager:
        """The manager, started when the first request comes, and made again after a failure."""
        async with self._starting:
            if self._manager is None:
                self._manager = await asyncio.to_thread(self._new_manager)
            if not self._manager.is_running():
                # A thread inherits being a daemon from the one that starts it, so a program that forgets to close the
                # engine can still end.
                starter = threading.Thread(target=self._manager.start, daemon=True)
                starter.start()
                starter.join()
            return self._manager

    def _new_manager(self) -> Manager:
        from suffice.engines.local.batching import Manager, cache_config
        from suffice.engines.local.fused_norms import fuse_norms

        model, context = self._ready().model, self._ready().context_tokens
        fuse_norms(model)
        kv_tokens = self._kv_tokens
        while True:
            config = cache_config(model, context, kv_tokens, self._max_batch_tokens)
            try:
                receive, give_up = partial(self._tell, self._receive), partial(self._tell, self._give_up)
                manager = Manager(model, config, receive, give_up, context)
                manager.warmup()
                return manager
            except (RuntimeError, ValueError, MemoryError) as error:
                if not is_memory_error(error):
                    raise ModelError(f"{self.model_name} cannot be run with continuous batching: {error}") from error
                kv_tokens = config.num_blocks * config.page_size // 2  # what was free has gone: half of it may be there
                if self._kv_tokens is not None or kv_tokens < _LEAST_KV_TOKENS:
                    raise EngineError(f"no memory for a KV cache ({error}): free some, or set kv_tokens") from error

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
        manager, self._manager = self._manager, None
        for stream in self._streams.values():
            stream.end(self._failure)
        if manager is not None:
            manager.stop(hard_stop=True)


def _check_transformers() -> None:
    """Continuous batching is extended on the inside, which changes between versions."""
    try:
        installed = version("transformers")
    except PackageNotFoundError:
        return  # importing it says so
    if not _numbers(OLDEST_TRANSFORMERS) <= _numbers(installed) < _numbers(FIRST_UNKNOWN_TRANSFORMERS):
        raise UsageError(
            f"transformers {installed} is installed, and the local engine needs >={OLDEST_TRANSFORMERS},"
            f"<{FIRST_UNKNOWN_TRANSFORMERS}: pip install 'suffice[local]'"
        )


def _numbers(text: str) -> tuple[int, ...]:
    """Major and minor version."""
    return tuple(map(int, text.split(".")[:2]))
