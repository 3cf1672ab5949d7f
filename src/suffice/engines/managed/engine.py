"""The managed engines: vLLM or SGLang as a child process, asked through the engine for OpenAI-compatible servers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from suffice.checkpoints.model_source import resolve_model
from suffice.engines.base import AnswerPrefix, Capabilities, Chunk, Finish, GenerationRequest, Health, TokenCount
from suffice.engines.managed.command_line import LaunchCommand, Wishes, launch_command, split_engine_args
from suffice.engines.managed.keeper import RunningServer, ServerKeeper
from suffice.engines.managed.launch_plan import LaunchPlan, plan_launch
from suffice.engines.managed.model_files import ModelFiles, named_adapters, read_model_files
from suffice.engines.managed.programs import PROGRAMS, find_program
from suffice.engines.openai.engine import RemoteEngine
from suffice.errors import EngineError, UsageError
from suffice.memory.gpus import VisibleGpu, visible_gpus
from suffice.prompt import Prompt

__all__ = ["ManagedEngine", "SglangEngine", "VllmEngine"]

_Result = TypeVar("_Result")
_LOG = logging.getLogger(__name__)
_USUAL_CONCURRENCY = 256  # requests: vLLM's `max_num_seqs`


class ManagedEngine:
    """Starts an installed server with what the memory plan says, and generates on it.

    The server listens on a free port of loopback, with a key of its own. It ends with this engine, and with this
    process, however that ends. A server that dies is started again, with growing pauses: requests that wait for their
    first piece wait for it, others fail.

    Args:
        model: a folder, a hub id, a short id, or None for the adapters' base model or the bundled model.
        adapters: LoRA folders. Each can be asked for by its name (`Capabilities.models`); the first answers requests
            that name no model.
        hub: `hf` or `modelscope`.
        dtype: `auto`, `bfloat16`, `float16` or `float32`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        trust_remote_code: run Python code that comes with the model.
        engine_python: the interpreter, or virtual environment, in which the server is installed; None for this one.
        engine_args: more flags of the server, as on a command line; they win over those of the plan.
        tensor_parallel_size: GPUs that share the model.
        memory_utilization: share of each GPU's memory for all that the server takes; None for what is free, 0.9 at
            most.
        kv_tokens: size of the KV cache in tokens; None for what fits.
        context_tokens: the longest prompt + answer; None for the model's own, as far as that fits.
        start_timeout: seconds without a line in the server's log after which a start has failed.
        read_timeout: seconds of silence allowed in an answer.
        tell: gets each step of a start, in words, perhaps from another thread; they are logged when None.

    Raises:
        UsageError: the server is not installed, or a setting cannot be used.
        ModelError: the model or an adapter cannot be found.
    """

    program: ClassVar[str]

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        adapters: Sequence[str | Path] = (),
        hub: str = "hf",
        dtype: str = "auto",
        device: str = "auto",
        trust_remote_code: bool = False,
        engine_python: str | None = None,
        engine_args: str = "",
        tensor_parallel_size: int = 1,
        memory_utilization: float | None = None,
        kv_tokens: int | None = None,
        context_tokens: int | None = None,
        start_timeout: float = 600.0,
        read_timeout: float = 600.0,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        found = find_program(self.program, engine_python)
        if found is None:
            raise UsageError(_not_installed(self.program, engine_python))
        self._installed = found
        self._hub, self._source = hub, resolve_model(model, adapters=adapters, hub=hub)
        self._adapters = named_adapters(self._source.adapters)
        self._wishes = Wishes(dtype=dtype, trust_remote_code=trust_remote_code, extra=split_engine_args(engine_args))
        self._on_cpu = device == "cpu" or found.for_cpu
        self._gpus = () if self._on_cpu else _gpus(device, tensor_parallel_size)
        self._tensor_parallel_size, self._memory_utilization = tensor_parallel_size, memory_utilization
        self._kv_tokens, self._context_tokens, self._read_timeout = kv_tokens, context_tokens, read_timeout
        self._tell = tell or self._log_step
        self._keeper = ServerKeeper(
            title=found.program.title,
            command=self._command,
            remote=self._remote,
            start_timeout=start_timeout,
            tell=self._tell,
            explain=self._explain,
        )
        self._files = ModelFiles(source=self._source, config={})
        self._plan = LaunchPlan()
        self._capabilities = Capabilities()
        self._lost: set[str] = set()

    @property
    def model_name(self) -> str:
        """The first adapter's name, where there is one: it answers requests that name no model."""
        return self._adapters[0].name if self._adapters else self._source.name

    @property
    def server(self) -> str:
        """The server and its version."""
        return f"{self._installed.program.title} {self._installed.version}"

    @property
    def decode_token(self) -> None:
        return None  # the server decodes

    async def __aenter__(self) -> Self:
        """Starts the server, and waits until it answers.

        Raises:
            UsageError: fewer GPUs, or less free memory, than were asked for.
            EngineError: it did not start, with the reason and the end of its log.
        """
        await asyncio.to_thread(self.prepare)
        for flag in self._command(0, "", None).overridden:
            self._tell(f"--engine-args takes the place of {flag}")
        self._tell(f"starting {self.server} with {self._source.name}")
        self._capabilities = self._capabilities_of(await self._keeper.open())
        return self

    def prepare(self) -> LaunchPlan:
        """Work out what the server would be started with; starts nothing. Raises as entering does, and `ModelError`."""
        self._files = read_model_files(self._source, self._hub)
        self._plan = plan_launch(
            self._files,
            self._gpus,
            on_cpu=self._on_cpu,
            tensor_parallel_size=self._tensor_parallel_size,
            memory_utilization=self._memory_utilization,
            kv_tokens=self._kv_tokens,
            context_tokens=self._context_tokens,
        )
        return self._plan

    async def __aexit__(self, *error: object) -> None:
        await self._keeper.close()

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        """Generate one answer.

        Raises:
            EngineError: it failed. Where the server died, `recovers` says that the request may be submitted again.
        """
        server = await self._keeper.running()
        last: tuple[int, ...] = ()
        try:
            async with aclosing(server.remote.submit(self._as_served(request))) as chunks:
                async for chunk in chunks:
                    last = chunk.token_ids[-1:] or last
                    yield chunk if chunk.finish is None else self._with_reason(chunk, chunk.finish, request, last)
        except EngineError as error:
            if (error.status or 500) < 500 or not await self._keeper.has_died(server):
                raise
            raise self._death(request, server) from error
        self._lost.discard(request.id)

    async def resume_point(self, request: GenerationRequest, written: AnswerPrefix, then: str = "") -> AnswerPrefix:
        return await self._ask(lambda remote: remote.resume_point(request, written, then))

    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def count_tokens(self, prompt: Prompt) -> TokenCount:
        return await self._ask(lambda remote: remote.count_tokens(prompt))

    async def health(self) -> Health:
        """Not ok while the server is being started again; requests wait for that."""
        if self._keeper.trouble:
            return Health(False, self._keeper.trouble, recovering=True)
        try:
            return await (await self._keeper.running()).remote.health()
        except EngineError as error:
            return Health(False, str(error))

    async def _ask(self, what: Callable[[RemoteEngine], Awaitable[_Result]]) -> _Result:
        """Ask what can be asked twice, and is when it fails: of the next run of the server, if this one dies."""
        server = await self._keeper.running()
        try:
            return await what(server.remote)
        except EngineError:
            await self._keeper.has_died(server)
            return await what((await self._keeper.running()).remote)

    def _command(self, port: int, key: str, context: int | None) -> LaunchCommand:
        plan = self._plan if context is None else replace(self._plan, context_tokens=context)
        return launch_command(self._installed, self._files, self._adapters, plan, self._wishes, port=port, key=key)

    def _remote(self, url: str, key: str) -> RemoteEngine:
        return RemoteEngine(url, model=self._source.name, api_key=key, read_timeout=self._read_timeout)

    def _capabilities_of(self, server: RunningServer) -> Capabilities:
        return replace(
            server.remote.capabilities(),
            kv_tokens=server.log.kv_tokens,
            default_max_new_tokens=self._files.max_new_tokens,
            calls_in_text=True,
            usual_concurrency=_USUAL_CONCURRENCY,
            models=(*(each.name for each in self._adapters), self._source.name) if self._adapters else (),
        )

    def _as_served(self, request: GenerationRequest) -> GenerationRequest:
        """The request as the engine of transformers would understand it: greedy where the model says so, special
        tokens as stop words, tool calls left in the text, and the adapter that it asks for."""
        extra, sampling = dict(request.extra), request.sampling
        if sampling.temperature is None and self._files.greedy:
            sampling = replace(sampling, temperature=0.0)
        special = self._files.special_tokens if request.stop_tokens else {}
        if ids := [number for number, text in special.items() if text in request.stop_tokens]:
            extra["stop_token_ids"] = [*extra.get("stop_token_ids", ()), *ids]
        if request.prompt.tools and self.program == "vllm" and extra.get("tool_choice") in (None, "auto"):
            extra["tool_choice"] = "none"  # it reads calls only with a parser for the model's family, and refuses else
        name = request.model or self.model_name
        if self.program == "sglang" and name != self._source.name:
            name = f"{self._source.name}:{name}"
        return replace(request, extra=extra, sampling=sampling, model=name)

    def _with_reason(self, chunk: Chunk, finish: Finish, request: GenerationRequest, last: tuple[int, ...]) -> Chunk:
        """The last chunk, with the text of the token that ended the answer: servers tell its number, or nothing."""
        if finish.by != "end_token":
            return chunk
        told = finish.what.isdecimal()
        token = int(finish.what) if told else last[0] if last else -1
        text = self._files.special_tokens.get(token, "")
        by = "stop_word" if told and text in request.stop_tokens and token not in self._files.end_ids else "end_token"
        return replace(chunk, finish=Finish("stop", by, text or finish.what))

    def _death(self, request: GenerationRequest, server: RunningServer) -> EngineError:
        """Once for each request: one that a server dies of twice may be what kills it."""
        title = self._installed.program.title
        error = EngineError(f"{title} ended ({server.process.ended.result()}) while it answered", status=502)
        error.recovers = error.may_retry = request.id not in self._lost
        if error.recovers:
            self._lost.add(request.id)
        else:
            self._lost.discard(request.id)
        return error

    def _explain(self) -> str:
        """The plan's arithmetic, for a server that found too little memory."""
        return f"; the plan was {self._plan.arithmetic}{self._plan.advice}" if self._plan.arithmetic else ""

    def _log_step(self, step: str) -> None:
        _LOG.info("%s: %s", self._installed.program.title, step)


class VllmEngine(ManagedEngine):
    """vLLM 0.10 or newer, started with what the memory plan says."""

    program = "vllm"


class SglangEngine(ManagedEngine):
    """SGLang 0.5 or newer, started with what the memory plan says."""

    program = "sglang"


def _gpus(device: str, count: int) -> tuple[VisibleGpu, ...]:
    """The GPUs that a device's name means, as far as they can be seen."""
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cuda") or (number and not number.isdecimal()):
        raise UsageError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:N")
    seen = visible_gpus()
    if not number:
        return seen
    if count > 1:
        raise UsageError(f"device {device} is one GPU, and tensor_parallel_size is {count}: leave one of them out")
    if seen and int(number) >= len(seen):
        raise UsageError(f"device {device!r} is not there: {len(seen)} GPUs can be seen")
    return seen[int(number) : int(number) + 1]


def _not_installed(name: str, python: str | None) -> str:
    program = PROGRAMS[name]
    where = f"where --engine-python points ({python})" if python else "in this environment"
    return f"{program.title} is not installed {where}: {program.install}"
