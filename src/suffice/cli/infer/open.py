"""Opens what the flags of `infer` name: an engine, and a session on it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from suffice.cli.infer.options import InferOptions
    from suffice.engines.base import Engine
    from suffice.session import Session

__all__ = ["engine_of", "session_of"]


def engine_of(options: InferOptions) -> Engine:
    """The engine that the flags name, not yet entered.

    Raises:
        UsageError: there is no such kind, or the packages that it needs are not installed.
    """
    from suffice.engines import open_engine

    if options.upstream and options.engine is None:
        return open_engine(options.model, upstream=options.upstream, tokenizer=options.tokenizer)
    if options.model is None and not options.adapters and options.engine in (None, "local"):
        print("notice: no --model given, so this is the bundled toy model, suffice-tiny", file=sys.stderr)
    return open_engine(
        options.model,
        engine=options.engine,
        upstream=options.upstream,
        tokenizer=options.tokenizer,
        adapters=options.adapters,
        hub=options.hub,
        dtype=options.dtype,
        device=options.device,
        trust_remote_code=options.trust_remote_code,
    )


def session_of(options: InferOptions, engine: Engine) -> Session:
    """A session on `engine`; an adapter's length profile, where it has one, takes part in *auto* budgets.

    Raises:
        DataError: a length profile is damaged.
    """
    from suffice.budget import Budgeter
    from suffice.session import Session

    budgeter = Budgeter.load(length_model=Path(options.length_model) if options.length_model else None)
    return Session(engine, budgeter.with_profiles(options.adapters))
