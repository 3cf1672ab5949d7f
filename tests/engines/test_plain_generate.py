"""Plain `generate` in batches, for versions and models that continuous batching is not known for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from random_model import ask, build_model, build_tokenizer, collect, one_thread, tokens_of, with_engine  # noqa: E402, F401
from suffice.engines.base import Finish, Sampling  # noqa: E402
from suffice.engines.local import engine as local_engine  # noqa: E402
from suffice.engines.local.engine import LocalEngine, PlainStarted  # noqa: E402
from suffice.errors import EngineError  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model"))


def both_ways(
    folder: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[LocalEngine], Awaitable[Any]], **options: Any
) -> list[Any]:
    """What continuous batching gives, and what `generate` does when the installed version counts as unknown."""
    known = with_engine(folder, use, ignore_end_tokens=True, **options)
    said: list[str] = []
    monkeypatch.setattr(local_engine, "FIRST_UNKNOWN_TRANSFORMERS", "5.3")
    plain = with_engine(folder, use, ignore_end_tokens=True, notify=said.append, **options)
    assert len(said) == 1
    assert said[0].startswith(f"notice: transformers {transformers.__version__} is installed, and continuous batching")
    assert said[0].endswith("answers in batches of plain `generate`, which is slower")
    return [known, plain]


def test_both_give_the_same_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy, seeded, penalised and with log-probabilities, in one batch, with different limits."""
    seeded = Sampling(temperature=1.2, top_p=0.9, seed=5, repetition_penalty=1.2)
    asked = [
        ask("1", "a", 12),
        ask("2", "hello world", 25, seeded),
        ask("3", "x" * 50, 7, Sampling(temperature=0, repetition_penalty=1.3)),
        ask("4", "y" * 20, 9, logprobs=2),
    ]

    async def use(engine: LocalEngine) -> list[Any]:
        answers = await asyncio.gather(*(collect(engine, each) for each in asked))
        logprobs = [each for chunk in answers[3] for each in chunk.logprobs]
        found = [[other.token for other in each.others] for each in logprobs]
        return [[tokens_of(chunks) for chunks in answers], [chunks[-1].finish for chunks in answers], found]

    known, plain = both_ways(folder, monkeypatch, use)
    assert known == plain
    assert [len(each) for each in plain[0]] == [12, 25, 7, 9]
    assert plain[1] == [Finish("length")] * 4


def test_it_is_cancelled_and_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(engine: LocalEngine) -> list[int]:
        stream = engine.submit(ask("long", "abc", 240))
        await anext(stream)
        await stream.aclose()
        return tokens_of(await collect(engine, ask("next", "hello", 10)))

    known, plain = both_ways(folder, monkeypatch, use)
    assert known == plain


def test_memory_that_runs_out_makes_batches_smaller(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three requests run out together on the way; alone, all but the one that never fits are answered."""

    async def use(engine: LocalEngine) -> list[list[int]]:
        model = engine._ready().model
        forward, steps = model.forward, iter(range(1000))

        def limited(*args: Any, **kwargs: Any) -> Any:
            ids = kwargs["input_ids"]
            if (len(ids) > 1 and next(steps) > 3) or bool((ids == 200).any()):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return forward(*args, **kwargs)

        plain = isinstance(engine._started, PlainStarted)
        if plain:
            monkeypatch.setattr(model, "forward", limited)
        found = await asyncio.gather(*(collect(engine, ask(str(i), "abc" * i, 12)) for i in range(1, 4)))
        if plain:
            bad = engine.tokenizer.decode([200])
            with pytest.raises(EngineError, match=r"out of memory on cpu \(.* free\), also alone: CUDA out of memory"):
                await collect(engine, ask("bad", bad, 5))
        return [tokens_of(chunks) for chunks in found]

    known, plain = both_ways(folder, monkeypatch, use)
    assert known == plain


def test_an_error_of_the_model_is_its_requests(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_engine, "OLDEST_TRANSFORMERS", "99.0")

    async def use(engine: LocalEngine) -> int:
        model = engine._ready().model
        with monkeypatch.context() as patch:

            def broken(*args: Any, **kwargs: Any) -> Any:
                raise RuntimeError("a kernel is broken")

            patch.setattr(model, "forward", broken)
            with pytest.raises(EngineError, match="generation failed: a kernel is broken"):
                await collect(engine, ask("a", "abc", 5))
        return len(tokens_of(await collect(engine, ask("b", "abc", 5))))

    assert with_engine(folder, use, ignore_end_tokens=True) == 5


def test_a_model_that_cannot_be_batched_continuously_is_answered(tmp_path: Path) -> None:
    """Mamba keeps no keys and values: transformers' continuous batching refuses it."""
    config = transformers.MambaConfig(
        vocab_size=260, hidden_size=32, state_size=4, num_hidden_layers=2, expand=2, eos_token_id=2, pad_token_id=0
    )
    config.max_position_embeddings = 256
    torch.manual_seed(0)
    model = transformers.MambaForCausalLM(config)
    model.save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    said: list[str] = []

    async def use(engine: LocalEngine) -> int:
        return len(tokens_of(await collect(engine, ask("a", "hello", 8))))

    assert with_engine(tmp_path, use, ignore_end_tokens=True, notify=said.append) == 8
    assert said[0].startswith("notice: transformers cannot batch this model continuously (")
