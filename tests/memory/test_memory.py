"""Memory from arithmetic: parameters, KV cache and training, against the models that transformers and PEFT build."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from small import SMALL
from suffice.errors import UsageError
from suffice.memory import (
    TrainingForecast,
    forecast_training,
    free_memory,
    human_bytes,
    kv_bytes_per_token,
    what_would_fit,
)
from suffice.memory.architecture import Architecture
from suffice.memory.training import _block_bytes_per_token

QWEN25_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
RECIPE = {
    "batch_size": 1,
    "max_length": 2048,
    "lora_rank": 8,
    "gradient_checkpointing": True,
    "weight_bits": 16,
    "compute_bytes": 2,
}


def forecast(config: Mapping[str, Any] = QWEN25_7B, **changes: Any) -> TrainingForecast:
    return forecast_training(config, **{**RECIPE, **changes})


@pytest.mark.parametrize(
    ("model_type", "extra"),
    [
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen2", {"tie_word_embeddings": False, "head_dim": 16}),
        ("qwen3", {"head_dim": 16, "tie_word_embeddings": False}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}),
        ("llama", {"num_key_value_heads": 4}),
        ("mistral", {}),
        ("gemma", {"head_dim": 16}),
        ("gemma2", {"head_dim": 16}),
        ("gemma3_text", {"head_dim": 16}),
        ("glm", {"head_dim": 12, "attention_bias": True}),
        ("glm4", {"head_dim": 12, "attention_bias": True}),
    ],
)
def test_counts_equal_those_of_the_model_that_transformers_and_peft_build(
    model_type: str, extra: dict[str, Any]
) -> None:
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    import transformers

    config = transformers.AutoConfig.for_model(model_type, **{**SMALL, **extra})
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
        written = config.to_diff_dict()  # what config.json has
        assert Architecture.from_config(written).parameters == sum(p.numel() for p in model.parameters())
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert Architecture.from_config(written).lora_parameters(3) == trained


def test_known_models_have_their_published_sizes() -> None:
    assert Architecture.from_config(QWEN25_7B).parameters == 7_615_616_512
    assert kv_bytes_per_token(QWEN25_7B) == 57_344
    assert kv_bytes_per_token(QWEN25_7B, bytes_per_value=1) == 28_672


@pytest.mark.parametrize(
    ("rank", "compute_bytes", "weight_bits", "dropout", "batch_size"),
    [(8, 4, 32, 0.0, 1), (8, 4, 32, 0.1, 2), (8, 2, 16, 0.1, 2), (None, 4, 32, 0.0, 2), (None, 2, 16, 0.0, 2)],
)
def test_activations_are_what_autograd_keeps(
    rank: int | None, compute_bytes: int, weight_bits: int, dropout: float, batch_size: int
) -> None:
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    import transformers

    length = 128
    config = transformers.AutoConfig.for_model("qwen2", **{**SMALL, "hidden_size": 128, "intermediate_size": 352})
    model: Any = transformers.AutoModelForCausalLM.from_config(config)
    model = model.to(torch.bfloat16 if weight_bits == 16 else torch.float32).train()
    if rank is not None:
        lora = peft.LoraConfig(r=rank, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, lora)
        model.enable_input_require_grads()
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    mask = torch.ones(batch_size, length, dtype=torch.long)
    mask[1:, length // 2 :] = 0
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=compute_bytes == 2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        inner = model.base_model.model.model if rank is not None else model.model
        inner(input_ids=torch.randint(3, 99, mask.shape), attention_mask=mask, use_cache=False)
    measured = sum(storage.nbytes() for storage in kept.values())

    setup = forecast(
        config.to_dict(),
        batch_size=batch_size,
        max_length=length,
        lora_rank=rank,
        gradient_checkpointing=False,
        weight_bits=weight_bits,
        compute_bytes=compute_bytes,
        lora_dropout=dropout,
        device="cpu",
    ).setup
    shape = Architecture.from_config(config.to_dict())
    expected = setup.tokens * (shape.layers * _block_bytes_per_token(shape, setup) + 4 * shape.hidden)
    assert expected == pytest.approx(measured, rel=0.04)


def test_the_parts_add_up_and_are_told() -> None:
    found = forecast()
    parts = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "overhead")
    assert found.total == sum(getattr(found, part) for part in parts)
    assert found.weights == 2 * Architecture.from_config(QWEN25_7B).parameters
    assert found.optimizer == 8 * Architecture.from_config(QWEN25_7B).lora_parameters(8)
    assert found.logits == 12 * 2048 * 152064
    text = "\n".join(found.lines())
    assert all(part in text for part in parts)
    assert human_bytes(found.total) in found.lines()[-1]


def test_the_recipe_for_a_7b_model_fits_a_24_gb_card_and_full_training_does_not() -> None:
    assert forecast(lora_dropout=0.05).total < 22 * 2**30
    assert forecast(lora_rank=None).total > 60 * 2**30
    assert forecast(weight_bits=4).total < forecast().total


def test_each_setting_moves_the_peak_the_way_it_should() -> None:
    base = forecast(gradient_checkpointing=False)
    assert forecast(gradient_checkpointing=True).total < base.total
    assert forecast(gradient_checkpointing=False, max_length=1024).total < base.total
    assert forecast(gradient_checkpointing=False, batch_size=2).total > base.total
    assert forecast(gradient_checkpointing=False, lora_dropout=0.05).activations > base.activations
    assert forecast(gradient_checkpointing=False, attention="eager").activations > base.activations
    assert forecast(logit_share=0.25).logits == forecast().logits // 4
    assert forecast(optimizer_bytes_per_parameter=2).optimizer == forecast().optimizer // 4


def test_suggestions_fit_and_the_least_painful_comes_first() -> None:
    setup = forecast(batch_size=8, gradient_checkpointing=False).setup
    free = 23 * 2**30
    suggestions = what_would_fit(QWEN25_7B, setup, free)
    assert suggestions
    assert all(each.forecast.total <= free for each in suggestions)
    assert all(each.forecast == forecast_training(QWEN25_7B, **_fields(each.setup)) for each in suggestions)
    small = replace(setup, batch_size=1, gradient_checkpointing=True)
    assert what_would_fit(QWEN25_7B, small, free) == []  # it fits as it is


def test_changes_add_up_where_one_is_not_enough_and_nothing_is_promised_where_none_is() -> None:
    setup = forecast(batch_size=8, gradient_checkpointing=False, max_length=4096).setup
    (together,) = what_would_fit(QWEN25_7B, setup, 16 * 2**30)
    assert together.change.count(";") >= 1
    assert together.forecast.total <= 16 * 2**30
    assert what_would_fit(QWEN25_7B, setup, 2**30) == []


def test_4_bit_weights_are_not_suggested_for_the_cpu() -> None:
    setup = forecast(device="cpu", weight_bits=32, compute_bytes=4).setup
    assert all(each.setup.weight_bits != 4 for each in what_would_fit(QWEN25_7B, setup, 32 * 2**30))


def _fields(setup: Any) -> dict[str, Any]:
    return {name: getattr(setup, name) for name in setup.__dataclass_fields__}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"weight_bits": 8}, "weight_bits"),
        ({"weight_bits": 4, "lora_rank": None}, "4-bit"),
        ({"lora_rank": 0}, "rank"),
        ({"device": "tpu"}, "tpu"),
        ({"attention": "magic"}, "attention"),
        ({"lora_dropout": 1.5}, "lora_dropout"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        forecast(**changes)


def test_an_architecture_without_arithmetic_is_an_error_that_says_which_have_it() -> None:
    with pytest.raises(UsageError, match=r"mamba.*qwen2"):
        Architecture.from_config({"model_type": "mamba"})
    with pytest.raises(UsageError, match="hidden_size"):
        Architecture.from_config({"model_type": "qwen2"})


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.00 KiB"), (117_440_512, "112 MiB"), (24_050_000_000, "22.4 GiB")],
)
def test_bytes_for_people(size: int, text: str) -> None:
    assert human_bytes(size) == text


def test_free_memory_is_within_what_the_machine_has() -> None:
    psutil = pytest.importorskip("psutil")
    assert 0 < free_memory("cpu") <= psutil.virtual_memory().total
    with pytest.raises(UsageError, match="tpu"):
        free_memory("tpu")
    pytest.importorskip("torch")
    with pytest.raises(UsageError, match="is not there"):
        free_memory("cuda:99")


def test_freed_memory_goes_back_to_the_system() -> None:
    program = """
import psutil
from suffice.memory import return_freed_memory
returned = return_freed_memory()
rss = lambda: psutil.Process().memory_info().rss
before = rss()
for _ in range(3):  # left alone, glibc keeps the third lot: a small block above it pins its heap
    large = [bytearray(b"x") * (4 << 20) for _ in range(32)]
    small = [bytearray(b"x") * 100_000 for _ in range(8)]
    del large
print(returned, rss() - before < 64 << 20)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() in (["True", "True"], ["False", "True"], ["False", "False"])


def test_importing_the_room_loads_no_torch() -> None:
    program = (
        "import sys, suffice.memory; print(sorted({'torch', 'numpy', 'psutil', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
