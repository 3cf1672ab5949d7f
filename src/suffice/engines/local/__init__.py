"""The local engine: transformers' continuous batching in this process, on CPU or one CUDA device."""

from suffice.engines.local.engine import LocalEngine

__all__ = ["LocalEngine"]
