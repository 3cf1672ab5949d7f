"""Forecasts the peak memory of training, part by part.

The forecast describes PyTorch's autograd as transformers and PEFT drive it: LoRA on every linear layer of the blocks
(or every weight), AdamW, plain cross-entropy, no fused kernels. Every part says where it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from suffice.errors import UsageError
from suffice.memory.architecture import Architecture
from suffice.memory.device import RUNTIME_BYTES, human_bytes

__all__ = ["TrainingForecast", "TrainingSetup", "forecast_setup", "forecast_training"]

_ADAPTER_BYTES = 4  # PEFT keeps adapters in float32 whatever the model's own type (`autocast_adapter_dtype`)
_LOSS_BYTES = 3 * 4  # float32, per logit: log-probabilities, their gradient, and the gradient of the logits
_NF4_BYTES = (4 + 0.127) / 8  # per weight, with double quantisation: Dettmers et al. 2023, "QLoRA", section 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """What decides how much memory a training run takes, besides the model."""

    batch_size: int
    """Rows per forward pass on one device; accumulation does not count."""
    max_length: int
    """Tokens of the longest row of a batch."""
    lora_rank: int | None
    """Rank of LoRA on all linear layers; None trains every weight."""
    gradient_checkpointing: bool
    """Keep only each block's input and compute the rest again in the backward pass."""
    weight_bits: int
    """Bits per weight of the base model: 32, 16, or 4 (NF4 with double quantisation on the blocks' linear layers)."""
    compute_bytes: int
    """Bytes per value of an activation: 4 for float32, 2 for bfloat16 and float16."""
    optimizer_bytes_per_parameter: int = 8
    """AdamW in float32 keeps two averages of four bytes; 8-bit AdamW keeps 2 bytes; plain SGD none."""
    attention: str = "sdpa"
    """`sdpa` and `flash_attention_2` never hold the attention matrix; `eager` does."""
    device: str = "cuda"
    """`cpu`, `cuda` or `cuda:N`; decides what the runtime itself takes."""
    lora_dropout: float = 0.0
    """Share of the adapter's inputs that are dropped; above 0 each layer keeps a copy of its input and a mask."""
    logit_share: float = 1.0
    """Share of a batch's tokens for which logits are computed: 1 unless the trainer leaves out the prompts' ones."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_length"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.lora_rank is not None and self.lora_rank < 1:
            raise UsageError(f"LoRA rank is {self.lora_rank}; it must be 1 or more")
        if self.weight_bits not in (32, 16, 4):
            raise UsageError(f"weight_bits is {self.weight_bits}; it must be 32, 16 or 4")
        if self.weight_bits == 4 and self.lora_rank is None:
            raise UsageError("4-bit weights cannot be trained themselves: give a LoRA rank, or 16 bits")
        if self.compute_bytes not in (2, 4):
            raise UsageError(f"compute_bytes is {self.compute_bytes}; it must be 2 or 4")
        if self.attention not in ("sdpa", "flash_attention_2", "eager"):
            raise UsageError(f"attention is {self.attention!r}; it must be sdpa, flash_attention_2 or eager")
        for name in ("lora_dropout", "logit_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be between 0 and 1")
        if self.device_type not in RUNTIME_BYTES:
            raise UsageError(f"unknown device {self.device!r}: it must be cpu, cuda or cuda:N")

    @property
    def tokens(self) -> int:
        """Of one forward pass."""
        return self.batch_size * self.max_length

    @property
    def device_type(self) -> str:
        """The device without its number."""
        return self.device.partition(":")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingForecast:
    """Bytes at the peak of a training step, part by part."""

    setup: TrainingSetup
    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    """What the backward pass needs of the forward pass."""
    logits: int
    """What the loss holds at its worst moment."""
    overhead: int
    """The runtime's own: libraries' buffers, CUDA context, dequantised weights."""

    @property
    def total(self) -> int:
        return sum(size for _, size, _ in self._parts())

    def lines(self) -> list[str]:
        """The breakdown for a person: a line per part that is not zero, and the total."""
        rows = [(name, human_bytes(size), what) for name, size, what in self._parts() if size]
        rows.append(("total", human_bytes(self.total), "forecast of the peak"))
        width = max(len(size) for _, size, _ in rows)
        return [f"{name:<11}  {size:>{width}}  {what}" for name, size, what in rows]

    def _parts(self) -> tuple[tuple[str, int, str], ...]:
        setup = self.setup
        kept = "block inputs only" if setup.gradient_checkpointing else "of every block"
        trained = "weights" if setup.lora_rank is None else "adapter"
        return (
            ("weights", self.weights, f"{setup.weight_bits}-bit base model"),
            ("adapter", self.adapter, f"LoRA rank {setup.lora_rank} on all linear layers"),
            ("gradients", self.gradients, f"of the {trained}"),
            ("optimizer", self.optimizer, f"{setup.optimizer_bytes_per_parameter} bytes per trained parameter"),
            ("activations", self.activations, f"{setup.batch_size} x {setup.max_length} tokens, {kept}"),
            ("logits", self.logits, f"{setup.batch_size} x {setup.max_length} x vocabulary, in float32"),
            ("overhead", self.overhead, "runtime and buffers"),
        )


def forecast_training(config: Mapping[str, Any], **setup: Any) -> TrainingForecast:
    """The peak memory of a training step on one device.

    Args:
        config: the model's `config.json`.
        setup: the fields of `TrainingSetup`.

    Raises:
        UsageError: a setting outside its range, or a model whose arithmetic is not known.
    """
    checked = TrainingSetup(**setup)
    return forecast_setup(Architecture.from_config(config), checked)


def forecast_setup(shape: Architecture, setup: TrainingSetup) -> TrainingForecast:
    weights = _weight_bytes(shape, setup)
    adapter_parameters = shape.lora_parameters(setup.lora_rank) if setup.lora_rank is not None else 0
    trained = adapter_parameters or shape.parameters
    logits = round(_LOSS_BYTES * setup.tokens * setup.logit_share) * shape.vocabulary
    return TrainingForecast(
        setup=setup,
        weights=weights,
        adapter=_ADAPTER_BYTES * adapter_parameters,
        gradients=trained * (_ADAPTER_BYTES if adapter_parameters else setup.weight_bits // 8),
        optimizer=setup.optimizer_bytes_per_parameter * trained,
        activations=_activation_bytes(shape, setup, logits),
        logits=logits,
        overhead=_overhead_bytes(shape, setup),
    )


def _weight_bytes(shape: Architecture, setup: TrainingSetup) -> int:
    """Bytes of the base model, copies that autocast makes of float32 weights included.

    With 4 bits, bitsandbytes quantises the blocks' linear layers and PEFT's `prepare_model_for_kbit_training` widens
    all the rest, embeddings above all, to float32; autocast narrows a copy of the output embedding.
    """
    if setup.weight_bits == 4:
        rest = shape.parameters - shape.linear_parameters
        return round(_NF4_BYTES * shape.linear_parameters) + 4 * rest + 2 * shape.vocabulary * shape.hidden
    copies = 2 * shape.linear_parameters if setup.weight_bits == 32 and setup.compute_bytes == 2 else 0
    return shape.parameters * setup.weight_bits // 8 + copies


def _activation_bytes(shape: Architecture, setup: TrainingSetup, logits: int) -> int:
    """Bytes that the forward pass leaves for the backward pass.

    With checkpointing that is each block's input (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
    One block's working set comes on top where it is larger than what the loss has given back by then.
    """
    block = setup.tokens * _block_bytes_per_token(shape, setup)
    block_input = setup.tokens * shape.hidden * _stream_bytes(setup)
    gradients = setup.tokens * setup.compute_bytes * (3 * shape.intermediate + 2 * shape.hidden)
    working = gradients + (block if setup.gradient_checkpointing else 0)
    kept = shape.layers * (block_input if setup.gradient_checkpointing else block)
    final_norm = 4 * setup.tokens * shape.hidden
    return kept + final_norm + max(0, working - logits)


def _stream_bytes(setup: TrainingSetup) -> int:
    """Bytes per value of what flows between blocks: the type of the embedding."""
    return setup.compute_bytes if setup.weight_bits == 16 else 4


def _block_bytes_per_token(shape: Architecture, setup: TrainingSetup) -> int:
    """Bytes that autograd keeps of one block, per token.

    After Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", section 4.1, with
    these changes: the attention matrix is not kept (Dao et al. 2022, "FlashAttention": queries, keys, values, output
    and one float32 per head are); the MLP is gated (Shazeer 2020, "GLU Variants"), which keeps gate, activated gate, up
    projection and product; RMSNorm works in float32 and has no dropout after it; and a linear layer keeps its input
    only for weights that are trained, so with LoRA for the adapter's A. Under autocast each of these inputs is a copy
    of its own, since the float32 adapter makes PEFT widen the input and autocast narrow it again, layer by layer; so it
    is with dropout, which also keeps its mask (a byte per value on CUDA, a float32 on the CPU).
    """
    value, full = setup.compute_bytes, setup.lora_rank is None
    padded = setup.batch_size > 1
    keys = shape.query_size if padded else shape.kv_size  # beside a padding mask, transformers repeats them
    attention = value * 2 * (shape.query_size + keys) + 4 * shape.heads
    if setup.attention == "eager":
        attention += (4 if value == 4 else 4 + value) * shape.heads * setup.max_length  # softmax in float32, and a copy
    elif padded and setup.attention == "sdpa":
        attention += value * setup.max_length  # the mask, as numbers, once per block
    norms = shape.family.norms_per_layer * shape.hidden * (4 + (_stream_bytes(setup) if full else 0))
    if shape.family.head_norms:
        norms += 4 * (shape.query_size + shape.kv_size)
    dropout = bool(setup.lora_rank and setup.lora_dropout)
    if dropout or (value == 2 and (not full or setup.weight_bits == 32)):
        mask = 0 if not dropout else 4 if setup.device_type == "cpu" else 1
        linear_inputs = (value + mask) * sum(inputs for inputs, _, _ in shape.linears)
    else:  # layers with the same input share it, and the output projection's is the attention's output
        linear_inputs = value * (2 * shape.hidden + shape.intermediate)
    lora = len(shape.linears) * (setup.lora_rank or 0)
    return norms + attention + linear_inputs + value * (3 * shape.intermediate + lora)


def _overhead_bytes(shape: Architecture, setup: TrainingSetup) -> int:
    """Bytes of the runtime, and of the largest weight matrix while it is dequantised."""
    largest = max(inputs * outputs for inputs, outputs, _ in shape.linears)
    return RUNTIME_BYTES[setup.device_type] + (2 * largest if setup.weight_bits == 4 else 0)
