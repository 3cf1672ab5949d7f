"""What a server is to be started with, from the model, the GPUs and what the caller asks for. Starts nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from suffice.engines.managed.model_files import ModelFiles
from suffice.errors import EngineError, UsageError
from suffice.memory.cards import Card, KnownModel
from suffice.memory.device import human_bytes
from suffice.memory.gpus import VisibleGpu
from suffice.memory.inference import Serving, ServingMemory
from suffice.memory.kv import KvLayout
from suffice.memory.parameters import stored_weight_bits
from suffice.memory.plan import ServingQuestion, make_plan

__all__ = ["LaunchPlan", "plan_launch"]

_USUAL_SHARE = 0.9  # of a GPU's memory: vLLM's default
_LEFT_FREE = 2**30  # bytes of what is free that are not claimed: the server's own CUDA context comes first
_SLACK = 0.9  # of the room for keys and values: a forecast may be off, and a start that fails costs minutes
_CONTEXT_STEP = 256
_LEAST_CONTEXT = 1024  # tokens that must fit for a start to be worth it


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """What the server is started with. None leaves a value to the server."""

    on_cpu: bool = False
    gpus: tuple[VisibleGpu, ...] = ()
    """Those it gets, where they are known."""
    tensor_parallel_size: int = 1
    context_tokens: int | None = None
    """The longest prompt + answer, where that is not the model's own."""
    memory_share: float | None = None
    """Of each GPU's memory, for all that the server takes."""
    static_share: float | None = None
    """Of what is free on each GPU now, for weights and KV cache alone."""
    kv_tokens: int | None = None
    kv_bytes: int | None = None
    """Of KV cache on each GPU, for `kv_tokens`."""
    arithmetic: str = ""
    """How the memory is divided, for messages."""
    advice: str = ""
    """What would fit, where something does not."""

    @property
    def summary(self) -> str:
        """For a person, in a line: `context 8,192, 0.9 of RTX 4090: weights 14.2 GiB + ...`."""
        context = f"context {self.context_tokens:,}" if self.context_tokens else "the model's own context"
        cards = f"{len(self.gpus)} x {self.gpus[0].name}" if len(self.gpus) > 1 else ""
        cards = cards or (self.gpus[0].name if self.gpus else "the CPU" if self.on_cpu else "what it finds")
        share = f"{self.memory_share:g} of " if self.memory_share is not None else ""
        return f"{context}, on {share}{cards}" + (f": {self.arithmetic}" if self.arithmetic else "")


def plan_launch(
    files: ModelFiles,
    gpus: Sequence[VisibleGpu],
    *,
    on_cpu: bool = False,
    tensor_parallel_size: int = 1,
    memory_utilization: float | None = None,
    kv_tokens: int | None = None,
    context_tokens: int | None = None,
) -> LaunchPlan:
    """Plan a start.

    Args:
        files: the model's.
        gpus: that may be used, the first ones first; none where it is not known what there is.
        on_cpu: no GPU is to be used.
        tensor_parallel_size: GPUs that share the model.
        memory_utilization: share of each GPU's memory (0-1]; None for what is free, 0.9 of all at most.
        kv_tokens: tokens of KV cache; None for what fits.
        context_tokens: the longest prompt + answer; None for the model's own, as far as that fits.

    Raises:
        UsageError: fewer GPUs are there than are asked for, or less memory is free.
        EngineError: the model does not fit, with the arithmetic and what would.
    """
    sizes = _Sizes.of(files, tensor_parallel_size)
    kv_bytes = math.ceil(kv_tokens * sizes.token_bytes) if kv_tokens and sizes.token_bytes else None
    plan = LaunchPlan(
        on_cpu=on_cpu,
        tensor_parallel_size=tensor_parallel_size,
        context_tokens=context_tokens,
        memory_share=memory_utilization,
        kv_tokens=kv_tokens,
        kv_bytes=kv_bytes,
    )
    if on_cpu or not gpus:
        return plan
    if len(gpus) < tensor_parallel_size:
        count = "1 GPU is" if len(gpus) == 1 else f"{len(gpus)} GPUs are"
        raise UsageError(f"tensor_parallel_size is {tensor_parallel_size}, and {count} here: give {len(gpus)} at most")
    taken = tuple(gpus[:tensor_parallel_size])
    total, free = min(each.total for each in taken), min(each.free for each in taken)
    share = _share(total, free, memory_utilization)
    plan = replace(plan, gpus=taken, memory_share=share)
    memory = _memory(files.config, total * len(taken), share, sizes.serving)
    if memory is None or not sizes.token_bytes:
        return plan
    plan = _fitted(plan, files, sizes, memory)
    static = (share * total - (memory.activations + memory.overhead) / len(taken)) / free
    return replace(plan, static_share=round(static, 3) if memory_utilization is not None and 0 < static < 1 else None)


def _fitted(plan: LaunchPlan, files: ModelFiles, sizes: _Sizes, memory: ServingMemory) -> LaunchPlan:
    """The plan with a context that fits into what weights and activations leave, and the arithmetic."""
    count = len(plan.gpus)
    room = memory.kv_room if plan.kv_bytes is None else min(memory.kv_room, plan.kv_bytes * count)
    fits = int(max(0, room) * _SLACK / (sizes.token_bytes * count))
    wanted = plan.context_tokens or files.context_tokens or fits
    parts = " + ".join(f"{name} {human_bytes(size)}" for name, size in memory.parts() if size)
    arithmetic = f"{parts}, of {human_bytes(memory.device)}: {human_bytes(max(0, room))} for keys and values"
    advice = _advice(files, plan, sizes.serving, min(wanted, _LEAST_CONTEXT))
    if memory.kv_room <= 0 or (fits < min(wanted, _LEAST_CONTEXT) and plan.kv_tokens is None):
        raise EngineError(f"{files.source.name} does not fit: {arithmetic}{advice}")
    context = plan.context_tokens if fits >= wanted else max(_CONTEXT_STEP, fits // _CONTEXT_STEP * _CONTEXT_STEP)
    return replace(plan, context_tokens=context, arithmetic=arithmetic, advice=advice)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What the model's configuration says of memory."""

    serving: Serving
    token_bytes: float
    """KV cache of one token on each GPU; 0 where it cannot be computed."""

    @classmethod
    def of(cls, files: ModelFiles, tensor_parallel_size: int) -> _Sizes:
        serving = Serving(weight_bits=stored_weight_bits(files.config))
        try:
            layout = KvLayout.from_config(files.config)
        except (UsageError, KeyError, TypeError):
            return cls(serving, 0.0)
        return cls(serving, layout.bytes_per_token(serving.kv_value_bytes) / tensor_parallel_size)


def _share(total: int, free: int, asked: float | None) -> float:
    """Of all of a GPU's memory, as servers count it."""
    if asked is None:
        share = min(_USUAL_SHARE, math.floor((free - _LEFT_FREE) / total * 100) / 100)
        if share <= 0:
            raise EngineError(
                f"{human_bytes(free)} of {human_bytes(total)} are free on the GPU: stop what holds the rest"
            )
        return share
    if asked * total > free:
        could = max(0.0, math.floor((free - _LEFT_FREE) / total * 100) / 100)
        raise UsageError(
            f"memory_utilization is {asked:g}, which is {human_bytes(asked * total)} of {human_bytes(total)}, and "
            f"{human_bytes(free)} are free: give {could:g}, or stop what holds the rest"
        )
    return asked


def _memory(config: Mapping[str, Any], device_bytes: int, share: float, serving: Serving) -> ServingMemory | None:
    try:
        return ServingMemory.of(config, serving, device_bytes, utilization=share)
    except (UsageError, KeyError, TypeError):  # a family whose parameters are not counted: the server knows
        return None


def _advice(files: ModelFiles, plan: LaunchPlan, serving: Serving, tokens: int) -> str:
    """What `suffice plan` would change."""
    card = Card(plan.gpus[0].name, plan.gpus[0].total * len(plan.gpus))
    question = ServingQuestion(
        KnownModel(files.source.name, files.config),
        card,
        serving,
        utilization=plan.memory_share or _USUAL_SHARE,
        concurrency=1,
        max_length=tokens,
    )
    try:
        verdicts = make_plan(question).verdicts
    except (UsageError, KeyError, TypeError):
        return ""
    changes = next((each.changes for each in verdicts if each.changes), ())
    return f"; what would fit: {', or '.join(changes)}" if changes else ""
