"""Parts in which a loaded model answers: speed, memory, continuation, and memory that runs out."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from continuation import Options, compare
from gpu_parts.devices import Device
from gpu_parts.model import prompts_of
from gpu_parts.results import PartResult
from gpu_parts.sizes import Inference, Size
from suffice.checkpoints.load_model import LoadedModel
from suffice.engines import Engine, GenerationRequest, Sampling
from suffice.engines.local.engine import LocalEngine
from suffice.errors import SufficeError, first_line
from suffice.memory import KvLayout, Serving, ServingMemory
from suffice.memory.cards import Card
from suffice.memory.latency import speed
from suffice.prompt import Prompt

__all__ = ["Run", "forecast_row", "measure_speed", "roofline", "speed_of_generate", "speed_of_transformers"]

_UNDER, _OVER = 0.10, 0.35  # by how much a forecast may be below and above what was measured
_WARM_UP = 4  # tokens


@dataclass(frozen=True, slots=True)
class Answered:
    tokens: int
    first: float
    """Seconds to the first token."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """What the parts of one process share."""

    size: Size
    device: Device
    loaded: LoadedModel
    before: int
    """Bytes at the peak before the model was loaded."""

    @property
    def bits(self) -> int:
        return 32 if self.device.name == "cpu" else 16


async def _answer(engine: Engine, name: str, ids: tuple[int, ...], tokens: int) -> Answered:
    sampling, extra = Sampling(temperature=0, repetition_penalty=1.0), {"ignore_eos": True}
    request = GenerationRequest(name, Prompt(ids=ids), tokens, sampling=sampling, extra=extra)
    began, first, count = time.perf_counter(), None, 0
    try:
        async for chunk in engine.submit(request):
            first = first or time.perf_counter() - began
            count = chunk.usage.answer_tokens if chunk.usage is not None else count + chunk.tokens
    except SufficeError as error:
        return Answered(count, first or 0.0, first_line(error))
    return Answered(count, first or 0.0)


async def _answer_all(engine: Engine, asked: Inference, seed: int) -> list[Answered]:
    prompts = prompts_of(asked, seed)
    return await asyncio.gather(*(_answer(engine, f"{seed}-{n}", ids, asked.answer) for n, ids in enumerate(prompts)))


# --- speed


async def measure_speed(engine: Engine, name: str, cases: Sequence[Inference]) -> list[dict[str, Any]]:
    """Tokens per second, and the median time to the first token, of every case after a short one that warms up."""
    rows = []
    for number, asked in enumerate(cases):
        await _answer_all(engine, Inference(asked.requests, asked.prompt, _WARM_UP), 100 + number)
        began = time.perf_counter()
        answers = await _answer_all(engine, asked, number)
        took = time.perf_counter() - began
        if errors := [each.error for each in answers if each.error]:
            raise RuntimeError(f"{len(errors)} of {asked.requests} requests failed: {errors[0]}")
        made = sum(each.tokens for each in answers)
        first = statistics.median(each.first for each in answers)
        rows.append({"engine": name, **asdict(asked), "tokens_per_s": made / took, "first_token_s": first})
    return rows


async def speed_of_transformers(run: Run) -> PartResult:
    """The engine of this process."""
    async with LocalEngine(run.loaded, ignore_end_tokens=True) as engine:
        return PartResult("speed", await measure_speed(engine, "transformers", run.size.speed))


async def speed_of_generate(run: Run) -> PartResult:
    """Plain `generate` on the same model, and what the device would allow."""
    result = PartResult("generate")
    card = run.device.card()
    for number, asked in enumerate(run.size.speed):
        _generate(run, asked, _WARM_UP, 200 + number)
        took = _generate(run, asked, asked.answer, 300 + number)
        at_best = roofline(run.size.shape, asked, run.bits, card)
        made = asked.requests * asked.answer
        row = {"engine": "generate", **asdict(asked), "tokens_per_s": made / took, "roofline_tokens_per_s": at_best}
        result.rows.append(row | {"card": card.name})
    return result


def _generate(run: Run, asked: Inference, tokens: int, seed: int) -> float:
    """Seconds of one batch, which end tokens do not end."""
    import torch

    ids = torch.tensor(prompts_of(asked, seed), device=run.device.name)
    fixed = {"min_new_tokens": tokens, "max_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
    began = time.perf_counter()
    out = run.loaded.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **fixed)
    run.device.wait()
    took = time.perf_counter() - began
    assert out.shape[1] == asked.prompt + tokens, "generate ended early"
    return took


def roofline(shape: Any, asked: Inference, bits: int, card: Card) -> float | None:
    """Tokens per second of decoding at best."""
    serving = Serving(weight_bits=bits, kv_bits=bits)
    lengths = {"prompt_tokens": asked.prompt, "answer_tokens": asked.answer}
    best = speed({"model_type": "qwen2", **shape}, serving, card, **lengths, concurrency=asked.requests)
    return None if best is None else asked.requests / best.per_token


# --- memory


def forecast_row(result: PartResult, run: Run, what: dict[str, Any], forecast: int, measured: int) -> None:
    """Add a forecast beside what was measured, and check it."""
    slack = run.size.memory_slack
    result.rows.append({**what, "forecast_bytes": forecast, "measured_bytes": measured})
    within = measured * (1 - _UNDER) - slack <= forecast <= measured * (1 + _OVER) + slack
    off = f"{forecast / measured - 1:+.1%}" if measured > 0 else "nothing was measured"
    result.check(f"forecast of {what}", within, off)


async def memory_of_inference(run: Run) -> PartResult:
    """The forecast against the peak, at every setting."""
    result = PartResult("memory")
    for number, asked in enumerate(run.size.memory):
        run.device.reset_peak()
        kv_tokens = asked.requests * (asked.prompt + asked.answer)
        async with LocalEngine(run.loaded, kv_tokens=kv_tokens, ignore_end_tokens=True) as engine:
            answers = await _answer_all(engine, asked, 400 + number)
            size = engine._started.size  # type: ignore[union-attr]
        result.check(f"{asked} answered", not any(each.error for each in answers), answers[0].error)
        measured = run.device.peak() - run.before
        forecast_row(result, run, asdict(asked), _forecast(run, asked, size), measured)
    return result


def _forecast(run: Run, asked: Inference, size: Any) -> int:
    """Bytes at the peak, of what `Device.peak` sees."""
    largest = run.device.runs_largest_step
    serving = Serving(
        weight_bits=run.bits,
        kv_bits=run.bits,
        page_size=size.page_size,
        step_tokens=size.step_tokens if largest else min(size.step_tokens, asked.requests * asked.prompt),
        step_requests=size.step_requests if largest else asked.requests,
        device=run.device.name,
        read_tokens=asked.prompt,
    )
    config = {"model_type": "qwen2", **run.size.shape}
    memory = ServingMemory.of(config, serving, device_bytes=0)
    kv = KvLayout.from_config(config).paged_bytes(size.kv_tokens, size.page_size, run.bits // 8)
    return memory.weights + memory.activations + memory.overhead + kv - run.device.runtime


# --- continuation, and memory that runs out


async def continued_answers(run: Run) -> PartResult:
    """Answers that were continued, against the same at once, byte by byte."""
    result, size = PartResult("continuation"), run.size
    prompts = [f"{number}: say something about the number {number}." for number in range(size.answers)]
    options = Options(max_new_tokens=max(each.answer for each in size.speed) // 2 + 32, concurrency=1)
    async with LocalEngine(run.loaded, ignore_end_tokens=True) as engine:
        pairs = await compare(engine, prompts, 16, options)
    same = sum(pair.same for pair in pairs)
    longer = sum(pair.whole.usage.answer_tokens > 16 for pair in pairs)
    result.rows.append({"answers": len(pairs), "longer_than_16_tokens": longer, "identical": same})
    result.check("continued answers are byte-identical", same == len(pairs), f"{same} of {len(pairs)}")
    result.check("answers went on beyond their reservation", longer > 0, f"{longer} of {len(pairs)}")
    return result


async def recovery(run: Run) -> PartResult:
    """Memory is eaten while requests run: each is answered, or fails in one line, and the engine goes on."""
    result, asked = PartResult("recovery"), run.size.recovering
    async with LocalEngine(run.loaded, ignore_end_tokens=True) as engine:
        running = asyncio.ensure_future(_answer_all(engine, asked, 500))
        await asyncio.sleep(0.05)
        with run.device.eat(engine):
            answers = await running
        after = await _answer_all(engine, Inference(1, asked.prompt, 4), 600)
        failures = engine._started.manager.memory_failures  # type: ignore[union-attr]
    whole = sum(each.tokens == asked.answer and not each.error for each in answers)
    failed = [each.error for each in answers if each.error]
    row = {"requests": len(answers), "whole": whole, "failed_with_a_line": len(failed), "steps_out_of_memory": failures}
    result.rows.append(row)
    result.check("every request is answered, or says why not", whole + len(failed) == len(answers), f"{row}")
    result.check("the engine answers afterwards", not after[0].error and after[0].tokens == 4, after[0].error)
    return result
