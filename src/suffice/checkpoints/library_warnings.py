"""Keeps what libraries tell each other away from the user."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_library_warnings"]


@contextmanager
def without_library_warnings() -> Iterator[None]:
    """No deprecations, and no warnings of the libraries that engines and training stand on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", module="peft|transformers|torch")
        yield
