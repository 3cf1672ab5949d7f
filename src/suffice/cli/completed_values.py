"""What a shell offers as the value of a flag or an argument: files, folders, and models that were fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["complete", "fetched_models"]

_KINDS = {"FILE": "file", "FOLDER": "dir", "DIR": "dir", "MODEL": "model"}


def complete(metavar: str, incomplete: str) -> list[CompletionItem[Any]]:
    """Nothing where the metavar (`FILE`, `FOLDER`, `DIR`, `MODEL`) names no such thing."""
    from click.shell_completion import CompletionItem

    kind = _KINDS.get(metavar)
    if kind != "model":
        return [CompletionItem(incomplete, type=kind)] if kind else []
    return [CompletionItem(incomplete, type="dir"), *map(CompletionItem, fetched_models(incomplete))]


def fetched_models(begun: str) -> list[str]:
    """Names of models in the caches that begin so."""
    from suffice.checkpoints.model_cache import fetched_names

    return [name for name in fetched_names() if name.lower().startswith(begun.lower())]
