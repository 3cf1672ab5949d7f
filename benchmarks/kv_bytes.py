"""KV bytes as computed against those that exist, for every causal model that transformers builds from a small config.

For each family: the keys and values that a forward pass keeps, the tensor that the local engine's paged cache
allocates, and whether the engine then answers a request.

    python benchmarks/kv_bytes.py [--only qwen2 gemma3_text]
"""

from __future__ import annotations

import argparse
import signal
import threading
import warnings
from typing import Any

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from suffice.engines.local.cache_size import CacheWish, kv_layout
from suffice.engines.local.sampling import SamplingParams
from suffice.engines.local.start_up import start_manager
from suffice.errors import SufficeError
from suffice.memory import KvLayout

SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_attention_heads", "n_head"), 4),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "head_dim": 12,
    "moe_intermediate_size": 32,
    "sliding_window": 8,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "shared_expert_intermediate_size": 32,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LATENT = {"num_key_value_heads": 4, "head_dim": 8, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8}
LATENT |= {"qk_nope_head_dim": 8, "v_head_dim": 16}
TOKENS, LARGEST = 6, 30_000_000
SECONDS = 20  # for one family


def build(family: str) -> Any:
    """A small random model of a family, or an exception."""
    kind = type(transformers.AutoConfig.for_model(family))
    known = kind().to_dict() | dict.fromkeys(getattr(kind, "attribute_map", {}))
    sizes = SIZES | LATENT if known.get("kv_lora_rank") else SIZES
    config = transformers.AutoConfig.for_model(family, **{name: size for name, size in sizes.items() if name in known})
    if getattr(config, "is_decoder", None) is False:
        config.is_decoder = True
    with torch.device("meta"):
        size = sum(each.numel() for each in transformers.AutoModelForCausalLM.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError("has sizes of its own that make it large")
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def kept_bytes(model: Any) -> int:
    """Bytes of the keys and values that a forward pass over `TOKENS` tokens keeps."""
    with torch.no_grad():
        cache = model(torch.randint(3, 90, (1, TOKENS)), use_cache=True).past_key_values
    tensors = [getattr(layer, name, None) for layer in cache.layers for name in ("keys", "values")]
    return sum(each.nbytes for each in tensors if each is not None)


def allocated_bytes(model: Any) -> tuple[int, bool]:
    """Bytes of the paged cache of 100 tokens, and whether the engine answers a request with it."""
    outputs: list[Any] = []
    done = threading.Event()

    def deliver(some: list[Any]) -> None:
        outputs.extend(some)
        done.set()

    started = start_manager(model, 128, CacheWish(kv_tokens=100, step_tokens=32), deliver, lambda error: done.set())
    manager: Any = started.manager
    size = int(manager.batch_processor.cache.cache_tensor.nbytes)
    manager.add_request([5, 6, 7, 8], "a", max_new_tokens=12, eos_token_id=[-1], sampling=SamplingParams())
    done.wait(SECONDS)
    answered = bool(outputs) and outputs[0].error is None
    started.close()
    return size, answered


def compare(family: str) -> str:
    """One line: `exact`, or what differs."""
    model = build(family)
    value = model.dtype.itemsize
    layout = kv_layout(model)
    kept = kept_bytes(model)
    if kept != layout.bytes_for(TOKENS, value):
        return f"DIFFERS: kept {kept}, computed {layout.bytes_for(TOKENS, value)}"
    if KvLayout.from_config(model.config.get_text_config().to_diff_dict()) != layout:
        return "DIFFERS: config.json is read otherwise than the whole config"
    try:
        size, answered = allocated_bytes(model)
    except Exception as error:  # whatever transformers says of models that it cannot batch
        return f"kept exact; the engine does not run it: {str(error).splitlines()[0][:80]}"
    if not answered:
        return "kept exact; the engine does not run it"
    computed = layout.paged_bytes(100, 16, value)
    return "exact" if size == computed else f"DIFFERS: allocated {size}, computed {computed}"


def main() -> None:
    """Every family, one line each, and the sum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)

    def too_long(*signal_and_frame: object) -> None:
        raise TimeoutError(f"took longer than {SECONDS} s")

    signal.signal(signal.SIGALRM, too_long)
    counted = {"exact": 0, "kept exact": 0, "DIFFERS": 0, "not compared": 0}
    for family in arguments.only or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        signal.alarm(SECONDS)
        try:
            line = compare(family)
        except SufficeError as error:
            line = f"not compared: refused: {error}"
        except Exception as error:  # a family that needs more than sizes, or keeps no cache
            line = f"not compared: {type(error).__name__} {str(error).strip()[:90]}".replace("\n", " ")
        signal.alarm(0)
        counted[next(key for key in ("kept exact", "exact", "DIFFERS", "not compared") if line.startswith(key))] += 1
        print(f"{family:<26} {line}", flush=True)
    print(", ".join(f"{key}: {number}" for key, number in counted.items()))


if __name__ == "__main__":
    main()
