"""Forecast of the training peak against the measured one, on a randomly initialised model of Qwen2.5-0.5B's shape.

Each setting runs in a process of its own: LoRA rank 8 with dropout on all linear layers, transformers' Trainer, PEFT,
float32 on the CPU. Measured is the highest resident memory of the process (VmHWM) minus what was resident before the
model was built, with glibc told to return what is freed (--keep_freed leaves glibc as it is).

    python benchmarks/training_memory.py [--steps 2] [--only 1,256,0 4,128,1] [--json results.json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from suffice.memory import forecast_training, human_bytes, return_freed_memory

QWEN25_05B = {
    "model_type": "qwen2",
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
SETTINGS = ((1, 256, False), (4, 128, True), (1, 512, True))  # batch size, tokens of the longest row, checkpointing
LORA_RANK, LORA_DROPOUT = 8, 0.05


def resident(field: str) -> int:
    """Bytes that /proc says of this process: VmRSS now, VmHWM at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise SystemExit(f"no {field} in /proc/self/status: this benchmark needs Linux")


def rows(batch_size: int, length: int, vocabulary: int, count: int) -> list[dict[str, list[int]]]:
    """Rows of which one per batch is `length` tokens long and the others shorter, so that they are padded."""
    import random

    generator = random.Random(0)
    made = []
    for index in range(count):
        size = length if index % batch_size == 0 else length - 1 - index % batch_size * length // 8
        ids = [generator.randrange(vocabulary) for _ in range(size)]
        made.append({"input_ids": ids, "labels": ids, "attention_mask": [1] * size})
    return made


def collate(batch: list[dict[str, list[int]]]) -> dict[str, Any]:
    """Pad on the right; labels with -100."""
    import torch

    longest = max(len(row["input_ids"]) for row in batch)
    padding = {"input_ids": 0, "labels": -100, "attention_mask": 0}
    return {
        name: torch.tensor([row[name] + [fill] * (longest - len(row[name])) for row in batch])
        for name, fill in padding.items()
    }


def measure(batch_size: int, length: int, checkpointing: bool, steps: int, keep_freed: bool) -> int:
    """Train in this process; the peak in bytes."""
    import peft
    import transformers

    config = transformers.AutoConfig.for_model(**QWEN25_05B)
    data = rows(batch_size, length, config.vocab_size, batch_size * steps)
    if not keep_freed:
        return_freed_memory()
    before = resident("VmRSS")
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.config.use_cache = False
    if checkpointing:
        model.enable_input_require_grads()
    lora = peft.LoraConfig(
        r=LORA_RANK, lora_alpha=32, lora_dropout=LORA_DROPOUT, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(model, lora)
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=batch_size,
            max_steps=steps,
            gradient_checkpointing=checkpointing,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
            train_sampling_strategy="sequential",
        )
        transformers.Trainer(model=model, args=arguments, train_dataset=data, data_collator=collate).train()
    return resident("VmHWM") - before


def forecast(batch_size: int, length: int, checkpointing: bool) -> int:
    """The forecast for the same setting, in bytes."""
    return forecast_training(
        QWEN25_05B,
        batch_size=batch_size,
        max_length=length,
        lora_rank=LORA_RANK,
        lora_dropout=LORA_DROPOUT,
        gradient_checkpointing=checkpointing,
        weight_bits=32,
        compute_bytes=4,
        device="cpu",
    ).total


def main() -> None:
    """Run every setting in its own process and print forecast, measured and the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="settings as batch,length,checkpointing(0 or 1)")
    parser.add_argument("--keep_freed", action="store_true", help="do not call return_freed_memory()")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        batch_size, length, checkpointing = map(int, arguments.measure.split(","))
        print(measure(batch_size, length, bool(checkpointing), arguments.steps, arguments.keep_freed))
        return
    settings = [tuple(map(int, text.split(","))) for text in arguments.only or ()] or SETTINGS
    keep_freed = ["--keep_freed"] if arguments.keep_freed else []
    results = []
    print(f"{'batch':>5} {'length':>6} {'checkpointing':>13} {'forecast':>10} {'measured':>10} {'off by':>7}")
    for batch_size, length, checkpointing in settings:
        command = [sys.executable, __file__, "--steps", str(arguments.steps), *keep_freed, "--measure"]
        child = subprocess.run(
            [*command, f"{batch_size},{length},{int(checkpointing)}"], stdout=subprocess.PIPE, text=True, check=True
        )
        measured, expected = int(child.stdout.split()[-1]), forecast(batch_size, length, bool(checkpointing))
        off = expected / measured - 1
        print(
            f"{batch_size:>5} {length:>6} {'yes' if checkpointing else 'no':>13} {human_bytes(expected):>10} "
            f"{human_bytes(measured):>10} {off:>+7.1%}",
            flush=True,
        )
        results.append(
            {
                "batch_size": batch_size,
                "max_length": length,
                "gradient_checkpointing": bool(checkpointing),
                "forecast_bytes": expected,
                "measured_bytes": measured,
            }
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
