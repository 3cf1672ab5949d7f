"""The local engine starts whatever the device has left, and leaves nothing on the model. The CPU plays the device."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from random_model import ask, build_model, collect, one_thread, tokens_of, with_engine  # noqa: E402, F401
from suffice.checkpoints.load_model import LoadedModel, load_model  # noqa: E402
from suffice.checkpoints.model_source import resolve_model  # noqa: E402
from suffice.engines.local import batching, borrowed_model, cache_size, start_up  # noqa: E402
from suffice.engines.local.borrowed_model import Way  # noqa: E402
from suffice.engines.local.cache_size import CacheWish, describe_size, tokens_that_fit, wanted_size  # noqa: E402
from suffice.engines.local.engine import LocalEngine  # noqa: E402
from suffice.engines.local.start_up import start_manager  # noqa: E402
from suffice.errors import EngineError, ModelError  # noqa: E402

GIB = 2**30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def loaded(folder: Path) -> LoadedModel:
    return load_model(resolve_model(folder))


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[int]:
    async def use(engine: LocalEngine) -> list[int]:
        return tokens_of(await collect(engine, ask("1", "hello", 20)))

    return with_engine(folder, use, ignore_end_tokens=True)


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert [each for each in threading.enumerate() if each not in before and "_run_generation_loop" in each.name] == []


def as_loaded(model: Any) -> bool:
    """Whether nothing of an engine is left on a model."""
    norms = [each for each in model.modules() if "forward" in vars(each)]
    return model.config._attn_implementation == "sdpa" and not model._forward_pre_hooks and not norms


def answer_of(loaded: LoadedModel, **options: Any) -> tuple[list[int], int, list[str]]:
    """What an engine on a loaded model answers, the size of its cache, and what it said."""
    said: list[str] = []

    async def run() -> tuple[list[int], int]:
        async with LocalEngine(loaded, notify=said.append, ignore_end_tokens=True, **options) as engine:
            tokens = tokens_of(await collect(engine, ask("1", "hello", 20)))
            return tokens, engine.capabilities().kv_tokens or 0

    return *asyncio.run(run()), said


class Once:
    """Fails with an error as often as it is told to, then does what it stands for."""

    def __init__(self, real: Callable[..., Any], error: Exception, times: int = 1) -> None:
        self.real, self.error, self.times = real, error, times

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.times:
            self.times -= 1
            raise self.error
        return self.real(*args, **kwargs)


def fail_at(stage: str, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stage of the start run out of memory, as it does on a device."""
    footprint = MemoryError("Memory footprint 8870000000 is more than available memory 7540000000")
    oom = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if stage == "sizing":
        monkeypatch.setattr(start_up, "fitted_size", Once(start_up.fitted_size, footprint))
    elif stage == "footprint":  # somebody has taken the memory since it was looked at
        free = iter([0])
        monkeypatch.setattr(batching, "free_memory", lambda device: next(free, 8 * GIB))
    elif stage == "cache":
        zeros, failed = torch.zeros, iter([True])

        def limited(*size: Any, **options: Any) -> Any:
            if options.get("device") != "meta" and options.get("dtype") == torch.uint8 and next(failed, False):
                raise oom
            return zeros(*size, **options)

        monkeypatch.setattr(torch, "zeros", limited)
    elif stage == "thread":
        base = batching.ContinuousBatchingManager
        once = Once(base.start, oom)
        monkeypatch.setattr(base, "start", lambda self: once(self))
    else:
        monkeypatch.setattr(start_up, "_TRIED_ON", {"cpu"})
        forward = loaded.model.forward

        def small_steps(*args: Any, **kwargs: Any) -> Any:
            if kwargs["input_ids"].shape[-1] > 64:
                raise oom
            return forward(*args, **kwargs)

        monkeypatch.setattr(loaded.model, "forward", small_steps)


STAGES = ["sizing", "footprint", "cache", "thread", "step"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_start_that_runs_out_of_memory_ends_in_a_smaller_cache(
    stage: str, loaded: LoadedModel, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = wanted_size(loaded.model, 256, CacheWish())
    with monkeypatch.context() as patch:
        fail_at(stage, loaded, patch)
        tokens, kv_tokens, said = answer_of(loaded)
    assert tokens == expected
    assert 256 <= kv_tokens < before.kv_tokens
    assert said[-1].endswith("what fits beside the weights on cpu")
    assert as_loaded(loaded.model)


@pytest.mark.parametrize("stage", STAGES)
def test_a_start_that_cannot_be_says_so_in_one_line(
    stage: str, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly 1,024 tokens are asked for, and that does not work: no other size is put in its place."""
    with monkeypatch.context() as patch:
        fail_at(stage, loaded, patch)
        with pytest.raises(
            EngineError, match=r"^no memory on cpu for a KV cache of 1,024 tokens \(.*would fit"
        ) as error:
            answer_of(loaded, kv_tokens=1024)
    assert "\n" not in str(error.value)
    assert as_loaded(loaded.model)


def test_no_memory_at_all_is_one_line(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cache_size, start_up, batching):
        monkeypatch.setattr(module, "free_memory", lambda device: 2**18)
    with pytest.raises(EngineError, match=r"256 KiB free\): (none|[\d,]+ tokens) would fit.*take a smaller model"):
        answer_of(loaded)
    assert as_loaded(loaded.model)


def test_weights_that_do_not_fit_are_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 130.00 MiB")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", full)
    words = r"^no memory for the weights of .* \(CUDA out of memory.*\): they take .* KiB on disk; .* `suffice plan"
    with pytest.raises(ModelError, match=words):
        with_engine(folder, lambda engine: collect(engine, ask("1", "hello", 2)))


def test_engines_follow_each_other_on_one_model_and_on_one_folder(
    loaded: LoadedModel, folder: Path, expected: list[int]
) -> None:
    for _ in range(2):
        assert answer_of(loaded)[0] == expected
        assert as_loaded(loaded.model)
    for _ in range(2):
        assert with_engine(folder, lambda engine: collect(engine, ask("1", "hello", 20)), ignore_end_tokens=True)

    async def unused() -> None:
        async with LocalEngine(loaded):
            pass

    asyncio.run(unused())  # an engine that was asked nothing puts everything back, too
    assert as_loaded(loaded.model)


def test_a_way_that_does_not_work_gives_way_to_the_next(
    loaded: LoadedModel, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a card whose flash-attention or CUDA graphs are broken."""
    monkeypatch.setattr(start_up, "ways_of", lambda model: (Way("flash"), Way("paged")))
    tokens, _, said = answer_of(loaded)
    assert tokens == expected
    assert said[0].startswith("flash-attention does not work here (")
    assert as_loaded(loaded.model)


def test_a_step_that_takes_more_than_is_left_costs_cache(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peak of a real step counts: what it lacks is taken from the cache, page by page."""
    monkeypatch.setattr(start_up, "_TRIED_ON", {"cpu"})
    spare = iter([GIB, 3 * GIB])
    monkeypatch.setattr(start_up, "spare_memory", lambda device: next(spare))

    class Peak:
        def __enter__(self) -> Callable[[], int]:
            return lambda: GIB + 512 * 1024

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(start_up, "peak_of", lambda device: Peak())
    started = start_manager(loaded.model, 256, CacheWish(), lambda _: None, lambda _: None)
    started.close()
    per_token = 2 * 2 * 2 * 8 * 4
    assert started.size.kv_tokens == wanted_size(loaded.model, 256, CacheWish()).kv_tokens - 512 * 1024 // per_token


# --- how large


def qwen(dtype: Any = torch.bfloat16) -> Any:
    """The shape of Qwen2.5-7B, without its weights."""
    config = transformers.Qwen2Config(
        num_hidden_layers=28,
        hidden_size=3584,
        num_attention_heads=28,
        num_key_value_heads=4,
        intermediate_size=18944,
        vocab_size=152064,
        max_position_embeddings=32768,
        dtype=dtype,
    )
    with torch.device("meta"):
        return transformers.Qwen2ForCausalLM(config).to(dtype)


def test_transformers_agrees_with_the_size_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """22.5 GiB on a card with a 7B model: what was sized at 112,000 tokens by other arithmetic did not start."""
    model, free = qwen(), int(7.54e9)
    monkeypatch.setattr(cache_size, "cpu_or_cuda", lambda model: "cuda")
    monkeypatch.setattr(cache_size, "free_memory", lambda device: free)
    wish = CacheWish()
    size = cache_size.fitted_size(model, wanted_size(model, 32768, wish), wish)
    assert size is not None
    assert (size.bound, size.step_tokens, size.step_requests) == ("memory", 2048, 256)
    assert 60_000 < size.kv_tokens < 100_000
    handler = cache_size.paged_cache.PagedAttentionMemoryHandler
    footprints: list[tuple[int, int]] = []
    check = handler._check_footprint

    def noted(self: Any, *sizes: int) -> Any:
        footprints.append((self.compute_memory_footprint(*sizes), self.available_memory))
        return check(self, *sizes)

    monkeypatch.setattr(handler, "_check_footprint", noted)
    with cache_size.memory_is(torch.device("meta"), free):
        cache_size.PagedAttentionCache(
            config=model.config,
            continuous_batching_config=cache_size.batching_config(model, size, 32768),
            device="meta",
            distributed_helper=cache_size.DistributedHelper(None, None),
            dtype=model.dtype,
            model_supports_logits_to_keep=True,
        )
    ((footprint, available),) = footprints
    assert footprint <= 0.8 * available


def test_little_memory_makes_steps_shorter_before_the_cache_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    model, wish = qwen(), CacheWish()
    monkeypatch.setattr(cache_size, "cpu_or_cuda", lambda model: "cuda")
    sizes = []
    for free in (8 * GIB, GIB // 2, GIB // 4):
        monkeypatch.setattr(cache_size, "free_memory", lambda device, free=free: free)
        sizes.append(cache_size.fitted_size(model, wanted_size(model, 32768, wish), wish))
    steps = [size and size.step_tokens for size in sizes]
    assert steps[0] == 2048
    assert steps[1] is not None
    assert steps[1] < 2048
    assert all(size is None or size.kv_tokens >= 256 for size in sizes)


@pytest.mark.parametrize(
    ("wish", "tokens", "said"),
    [
        (CacheWish(requests=1, tokens=100), 112, "112 tokens, 28.0 KiB; what this work can use"),
        (CacheWish(requests=8, tokens=100), 896, "896 tokens, 224 KiB; what this work can use"),
        (CacheWish(kv_tokens=4096), 4096, "4,096 tokens, 1.00 MiB; as asked for"),
        (CacheWish(), 8192, "8,192 tokens, 2.00 MiB; what the work can use at full context"),
        (CacheWish(requests=1), 256, "256 tokens, 64.0 KiB; what the work can use at full context"),
    ],
)
def test_only_as_much_cache_as_the_work_can_use(loaded: LoadedModel, wish: CacheWish, tokens: int, said: str) -> None:
    size = wanted_size(loaded.model, 256, wish)
    assert size.kv_tokens == tokens
    assert describe_size(loaded.model, size) == f"KV cache: {said}"


def test_a_share_of_the_device_can_be_set(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are within the share, as in vLLM."""
    weights = sum(each.nbytes for each in loaded.model.parameters())
    monkeypatch.setattr(cache_size, "free_memory", lambda device: 9 * weights)
    assert cache_size.room(loaded.model, 0.5) == 4 * weights
    assert cache_size.room(loaded.model, 0.05) == 0
    assert cache_size.room(loaded.model, None) == 9 * weights // 4
    config = wanted_size(loaded.model, 256, CacheWish())
    fitting = [tokens_that_fit(loaded.model, config, free) for free in (GIB // 2, GIB)]
    assert 0 < 1.9 * fitting[0] < fitting[1]


def test_a_cache_for_one_prompt_grows_for_a_longer_one(loaded: LoadedModel) -> None:
    said: list[str] = []

    async def run() -> list[tuple[int, Any]]:
        found = []
        async with LocalEngine(loaded, cache_for_work=True, notify=said.append, ignore_end_tokens=True) as engine:
            assert engine.capabilities().kv_tokens is None  # nothing is known of the work yet
            for name, prompt, tokens in (("a", "x" * 40, 8), ("b", "y" * 20, 8), ("c", "z" * 100, 60)):
                chunks = await collect(engine, ask(name, prompt, tokens))
                assert len(tokens_of(chunks)) == tokens
                found.append((engine.capabilities().kv_tokens, chunks[-1].finish))
        return found

    found = asyncio.run(run())
    assert [tokens for tokens, _ in found] == [48, 48, 160]
    assert {finish.reason for _, finish in found} == {"length"}
    assert not any(finish.by for _, finish in found)  # nothing was cut by memory
    assert [line.partition(" tokens")[0] for line in said] == ["KV cache: 48", "KV cache: 160"]


def test_a_cache_for_a_dataset_has_room_for_all_that_run_at_once(loaded: LoadedModel) -> None:
    async def run() -> int:
        async with LocalEngine(loaded, cache_for_work=True, ignore_end_tokens=True) as engine:
            engine.expect(requests=4, tokens=64)
            answers = await asyncio.gather(*(collect(engine, ask(str(i), "x" * 30, 34)) for i in range(4)))
            assert all(len(tokens_of(chunks)) == 34 for chunks in answers)
            assert engine._manager is not None
            assert engine._manager.memory_failures == 0
            return engine.capabilities().kv_tokens or 0

    assert asyncio.run(run()) == 4 * 64


def test_what_is_borrowed_is_what_is_given_back(loaded: LoadedModel) -> None:
    borrowed = borrowed_model.BorrowedModel(loaded.model)
    borrowed.run(Way("paged"))
    borrowed.before_forward(lambda model, args, kwargs: (args, kwargs))
    assert not as_loaded(loaded.model)
    borrowed.give_back()
    borrowed.give_back()
    assert as_loaded(loaded.model)
