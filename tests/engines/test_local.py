"""The local engine on small random models, checked against transformers' own `generate`."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from random_model import ask, build_model, build_tokenizer, collect, one_thread, text_of, tokens_of, with_engine  # noqa: E402, F401
from suffice.checkpoints.hub import find_on_hub  # noqa: E402
from suffice.checkpoints.load_model import load_model  # noqa: E402
from suffice.checkpoints.model_source import resolve_model  # noqa: E402
from suffice.engines.base import Chunk, Finish, GenerationRequest, Message, Sampling  # noqa: E402
from suffice.engines.local.engine import LocalEngine  # noqa: E402
from suffice.engines.local.sampling import BatchSampler, SamplingParams  # noqa: E402
from suffice.errors import EngineError, ModelError, PromptTooLongError, UsageError  # noqa: E402
from suffice.prompt import Prompt  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def reference(folder: Path) -> Callable[..., list[int]]:
    """Greedy answers of transformers itself, one prompt at a time."""
    loaded = load_model(resolve_model(folder))

    def answer(prompt: str, tokens: int, **options: Any) -> list[int]:
        ids = loaded.tokenizer(prompt, return_tensors="pt")["input_ids"]
        loaded.model.generation_config.eos_token_id = None
        out = loaded.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, pad_token_id=0, **options
        )
        return out[0, ids.shape[1] :].tolist()

    return answer


async def until_idle(engine: LocalEngine) -> None:
    """Wait until the generation thread has put everything away."""
    manager = engine._manager
    assert manager is not None
    while manager.batch_processor.has_pending_requests():  # noqa: ASYNC110 - the thread knows no event loop
        await asyncio.sleep(0.005)


# --- what is generated


def test_mixed_batch_equals_generate(folder: Path, reference: Callable[..., list[int]]) -> None:
    """Short and long prompts, some read in parts, with different limits, in one batch."""
    wanted = [
        ("a", 12),
        ("hello world", 30),
        ("x" * 70, 7),
        ("long " * 35, 40),
        ("the same beginning " * 3, 20),
        ("你好", 25),
    ]

    async def use(engine: LocalEngine) -> list[list[Chunk]]:
        return await asyncio.gather(*(collect(engine, ask(str(i), *each)) for i, each in enumerate(wanted)))

    answers = with_engine(folder, use, max_batch_tokens=32, ignore_end_tokens=True)
    assert [tokens_of(chunks) for chunks in answers] == [reference(*each) for each in wanted]
    assert len({tuple(tokens_of(chunks)) for chunks in answers}) == len(wanted)
    for (prompt, limit), chunks in zip(wanted, answers, strict=True):
        assert [chunk.finish for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert chunks[-1].finish == Finish("length")  # whose limit it was, the engine does not know
        assert chunks[-1].usage is not None
        assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.answer_tokens) == (len(prompt.encode()), limit)


def test_shared_prefix_equals_generate(folder: Path, reference: Callable[..., list[int]]) -> None:
    """A prompt whose pages are already in the cache gives the same answer as one that is read anew."""
    prompt = "one system prompt for everybody, longer than a page of the cache. "

    async def use(engine: LocalEngine) -> list[list[int]]:
        first = await collect(engine, ask("1", prompt + "A", 20))
        second = await collect(engine, ask("2", prompt + "B", 20))
        return [tokens_of(first), tokens_of(second)]

    answers = with_engine(folder, use, ignore_end_tokens=True)
    assert answers == [reference(prompt + "A", 20), reference(prompt + "B", 20)]


def test_full_cache_finishes_everything(folder: Path, reference: Callable[..., list[int]]) -> None:
    """More answers than the cache can hold at once: they take turns, and none changes."""
    wanted = [(f"prompt number {i}", 60) for i in range(8)]

    async def use(engine: LocalEngine) -> list[list[Chunk]]:
        return await asyncio.gather(*(collect(engine, ask(str(i), *each)) for i, each in enumerate(wanted)))

    answers = with_engine(folder, use, kv_tokens=192, ignore_end_tokens=True)
    assert [tokens_of(chunks) for chunks in answers] == [reference(*each) for each in wanted]


def test_sliding_window_equals_generate(tmp_path: Path) -> None:
    """A model that attention by pages does not cover takes transformers' own path."""
    model = build_model(tmp_path / "m", use_sliding_window=True, sliding_window=24, max_window_layers=1)
    loaded = load_model(resolve_model(model))
    ids = loaded.tokenizer("a sliding window", return_tensors="pt")["input_ids"]
    loaded.model.generation_config.eos_token_id = None
    expected = loaded.model.generate(ids, max_new_tokens=40, do_sample=False, pad_token_id=0)[
        0, ids.shape[1] :
    ].tolist()

    async def use(engine: LocalEngine) -> list[int]:
        both = await asyncio.gather(
            collect(engine, ask("1", "a sliding window", 40)), collect(engine, ask("2", "other", 9))
        )
        return tokens_of(both[0])

    assert with_engine(model, use, ignore_end_tokens=True) == expected


def test_text_is_whole_characters(folder: Path) -> None:
    """Random bytes: the pieces add up to the decoded answer, and no piece has half a character in it."""

    async def use(engine: LocalEngine) -> tuple[str, str]:
        chunks = await collect(engine, ask("1", "字节", 120, Sampling(temperature=2.0, seed=1)))
        return text_of(chunks), engine.tokenizer.decode(tokens_of(chunks), skip_special_tokens=True)

    streamed, whole = with_engine(folder, use, ignore_end_tokens=True)
    assert streamed == whole
    assert len(streamed) > 20


# --- why it ends


@pytest.fixture(scope="module")
def ending(folder: Path, reference: Callable[..., list[int]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model whose greedy answer to 'tell me' ends after a few tokens, by its own generation_config.json."""
    answer = reference("tell me", 12)
    end = next(token for index, token in enumerate(answer) if index >= 3 and token not in answer[:index])
    copy = tmp_path_factory.mktemp("ending") / "m"
    shutil.copytree(folder, copy)
    (copy / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [end], "max_new_tokens": 77, "do_sample": False})
    )
    return SimpleNamespace(folder=copy, answer=answer[: answer.index(end) + 1], end=end)


def test_end_token(ending: Any) -> None:
    """It ends the answer, also as the last token allowed, is counted, and is never in the text."""
    length = len(ending.answer)

    async def use(engine: LocalEngine) -> list[list[Chunk]]:
        assert engine.capabilities().default_max_new_tokens == 77
        return [await collect(engine, ask(str(limit), "tell me", limit)) for limit in (50, length, length - 1)]

    for chunks, limit in zip(with_engine(ending.folder, use), (50, length, length - 1), strict=True):
        finish, usage = chunks[-1].finish, chunks[-1].usage
        assert finish is not None
        assert usage is not None
        if limit < length:
            assert finish == Finish("length")
        else:
            assert (finish.reason, finish.by) == ("stop", "end_token")
            assert usage.answer_tokens == length
        assert tokens_of(chunks) == ending.answer[:limit]
        assert text_of(chunks) == build_tokenizer().decode(ending.answer[:-1], skip_special_tokens=True)


def test_stop_tokens_of_the_request(folder: Path) -> None:
    """A stop word that is one special token ends the answer here; any other word is left to the caller."""

    async def use(engine: LocalEngine) -> dict[int, Finish]:
        return engine._ready().end_tokens(("<|tool|>", "e", "<|im_end|>", "unknown"))

    assert with_engine(folder, use) == {
        3: Finish("stop", "stop_word", "<|tool|>"),
        2: Finish("stop", "end_token", "<|im_end|>"),
    }


def test_no_room(folder: Path) -> None:
    """The cache and the context set limits: too long a prompt is refused, an answer ends where memory does."""

    async def use(engine: LocalEngine) -> Chunk:
        with pytest.raises(PromptTooLongError, match=r"64 tokens and the room in the KV cache .* is 64"):
            await collect(engine, ask("1", "x" * 64, 5))
        with pytest.raises(PromptTooLongError, match="the model's context is 256"):
            await collect(engine, ask("2", "x" * 300, 5))
        return (await collect(engine, ask("3", "x" * 40, 500)))[-1]

    last = with_engine(folder, use, kv_tokens=64, ignore_end_tokens=True)
    assert last.finish == Finish("length", "memory", "64")
    assert last.usage is not None
    assert last.usage.answer_tokens == 24


def test_context_ends_the_answer(folder: Path) -> None:
    async def use(engine: LocalEngine) -> Chunk:
        return (await collect(engine, ask("1", "x" * 250, 500)))[-1]

    last = with_engine(folder, use, ignore_end_tokens=True)
    assert last.finish == Finish("length", "context", "256")
    assert last.usage is not None
    assert last.usage.answer_tokens == 6


# --- being stopped, and failing


@pytest.mark.parametrize("how", ["close", "task"])
def test_cancelling_frees_the_cache(folder: Path, how: str) -> None:
    async def use(engine: LocalEngine) -> dict[str, list[int]]:
        stream = engine.submit(ask("long", "abc", 200))
        await anext(stream)
        await stream.aclose()
        if how == "task":
            task = asyncio.create_task(collect(engine, ask("task", "abc", 200)))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until_idle(engine)
        assert not engine._streams
        (allocator,) = engine._manager.batch_processor.cache.cache_allocators.values()  # type: ignore[union-attr]
        held: dict[str, list[int]] = allocator.block_table
        return held

    assert with_engine(folder, use, ignore_end_tokens=True) == {}


def test_failure_reaches_everyone_and_heals(folder: Path, reference: Callable[..., list[int]]) -> None:
    async def use(engine: LocalEngine) -> tuple[list[Any], bool, list[int], bool]:
        model = engine._ready().model
        forward = model.forward

        def broken(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("the device is on fire")

        running = [asyncio.create_task(collect(engine, ask(str(i), "abc", 240))) for i in range(3)]
        await asyncio.sleep(0.05)
        model.forward = broken
        errors = await asyncio.gather(*running, return_exceptions=True)
        ill = (await engine.health()).ok
        model.forward = forward
        answer = tokens_of(await collect(engine, ask("again", "abc", 10)))
        return errors, ill, answer, (await engine.health()).ok

    errors, ill, answer, well = with_engine(folder, use, ignore_end_tokens=True)
    assert all(isinstance(error, EngineError) and "the device is on fire" in str(error) for error in errors)
    assert (ill, well) == (False, True)
    assert answer == reference("abc", 10)


def test_closing_the_engine_ends_running_answers(folder: Path) -> None:
    async def run() -> Chunk:
        async with LocalEngine(folder, device="cpu", kv_tokens=512, ignore_end_tokens=True) as engine:
            task = asyncio.create_task(collect(engine, ask("1", "abc", 250)))
            await asyncio.sleep(0.02)
        with pytest.raises(EngineError, match="not started"):
            await collect(engine, ask("2", "abc", 5))
        return (await task)[-1]

    assert asyncio.run(run()).finish in (
        Finish("cancelled", what="the engine was closed"),
        Finish("length"),
    )


def test_refused_requests(folder: Path) -> None:
    """What makes no sense is said, for that request alone."""
    image: Message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    wrong = {
        "max_new_tokens": ask("1", "a", 0),
        "temperature": ask("2", "a", 5, Sampling(temperature=-1)),
        "top_p": ask("3", "a", 5, Sampling(top_p=1.5)),
        "empty": ask("4", "", 5),
        "no images": GenerationRequest("5", Prompt((image,)), 5),
        "the prompt is empty": GenerationRequest("6", Prompt(), 5),
    }

    async def use(engine: LocalEngine) -> int:
        for words, request in wrong.items():
            with pytest.raises(UsageError, match=words):
                await collect(engine, request)
        twice = engine.submit(ask("same", "a", 100))
        await anext(twice)
        with pytest.raises(UsageError, match="already running"):
            await collect(engine, ask("same", "a", 5))
        await twice.aclose()
        return len(tokens_of(await collect(engine, ask("same", "a", 5))))

    assert with_engine(folder, use, ignore_end_tokens=True) == 5


# --- prompts


def test_chat_template(folder: Path) -> None:
    """The tokens counted are the tokens sent; a conversation that ends with the assistant is gone on with."""
    turns: tuple[Message, ...] = ({"role": "user", "content": "你好"},)
    begun: tuple[Message, ...] = (*turns, {"role": "assistant", "content": [{"type": "text", "text": "Hel"}]})

    async def use(engine: LocalEngine) -> None:
        for messages, text in (
            (turns, "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n"),
            (begun, "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\nHel"),
        ):
            ids = engine._ready().prompt_ids(Prompt(messages))
            assert engine.tokenizer.decode(ids) == text
            assert (await engine.count_tokens(Prompt(messages))).tokens == len(ids)
            last = (await collect(engine, GenerationRequest("1", Prompt(messages), 2)))[-1]
            assert last.usage is not None
            assert last.usage.prompt_tokens == len(ids)
        assert (await engine.count_tokens(Prompt(raw="你好"))).tokens == 6

    with_engine(folder, use)


# --- sampling


def test_seed_does_not_depend_on_the_batch(folder: Path) -> None:
    seeded = Sampling(temperature=1.5, top_p=0.95, seed=7)

    async def use(engine: LocalEngine) -> list[list[int]]:
        alone = tokens_of(await collect(engine, ask("1", "roll the dice", 40, seeded)))
        others = [ask(f"o{i}", f"noise {i}", 30, Sampling(temperature=1.0, top_k=5 * i)) for i in range(4)]
        together = await asyncio.gather(
            collect(engine, ask("2", "roll the dice", 40, seeded)), *(collect(engine, other) for other in others)
        )
        other_seed = Sampling(temperature=1.5, top_p=0.95, seed=8)
        return [
            alone,
            tokens_of(together[0]),
            tokens_of(await collect(engine, ask("3", "roll the dice", 40, other_seed))),
        ]

    alone, together, other = with_engine(folder, use, ignore_end_tokens=True)
    assert alone == together
    assert alone != other


def test_penalty_and_narrow_sampling_equal_generate(folder: Path, reference: Callable[..., list[int]]) -> None:
    """One batch: a penalty as transformers computes it, and top-k 1 or a tiny top-p, which are greedy."""
    samplings = [
        Sampling(temperature=0, repetition_penalty=1.8),
        Sampling(temperature=1.3, top_k=1),
        Sampling(temperature=1.3, top_p=1e-6),
    ]

    async def use(engine: LocalEngine) -> list[list[Chunk]]:
        return await asyncio.gather(
            *(collect(engine, ask(str(i), "again and again", 40, each)) for i, each in enumerate(samplings))
        )

    penalised, *narrow = map(tokens_of, with_engine(folder, use, ignore_end_tokens=True))
    greedy = reference("again and again", 40)
    assert penalised == reference("again and again", 40, repetition_penalty=1.8)
    assert penalised != greedy
    assert narrow == [greedy, greedy]


def test_defaults_come_from_generation_config(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "m"
    shutil.copytree(folder, copy)
    own = {
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.8,
        "top_k": 20,
        "repetition_penalty": 1.05,
        "eos_token_id": 2,
    }
    (copy / "generation_config.json").write_text(json.dumps(own))

    async def use(engine: LocalEngine) -> list[SamplingParams]:
        asked = Sampling(), Sampling(temperature=0), Sampling(top_k=0, top_p=1.0, seed=3)
        return [SamplingParams.of(each, engine._ready().model.generation_config) for each in asked]

    assert with_engine(copy, use) == [
        SamplingParams(0.7, 0.8, 20, 1.05),
        SamplingParams(0.0, 0.8, 20, 1.05),
        SamplingParams(0.7, 1.0, 0, 1.05, 3),
    ]


def test_sampler_draws_the_distribution() -> None:
    """Rows with different parameters in one call, drawn often: frequencies follow the filtered softmax."""
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    params = [SamplingParams(1.0), SamplingParams(1.0, top_k=2), SamplingParams(1.0, top_p=0.7), SamplingParams(0.0)]
    expected = [[0.5, 0.3, 0.15, 0.05], [0.625, 0.375, 0, 0], [0.625, 0.375, 0, 0], [1, 0, 0, 0]]
    states = [
        SimpleNamespace(
            request_id=str(i),
            initial_tokens=[0],
            generated_tokens=[],
            position_offset=1,
            logit_processor_kwargs={"sampling": each},
        )
        for i, each in enumerate(params)
    ]
    sampler, draws = BatchSampler(), 2000
    counts = [Counter() for _ in params]  # type: ignore[var-annotated]
    torch.manual_seed(0)
    for _ in range(draws):
        sampler.prepare_tensor_args([SimpleNamespace(state=state, has_new_token=True) for state in states], None)  # type: ignore[arg-type]
        scores = sampler(None, probabilities.log().repeat(len(params), 1), None)  # type: ignore[arg-type]
        for row, token in enumerate(scores.argmax(dim=-1).tolist()):
            counts[row][token] += 1
    for count, wanted in zip(counts, expected, strict=True):
        assert [count[token] / draws for token in range(4)] == pytest.approx(wanted, abs=0.05)


def test_norms_are_fused_only_where_equal(folder: Path) -> None:
    from suffice.engines.local.fused_norms import fuse_norms

    class OnePlusRMSNorm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = torch.nn.Parameter(torch.full((32,), 0.5)), 1e-6

        def forward(self, x: Any) -> Any:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon) * (1 + self.weight)

    model, ids = load_model(resolve_model(folder)).model, torch.tensor([[5, 6, 7]])
    model.model.extra_norm = OnePlusRMSNorm()
    with torch.no_grad():
        before, extra = model(ids).logits, model.model.extra_norm(torch.ones(1, 32))
        assert fuse_norms(model) == 2 * 2 + 1
        assert torch.allclose(model(ids).logits, before, atol=1e-4)
        assert torch.equal(model.model.extra_norm(torch.ones(1, 32)), extra)


# --- finding and loading models


def test_short_ids() -> None:
    names = {
        "Qwen2.5-7B-Instruct": "Qwen/Qwen2.5-7B-Instruct",
        "Llama-3.1-8B-Instruct": "meta-llama/Llama-3.1-8B-Instruct",
        "gemma-3-4b-it": "google/gemma-3-4b-it",
        "Mistral-7B-Instruct-v0.3": "mistralai/Mistral-7B-Instruct-v0.3",
        "someone/Qwen-thing": "someone/Qwen-thing",
        "unheard-of": "unheard-of",
    }
    for name, full in names.items():
        source = resolve_model(name)
        assert (source.name, source.location, source.local) == (name, full, False)


def test_a_folder_wins(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, tmp_path / "Qwen2.5-7B-Instruct")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("Qwen2.5-7B-Instruct").local


def test_missing_folders_are_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "output" / "checkpoint-50").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for model in ("./nothing", "output/checkpoint-100", "/nowhere/at/all"):
        with pytest.raises(ModelError, match="no model folder"):
            resolve_model(model)
    with pytest.raises(ModelError, match="checkpoint-50"):
        resolve_model("output/checkpoint-100")
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve_model("output")
    with pytest.raises(ModelError, match="no adapter folder"):
        resolve_model(folder, adapters=["output/checkpoint-100"])
    with pytest.raises(ModelError, match="unknown hub"):
        resolve_model(folder, hub="github")
    with pytest.raises(ModelError, match="unknown dtype"):
        load_model(resolve_model(folder), dtype="int3")
    with pytest.raises(ModelError, match="unknown device"):
        load_model(resolve_model(folder), device="abacus")


def test_only_safetensors(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "m"
    shutil.copytree(folder, copy)
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot load the model in") as caught:
        load_model(resolve_model(copy))
    assert "\n" not in str(caught.value)


def test_a_local_folder_needs_no_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the network was used")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert load_model(resolve_model(folder)).tokenizer.eos_token == "<|im_end|>"


def test_adapters_are_merged_and_name_their_base(
    folder: Path, tmp_path: Path, reference: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    peft = pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)  # whatever lies beside the folder that the tests run in
    base = load_model(resolve_model(folder)).model
    lora = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    torch.manual_seed(1)
    tuned = peft.get_peft_model(base, lora)
    tuned.save_pretrained(tmp_path / "run" / "adapter")
    shutil.copytree(folder, tmp_path / "run" / "base")
    config = tmp_path / "run" / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "../base"}))

    source = resolve_model(adapters=[tmp_path / "run" / "adapter"])
    assert Path(source.location) == (tmp_path / "run" / "base").resolve()
    merged = load_model(source)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        expected = tuned.eval()(ids).logits
        assert torch.allclose(merged.model(ids).logits, expected, atol=1e-4)
        assert not torch.allclose(load_model(resolve_model(folder)).model(ids).logits, expected, atol=1e-2)
    assert not any("lora" in name for name, _ in merged.model.named_parameters())
    with pytest.raises(ModelError, match="use --adapters"):
        resolve_model(tmp_path / "run" / "adapter")


@contextmanager
def hub(monkeypatch: pytest.MonkeyPatch, *, status: int | None) -> Iterator[list[str]]:
    """A hub that answers so, or hangs up on everybody; what it was asked for, but for what is about the library."""
    from huggingface_hub import constants

    paths: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "agent" not in self.path:
                paths.append(self.path)
            if status is not None:
                self.send_error(status)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield paths
        server.shutdown()


@pytest.mark.parametrize(("status", "there"), [(404, True), (403, True), (503, False), (None, False)])
def test_a_hub_is_asked_once_whether_it_is_there(
    status: int | None, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub(monkeypatch, status=status) as asked:
        found = find_on_hub(resolve_model("Qwen2.5-0.5B-Instruct"))
        assert (found.only_here, found.local, found.location) == (not there, False, "Qwen/Qwen2.5-0.5B-Instruct")
        assert find_on_hub(found) == found
        assert asked == ["/api/models/Qwen/Qwen2.5-0.5B-Instruct"]


def test_without_a_hub_a_model_is_taken_that_was_fetched_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    cached = tmp_path / "models--acme--tiny"
    shutil.copytree(folder, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with hub(monkeypatch, status=None) as asked:
        assert load_model(resolve_model("acme/tiny")).tokenizer.eos_token == "<|im_end|>"
        assert asked == ["/api/models/acme/tiny"]
        with pytest.raises(ModelError, match=r"cannot load 'acme/other' .*looked up on the hub"):
            load_model(resolve_model("acme/other"))
