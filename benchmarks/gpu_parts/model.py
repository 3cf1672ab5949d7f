"""Makes the random model, on the device, with the bundled tokenizer widened to its vocabulary."""

from __future__ import annotations

import json
import random
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from gpu_parts.results import PartResult
from gpu_parts.sizes import Inference, Size

__all__ = ["make_model", "prompts_of"]

_BUNDLED_WORDS = 4096  # tokens of the bundled tokenizer


def make_model(folder: Path, size: Size) -> PartResult:
    """Write weights, bf16 on a card and float32 on the CPU, and a tokenizer."""
    import torch
    import transformers

    dtype = torch.float32 if size.device == "cpu" else torch.bfloat16
    config = transformers.Qwen2Config(**size.shape, eos_token_id=2, pad_token_id=0)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    model = model.to_empty(device=size.device)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0) if "norm" in name else parameter.normal_(std=0.02)
    model.save_pretrained(folder)
    written = sum(parameter.nbytes for parameter in model.parameters())
    _write_tokenizer(folder, int(size.shape["vocab_size"]))
    return PartResult("make", [{"parameters": model.num_parameters(), "bytes": written}])


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    """The bundled one, with words that no text becomes for the ids beyond it: every id has a text."""
    with as_file(files("suffice.models") / "tiny") as bundled:
        data = json.loads((bundled / "tokenizer.json").read_text("utf-8"))
        for name in ("tokenizer_config.json", "chat_template.jinja"):
            (folder / name).write_text((bundled / name).read_text("utf-8"), "utf-8")
    words = data["model"]["vocab"]
    words |= {f"w{number}.": number for number in range(len(words), vocabulary)}
    (folder / "tokenizer.json").write_text(json.dumps(data), "utf-8")


def prompts_of(asked: Inference, seed: int) -> list[tuple[int, ...]]:
    """Token ids of each prompt, no two alike, so that nothing profits from a cache of prefixes."""
    generator = random.Random(seed)
    return [tuple(generator.choices(range(8, _BUNDLED_WORDS), k=asked.prompt)) for _ in range(asked.requests)]


def row_of(tokenizer: Any, tokens: int, seed: int) -> dict[str, Any]:
    """A conversation for training, of at least so many tokens."""
    generator = random.Random(seed)
    text = tokenizer.decode(generator.choices(range(512, _BUNDLED_WORDS), k=2 * tokens))
    return {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": text}]}
