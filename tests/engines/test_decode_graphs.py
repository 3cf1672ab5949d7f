"""Decoding steps that are recorded once and replayed, as CUDA graphs are: here the CPU records and replays them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402
from transformers.generation.continuous_batching import initialization, model_runner  # noqa: E402

from random_model import ask, build_model, build_tokenizer, collect, one_thread, tokens_of, with_engine  # noqa: E402, F401
from suffice.engines.base import GenerationRequest, Sampling  # noqa: E402
from suffice.engines.local import start_up  # noqa: E402
from suffice.engines.local.borrowed_model import Way  # noqa: E402
from suffice.engines.local.engine import LocalEngine  # noqa: E402

WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "lift_fresh", "unique")
"""Operations that wait for a device, or bring numbers of the moment to it: none may be in a recorded step."""


class Recording(TorchDispatchMode):
    """A graph: the operations of a step with the very tensors that they read and wrote."""

    replays = 0

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.name().partition("::")[2].partition(".")[0]
        assert name not in WAITS, f"{name} is in a step that is recorded"
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        Recording.replays += 1
        for function, args, kwargs, before in self.calls:
            result = function(*args, **kwargs)
            for old, new in zip(tree_leaves(before), tree_leaves(result), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    def reset(self) -> None: ...


@contextmanager
def recorded(graph: Recording, **options: Any) -> Iterator[None]:
    with graph:
        yield


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initialization, "get_accelerator_graph_name", lambda: "CUDAGraph")
    monkeypatch.setattr(model_runner, "get_memory_pools", lambda: (None, None))
    monkeypatch.setattr(model_runner, "memory_pool_context", lambda pool: nullcontext())
    monkeypatch.setattr(model_runner, "create_accelerator_graph", Recording)
    monkeypatch.setattr(model_runner, "accelerator_graph_capture_context", recorded)
    monkeypatch.setattr(start_up, "ways_of", lambda model: (Way("paged", graphs=True),))
    Recording.replays = 0


def build_windows(folder: Path) -> Path:
    """A model with windows in two of three layers, as Gemma 3 has them."""
    config = transformers.Gemma3TextConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        max_position_embeddings=256,
        sliding_window=24,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        initializer_range=0.6,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    transformers.Gemma3ForCausalLM(config).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def requests() -> list[GenerationRequest]:
    """Short and long ones, greedy, seeded, penalised, and with log-probabilities."""
    seeded = Sampling(temperature=1.3, top_p=0.95, seed=3)
    return [
        ask("1", "a", 60),
        ask("2", "hello world", 30, seeded),
        ask("3", "x" * 70, 40, Sampling(temperature=0, repetition_penalty=1.4)),
        ask("4", "y" * 33, 20, logprobs=2),
        ask("5", "long " * 8, 9, Sampling(temperature=0.8, top_k=5, seed=9, repetition_penalty=1.1)),
    ]


async def answers(engine: LocalEngine) -> list[Any]:
    found = await asyncio.gather(*(collect(engine, each) for each in requests()))
    likely = [round(each.logprob, 3) for chunk in found[3] for each in chunk.logprobs]
    return [*map(tokens_of, found), likely]


@pytest.mark.parametrize("build", [build_model, build_windows])
def test_recorded_steps_give_the_same_answers(build: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = build(tmp_path / "m")
    expected = with_engine(folder, answers, ignore_end_tokens=True)
    request.getfixturevalue("graphs")
    assert with_engine(folder, answers, ignore_end_tokens=True, max_batch_tokens=64) == expected
    assert Recording.replays > 40  # of some 60 steps: the first of each shape is recorded
    assert [len(each) for each in expected[:5]] == [60, 30, 40, 20, 9]


@pytest.mark.parametrize("build", [build_model, build_windows])
def test_windows_give_what_generate_gives(build: Any, tmp_path: Path) -> None:
    """Prompts longer than the window, read whole and in parts, and answers that go beyond it."""
    from suffice.checkpoints.load_model import load_model
    from suffice.checkpoints.model_source import resolve_model

    folder = build(tmp_path / "m")
    loaded = load_model(resolve_model(folder))
    loaded.model.generation_config.eos_token_id = None
    wanted = [("a", 70), ("b" * 90, 40), ("hello world " * 6, 30)]

    def reference(prompt: str, tokens: int) -> list[int]:
        ids = loaded.tokenizer(prompt, return_tensors="pt")["input_ids"]
        out = loaded.model.generate(ids, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
        return list(out[0, ids.shape[1] :].tolist())

    async def use(engine: LocalEngine) -> list[list[int]]:
        found = await asyncio.gather(*(collect(engine, ask(str(i), *each)) for i, each in enumerate(wanted)))
        return [tokens_of(each) for each in found]

    for step in (None, 40):
        found = with_engine(folder, use, ignore_end_tokens=True, max_batch_tokens=step)
        assert found == [reference(*each) for each in wanted]
