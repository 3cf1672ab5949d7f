"""Who generates: the protocol, and two engines, `local` (transformers) and `openai` (any OpenAI-compatible server)."""

from __future__ import annotations

from typing import Any

from suffice.deprecated import renamed
from suffice.engines.base import (
    AnswerPrefix,
    Attempt,
    Capabilities,
    Chunk,
    Engine,
    Finish,
    GenerationRequest,
    Health,
    Message,
    Sampling,
    TokenCount,
    Usage,
)
from suffice.errors import UsageError

__all__ = [
    "AnswerPrefix",
    "Attempt",
    "Capabilities",
    "Chunk",
    "Engine",
    "Finish",
    "GenerationRequest",
    "Health",
    "Message",
    "Sampling",
    "TokenCount",
    "Usage",
    "open_engine",
]


def open_engine(model: str | None = None, *, upstream: str | None = None, **settings: Any) -> Engine:
    """The engine for a model or for a server's URL, not yet entered; nothing heavy is imported for a server.

    Args:
        model: what to load, or the model's name on the server; the bundled model, or the server's first, when None.
        upstream: URL of an OpenAI-compatible server.
        settings: keyword arguments of `LocalEngine` or `RemoteEngine`.

    Raises:
        UsageError: the packages that the engine needs are not installed.
    """
    try:
        if upstream:
            from suffice.engines.openai.engine import RemoteEngine

            return RemoteEngine(upstream, model=model, **settings)
        from suffice.engines.local.engine import LocalEngine

        return LocalEngine(model, **settings)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("suffice"):
            raise
        extra = "suffice" if upstream else "suffice[local]"
        raise UsageError(f"this engine needs the package {error.name}: pip install '{extra}'") from None


__getattr__ = renamed(__name__, {"Prefix": "AnswerPrefix", "Capacity": "Capabilities"})
