"""The local engine and memory: KV bytes to the byte, small caches, and devices that run out."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from random_model import ask, build_model, collect, one_thread, tokens_of, with_engine  # noqa: E402, F401
from small import SMALL  # noqa: E402
from suffice.engines.local.cache_size import CacheWish, kv_layout  # noqa: E402
from suffice.engines.local.engine import LocalEngine  # noqa: E402
from suffice.engines.local.start_up import start_manager  # noqa: E402
from suffice.errors import EngineError, PromptTooLongError, UsageError  # noqa: E402
from suffice.memory import KvLayout, Metered, kv_bytes_per_token  # noqa: E402

CONFIG = SMALL | {"num_hidden_layers": 4, "intermediate_size": 64, "max_position_embeddings": 128}
EXPERTS = {"moe_intermediate_size": 32, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = {"kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16, "n_routed_experts": 4}
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("qwen2", {}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 3}),
    ("qwen2_moe", EXPERTS | {"shared_expert_intermediate_size": 24}),
    ("qwen3", {"head_dim": 16}),
    ("qwen3_moe", EXPERTS | {"head_dim": 16}),
    ("llama", {}),
    ("llama", {"num_key_value_heads": 4}),
    ("mistral", {"sliding_window": 32}),
    ("mistral", {"sliding_window": None}),
    ("mixtral", EXPERTS),
    ("gemma", {"head_dim": 16}),
    ("gemma2", {"head_dim": 16, "sliding_window": 32}),
    ("gemma3_text", {"head_dim": 16, "sliding_window": 32, "num_hidden_layers": 7}),
    ("glm", {"head_dim": 12}),
    ("glm4", {"head_dim": 12}),
    ("phi3", {}),
    ("starcoder2", {}),
    ("cohere2", {"sliding_window": 32}),
    ("olmo3", {"sliding_window": 32}),
    ("gpt_oss", EXPERTS | {"head_dim": 12, "sliding_window": 32}),
    ("granite", {}),
    ("smollm3", {}),
    ("ernie4_5", {}),
]


def model_of(family: str, extra: dict[str, Any]) -> Any:
    config = transformers.AutoConfig.for_model(family, **CONFIG | extra)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


# --- KV bytes


@pytest.mark.parametrize(("family", "extra"), FAMILIES)
def test_kv_bytes_equal_the_tensor_that_the_engine_allocates(family: str, extra: dict[str, Any]) -> None:
    model = model_of(family, extra)
    layout = KvLayout.from_config(model.config.to_diff_dict())  # what config.json has
    assert layout == kv_layout(model)
    started = start_manager(model, 128, CacheWish(kv_tokens=100, step_tokens=32), lambda _: None, lambda _: None)
    manager = started.manager
    cache = manager.batch_processor.cache
    assert layout.paged_bytes(100, 16, 4) == cache.cache_tensor.nbytes
    layers = sum(allocator.bytes_per_block for allocator in cache.cache_allocators.values()) // 16
    assert kv_bytes_per_token(model.config.to_diff_dict(), 4) == layers
    started.close()


@pytest.mark.parametrize(("family", "extra"), [*FAMILIES, ("deepseek_v3", LATENT)])
def test_kv_bytes_equal_what_a_forward_pass_keeps(family: str, extra: dict[str, Any]) -> None:
    extra = extra | (
        {"num_key_value_heads": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2}
        if "deepseek" in family
        else {}
    )
    model, tokens = model_of(family, extra), 6
    with torch.no_grad():
        cache = model(torch.randint(3, 90, (1, tokens)), use_cache=True).past_key_values
    kept = sum(each.keys.nbytes + each.values.nbytes for each in cache.layers)
    assert kept == KvLayout.from_config(model.config.to_diff_dict()).bytes_for(tokens, 4)


def test_what_is_not_understood_is_refused_and_not_guessed() -> None:
    for config in ({"model_type": "gemma4_text"}, {"model_type": "x", "layer_types": ["linear_attention"] * 4}):
        with pytest.raises(UsageError, match="no memory arithmetic"):
            KvLayout.from_config(CONFIG | config)


def test_windows_bound_what_a_long_request_takes() -> None:
    layout = KvLayout.from_config(
        CONFIG | {"model_type": "gemma2", "head_dim": 16, "sliding_window": 32, "num_hidden_layers": 4}
    )
    per_layer = 2 * 2 * 16 * 2
    assert layout.bytes_per_token() == 4 * per_layer
    assert layout.bytes_for(100) == 2 * per_layer * 100 + 2 * per_layer * 32
    assert layout.bytes_for(100, page_size=16) == 2 * per_layer * 112 + 2 * per_layer * 32
    assert layout.bytes_per_token(0.5) == per_layer  # four bits


# --- a small cache


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model"))


def test_what_can_never_fit_is_refused_with_the_arithmetic(folder: Path) -> None:
    async def use(engine: LocalEngine) -> None:
        with pytest.raises(PromptTooLongError, match=r"100 tokens .*16\.0 KiB at 256 bytes a token\) is 64"):
            await collect(engine, ask("a", "x" * 100, 5))
        chunks = await collect(engine, ask("b", "x" * 60, 50))  # the prompt fits, the answer as far as there is room
        assert len(tokens_of(chunks)) == 4
        assert chunks[-1].finish is not None
        assert chunks[-1].finish.by == "memory"

    with_engine(folder, use, kv_tokens=64)


def test_what_does_not_fit_now_waits_and_is_answered_as_if_alone(folder: Path) -> None:
    prompts = [chr(97 + i) * (20 + i) for i in range(8)]

    async def together(engine: LocalEngine) -> list[list[int]]:
        chunks = await asyncio.gather(*(collect(engine, ask(p[0], p, 30)) for p in prompts))
        return [tokens_of(each) for each in chunks]

    async def one_by_one(engine: LocalEngine) -> list[list[int]]:
        return [tokens_of(await collect(engine, ask(p[0], p, 30))) for p in prompts]

    assert with_engine(folder, together, kv_tokens=64) == with_engine(folder, one_by_one)


@pytest.mark.parametrize("family", [("gemma2", 32), ("mistral", 32)])
def test_a_request_as_long_as_the_cache_allows_is_served_with_windows_too(
    tmp_path: Path, family: tuple[str, int]
) -> None:
    model = model_of(family[0], {"sliding_window": family[1], "head_dim": 16, "vocab_size": 260})
    model.save_pretrained(tmp_path)
    from random_model import build_tokenizer

    build_tokenizer().save_pretrained(tmp_path)

    async def use(engine: LocalEngine) -> None:
        assert engine._manager is not None
        longest = engine._manager.longest_request or 128
        chunks = await collect(engine, ask("a", "x" * 10, 200))
        assert len(tokens_of(chunks)) == min(longest, 128) - 10

    with_engine(tmp_path, use, kv_tokens=80, ignore_end_tokens=True)


# --- a device that runs out


def out_of_memory_when(engine: LocalEngine, no_room: Callable[[Any], bool]) -> list[int]:
    """Make the model's forward pass run out of memory for some inputs, as a device does; the sizes that were tried."""
    model, tried = engine._ready().model, []
    forward = model.forward

    def limited(*args: Any, **kwargs: Any) -> Any:
        ids = kwargs["input_ids"]
        tried.append(ids.shape[-1])
        if no_room(ids):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(*args, **kwargs)

    model.forward = limited
    return tried


def test_a_step_that_runs_out_is_run_again_request_by_request(folder: Path) -> None:
    prompts = ["abcdefgh", "ijklmnop", "qrstuvwx"]

    async def answers(engine: LocalEngine) -> list[list[int]]:
        chunks = await asyncio.gather(*(collect(engine, ask(p, p, 40)) for p in prompts))
        assert (await engine.health()).ok
        return [tokens_of(each) for each in chunks]

    async def tight(engine: LocalEngine) -> list[list[int]]:
        out_of_memory_when(engine, lambda ids: ids.shape[-1] == 3)  # all three decode, whenever their prompts were read
        found = await answers(engine)
        assert engine._manager is not None
        assert engine._manager.memory_failures > 0
        return found

    assert with_engine(folder, tight, ignore_end_tokens=True) == with_engine(folder, answers, ignore_end_tokens=True)


def test_running_out_in_the_middle_loses_no_token(folder: Path) -> None:
    async def plain(engine: LocalEngine) -> list[int]:
        return tokens_of(await collect(engine, ask("a", "abcdefgh", 40)))

    async def interrupted(engine: LocalEngine) -> list[int]:
        steps = iter(range(1000))
        out_of_memory_when(engine, lambda ids: next(steps) in (5, 20))
        return await plain(engine)

    assert with_engine(folder, interrupted, ignore_end_tokens=True) == with_engine(
        folder, plain, ignore_end_tokens=True
    )


def test_a_long_prompt_is_read_in_smaller_parts(folder: Path) -> None:
    async def use(engine: LocalEngine) -> None:
        tried = out_of_memory_when(engine, lambda ids: ids.shape[-1] > 40)
        assert len(tokens_of(await collect(engine, ask("a", "x" * 100, 20)))) == 20
        assert tried[0] == 100
        assert max(tried[2:]) <= 40

    with_engine(folder, use, ignore_end_tokens=True, max_batch_tokens=128)


def test_only_what_fails_alone_fails_and_says_why(folder: Path) -> None:
    async def use(engine: LocalEngine) -> None:
        letter = engine.tokenizer("z")["input_ids"][0]
        out_of_memory_when(engine, lambda ids: bool((ids == letter).any()))
        good = [asyncio.create_task(collect(engine, ask(p, p, 10))) for p in ("abc", "def")]
        with pytest.raises(EngineError, match=r"out of memory on cpu.*alone and with 16 tokens per step.*2\.00 GiB"):
            await collect(engine, ask("bad", "zzz", 10))
        for task in good:
            assert len(tokens_of(await task)) == 10
        assert len(tokens_of(await collect(engine, ask("later", "ghi", 10)))) == 10
        assert (await engine.health()).ok

    with_engine(folder, use, ignore_end_tokens=True)


def test_limits_grow_back_after_calm(folder: Path) -> None:
    async def use(engine: LocalEngine) -> None:
        steps = iter(range(10_000))
        out_of_memory_when(engine, lambda ids: next(steps) == 1)
        await collect(engine, ask("a", "abc", 200))
        assert engine._manager is not None
        scheduler = engine._manager.batch_processor.scheduler
        assert scheduler.max_requests_per_batch == 2**6
        await collect(engine, ask("b", "abc", 200))
        assert scheduler.max_requests_per_batch == 256

    with_engine(folder, use, ignore_end_tokens=True)


def test_other_errors_still_end_the_engine_loudly(folder: Path) -> None:
    async def use(engine: LocalEngine) -> None:
        model = engine._ready().model

        def broken(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("a kernel is broken")

        model.forward = broken
        with pytest.raises(EngineError, match="a kernel is broken"):
            await collect(engine, ask("a", "abc", 5))

    with_engine(folder, use)


def test_memory_that_really_is_not_there(tmp_path: Path) -> None:
    """A process whose address space is limited after the model is loaded: malloc itself fails inside the forward."""
    build_model(tmp_path, hidden_size=64, intermediate_size=100_000, num_hidden_layers=1, max_position_embeddings=512)
    program = textwrap.dedent(
        """
        import asyncio, resource, sys
        import torch
        from suffice.engines.base import GenerationRequest, Sampling
        from suffice.engines.local.engine import LocalEngine
        from suffice.prompt import Prompt

        torch.set_num_threads(1)

        async def ask(engine, name, prompt):
            request = GenerationRequest(name, Prompt(raw=prompt), 5, sampling=Sampling(temperature=0))
            return [t async for chunk in engine.submit(request) for t in chunk.token_ids]

        async def main():
            async with LocalEngine(sys.argv[1], device="cpu", kv_tokens=2048, ignore_end_tokens=True) as engine:
                first = await ask(engine, "warm", "x")
                size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
                room = 150 * 2**20  # 400 tokens at once need 3 x 160 MB in the MLP, 25 need 30 MB
                resource.setrlimit(resource.RLIMIT_AS, (size + room, resource.RLIM_INFINITY))
                answer = await ask(engine, "long", "x" * 400)
                print(len(first), len(answer), engine._manager.memory_failures > 0, (await engine.health()).ok)

        asyncio.run(main())
        """
    )
    result = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert result.stdout.split() == ["5", "5", "True", "True"], result.stderr[-2000:]


def test_the_engine_has_a_meter(folder: Path) -> None:
    async def use(engine: LocalEngine) -> None:
        assert isinstance(engine, Metered)
        meter = engine.memory_meter()
        idle = meter.read()
        assert (idle.kv_used, idle.kv_total) == (0, 256 * 256)
        stream = engine.submit(ask("a", "x" * 40, 200))  # long enough to be still running at the next line
        await anext(stream)
        assert (meter.read().kv_used or 0) >= 48 * 256
        await stream.aclose()

    with_engine(folder, use, kv_tokens=256, ignore_end_tokens=True)
