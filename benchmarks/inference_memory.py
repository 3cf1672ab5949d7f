"""Forecast of weights and of the inference peak against measured ones, on a random model of Qwen2.5-0.5B's shape.

Each setting runs in a process of its own, through the local engine, float32 on the CPU: so many requests at once, each
with a prompt and an answer of the given lengths. Measured are the tensors of the weights, and the highest resident
memory (VmHWM) minus what was resident before the model was loaded, with glibc told to return what is freed.

    python benchmarks/inference_memory.py [--only 1,512,32 8,256,64] [--json results.json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from suffice.memory import KvLayout, ModelSize, Serving, ServingMemory, human_bytes, return_freed_memory, weight_bytes
from suffice.prompt import Prompt
from training_memory import QWEN25_05B, resident

SETTINGS = ((1, 512, 16), (4, 64, 8), (16, 16, 8))  # requests at once, tokens of the prompt, tokens of the answer
STEP_TOKENS = 512


def forecast(requests: int, prompt: int, answer: int) -> tuple[int, int]:
    """Bytes of the weights, and of the peak."""
    serving = Serving(
        weight_bits=32,
        kv_bits=32,
        step_tokens=min(STEP_TOKENS, requests * prompt),
        step_requests=requests,
        device="cpu",
        read_tokens=prompt,
    )
    memory = ServingMemory.of(QWEN25_05B, serving, device_bytes=0)
    kv = KvLayout.from_config(QWEN25_05B).paged_bytes(requests * (prompt + answer), 16, 4)
    weights = weight_bytes(ModelSize.from_config(QWEN25_05B), 32)
    return weights, memory.weights + memory.activations + memory.overhead + kv


async def measure(folder: str, requests: int, prompt: int, answer: int) -> tuple[int, int]:
    """Answer in this process; bytes of the weights, and at the peak."""
    from suffice.engines.base import GenerationRequest, Sampling
    from suffice.engines.local.engine import LocalEngine

    greedy, kv_tokens = Sampling(temperature=0), requests * (prompt + answer)
    engine = LocalEngine(
        folder, device="cpu", kv_tokens=kv_tokens, max_batch_tokens=STEP_TOKENS, ignore_end_tokens=True
    )
    return_freed_memory()
    before = resident("VmRSS")
    async with engine:
        weights = sum(parameter.nbytes for parameter in engine._ready().model.parameters())

        async def one(number: int) -> None:
            text = f"p{number} " + "a " * (prompt - 1)  # no two alike: equal beginnings would share their cache
            async for _ in engine.submit(GenerationRequest(str(number), Prompt(raw=text), answer, sampling=greedy)):
                pass

        await asyncio.gather(*map(one, range(requests)))
        return weights, resident("VmHWM") - before


def save_model(folder: str) -> None:
    """Write random weights, and a tokenizer of words."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**QWEN25_05B))
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    model.tie_weights()
    model.save_pretrained(folder)
    words = {word: number for number, word in enumerate(["a", "<end>", *(f"p{i}" for i in range(256))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)


def main() -> None:
    """Run every setting in its own process and print forecast, measured and the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="settings as requests,prompt,answer")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--save", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.save:
        save_model(arguments.save)
        return
    if arguments.measure:
        import torch  # noqa: F401 - libraries that every run loads are not the model's
        import transformers  # noqa: F401

        folder, setting = arguments.measure
        print(*asyncio.run(measure(folder, *map(int, setting.split(",")))))
        return
    settings = [tuple(map(int, text.split(","))) for text in arguments.only or ()] or SETTINGS
    results = []
    print(f"{'requests':>8} {'prompt':>6} {'answer':>6}  {'weights':>20}  {'':>7}  {'peak':>20}")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, "--save", folder], check=True)
        for requests, prompt, answer in settings:
            command = [sys.executable, __file__, "--measure", folder, f"{requests},{prompt},{answer}"]
            child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            measured = [int(word) for word in child.stdout.split()[-2:]]
            expected = forecast(requests, prompt, answer)
            rows = [f"{human_bytes(a)} / {human_bytes(b)}" for a, b in zip(expected, measured, strict=True)]
            off = [a / b - 1 for a, b in zip(expected, measured, strict=True)]
            figures = f"{rows[0]:>20}  {off[0]:>+7.1%}  {rows[1]:>20}  {off[1]:>+7.1%}"
            print(f"{requests:>8} {prompt:>6} {answer:>6}  {figures}", flush=True)
            setting = {"requests": requests, "prompt": prompt, "answer": answer}
            results.append({**setting, "forecast_bytes": expected, "measured_bytes": measured})
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
