"""What an engine changes of a model while it runs, and how all of it is put back."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from suffice.engines.local import paged_attention
from suffice.engines.local.fused_norms import fuse_norms, unfuse_norms

__all__ = ["BorrowedModel", "Way"]


@dataclass(frozen=True, slots=True)
class Way:
    """How a model is run. Every way gives the same answers."""

    attention: Literal["flash", "paged", "masked"]
    """flash-attention, attention by pages in plain PyTorch, or transformers' own with masks."""
    graphs: bool = False
    """Whether decoding steps are recorded as CUDA graphs."""

    def __str__(self) -> str:
        name = {"flash": "flash-attention", "paged": "attention by pages", "masked": "transformers' attention"}
        return name[self.attention] + (" with CUDA graphs" if self.graphs else "")


class BorrowedModel:
    """A model as it was before an engine took it: its attention, the hooks on it, its norms.

    An engine that ends, or that fails to start, leaves nothing on the model, so that the next one, or a training, finds
    it as it was loaded.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._attention: str = model.config._attn_implementation
        self._hooks: list[Any] = []

    def run(self, way: Way) -> None:
        """Set the model up for a way."""
        fuse_norms(self.model)
        name = self._name_of(way)
        if name == paged_attention.PAGED_ATTENTION:
            paged_attention.register()
        if name != self._attention:
            self.model.set_attn_implementation(name)

    def before_forward(self, hook: Callable[..., Any]) -> None:
        """Call `hook` with the arguments of each forward pass, which it may change."""
        self._hooks.append(self.model.register_forward_pre_hook(hook, with_kwargs=True))

    def give_back(self) -> None:
        """Put everything back. May be called again."""
        while self._hooks:
            self._hooks.pop().remove()
        unfuse_norms(self.model)
        if self.model.config._attn_implementation != self._attention:
            self.model.set_attn_implementation(self._attention)
        if self.model.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    def _name_of(self, way: Way) -> str:
        """What transformers calls the attention of a way."""
        if way.attention == "paged":
            return paged_attention.PAGED_ATTENTION
        if way.attention == "flash":
            from transformers.utils.import_utils import is_flash_attn_3_available

            return f"flash_attention_{3 if is_flash_attn_3_available() else 2}"
        if self._attention != "sdpa" or paged_attention.has_sinks(self.model):
            return "paged|eager"  # the only one of transformers' own that knows sinks
        return "sdpa"
