"""A small random model, and how tests ask the local engine for answers from it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from suffice.engines.base import Chunk, GenerationRequest, Sampling  # noqa: E402
from suffice.engines.local.engine import LocalEngine  # noqa: E402
from suffice.prompt import Prompt  # noqa: E402

T = TypeVar("T")
GREEDY = Sampling(temperature=0)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|tool|>"]


def build_tokenizer() -> Any:
    """One token per byte, and the special ones of ChatML."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|tool|>"],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def build_model(folder: Path, **changes: Any) -> Path:
    """A random Qwen2 whose greedy answers vary from token to token."""
    settings = {
        "vocab_size": 260,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.6,
        "tie_word_embeddings": False,
        "eos_token_id": 2,
    } | changes
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**settings))
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """Tiny matrices gain nothing from threads, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()  # whenever a cache goes, transformers collects garbage: not among all of torch's objects
    yield
    gc.unfreeze()
    torch.set_num_threads(before)


def with_engine(model: Path, use: Callable[[LocalEngine], Awaitable[T]], **options: Any) -> T:
    async def run() -> T:
        async with LocalEngine(model, device="cpu", **{"kv_tokens": 4096, **options}) as engine:
            return await use(engine)

    return asyncio.run(run())


def ask(name: str, prompt: str, tokens: int, sampling: Sampling = GREEDY, **more: Any) -> GenerationRequest:
    return GenerationRequest(name, Prompt(raw=prompt), tokens, sampling=sampling, **more)


async def collect(engine: LocalEngine, request: GenerationRequest) -> list[Chunk]:
    return [chunk async for chunk in engine.submit(request)]


def tokens_of(chunks: Sequence[Chunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.token_ids]


def text_of(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)
