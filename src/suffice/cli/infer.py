"""`suffice infer`: a chat, one prompt, or a whole dataset, on a local model or on a server."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suffice.cli.command import Command
from suffice.cli.options import InferOptions, infer_options
from suffice.errors import UsageError

if TYPE_CHECKING:
    from suffice.engines.base import Engine
    from suffice.session import Session

__all__ = ["command", "engine_of", "session_of"]

_EXAMPLES = """
suffice infer                                               chat with the bundled model
suffice infer --prompt '列出三种水果'                         one answer
suffice infer --model Qwen2.5-7B-Instruct --stream true --temperature 0 --max_new_tokens 2048
suffice infer --adapters output/v0-20260101-120000/checkpoint-100 --max_new_tokens 256
suffice infer --dataset in.jsonl#500 --output out.jsonl     many answers; --resume after a crash
suffice infer --upstream http://127.0.0.1:8000 --prompt hi  any OpenAI-compatible server
"""


def _run(**flags: Any) -> int:
    """Answer prompts at the length that each of them needs.

    With nothing to answer, this is a chat. Every answer says how many tokens it took, why it ended, and what its budget
    was.
    """
    options = InferOptions(**flags).with_preset()
    options.check()
    if options.dataset:
        from suffice.cli.batch import infer_dataset

        return infer_dataset(options)
    if options.prompt is not None or not sys.stdin.isatty():
        return asyncio.run(_answer_once(options))
    from suffice.cli.chat import chat

    return chat(options)


def engine_of(options: InferOptions) -> Engine:
    """The engine that the flags name, not yet entered.

    Raises:
        UsageError: the packages that it needs are not installed.
    """
    from suffice.engines import open_engine

    if options.upstream:
        return open_engine(options.model, upstream=options.upstream, tokenizer=options.tokenizer)
    if options.model is None and not options.adapters:
        print("notice: no --model given, so this is the bundled toy model, suffice-tiny", file=sys.stderr)
    return open_engine(
        options.model,
        adapters=options.adapters,
        hub=options.hub,
        dtype=options.dtype,
        device=options.device,
        trust_remote_code=options.trust_remote_code,
    )


def session_of(options: InferOptions, engine: Engine) -> Session:
    """The session over `engine`; an adapter's length profile, where it has one, takes part in *auto* budgets.

    Raises:
        DataError: a length profile is damaged.
    """
    from suffice.budget import Budgeter
    from suffice.budget.estimators import Keywords
    from suffice.budget.profile import LengthProfile, ProfileEstimator
    from suffice.session import Session

    budgeter = Budgeter.load(length_model=Path(options.length_model) if options.length_model else None)
    for adapter in options.adapters:
        profile = LengthProfile.load(Path(adapter))
        if profile is not None:
            budgeter = budgeter.with_estimator(ProfileEstimator(profile), before=Keywords)
    return Session(engine, budgeter)


async def _answer_once(options: InferOptions) -> int:
    """`--prompt`: one answer on standard output, one line about it on standard error."""
    from suffice.cli.show import answer_json, show_answer

    prompt = sys.stdin.read() if options.prompt in (None, "-") else options.prompt
    if not prompt or not prompt.strip():
        raise UsageError("the prompt is empty: give --prompt 'text', or pipe text into the command")
    async with engine_of(options) as engine:
        session = session_of(options, engine)
        request = options.request(({"role": "user", "content": prompt},))
        if options.json:
            answer = await session.answer(request)
            print(json.dumps(answer_json(answer), ensure_ascii=False))
        else:
            answer = await show_answer(session, request, stream=options.stream)
    return 1 if answer.finish.reason == "error" else 0


command = Command("infer", callback=_run, params=infer_options(), help=_run.__doc__, examples=_EXAMPLES)
