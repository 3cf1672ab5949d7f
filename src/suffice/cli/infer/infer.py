"""`suffice infer`: a chat, one prompt, or a whole dataset, on a local model or on a server."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import click
from click.core import ParameterSource

from suffice.cli.command import Command
from suffice.cli.infer.options import InferOptions, infer_options, options_from
from suffice.cli.notes import tell
from suffice.cli.standard_input import standard_input
from suffice.errors import UsageError

__all__ = ["command"]

_MAX_WAIT = 30.0  # seconds that one prompt waits for a busy server, where nothing else is said
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
    context = click.get_current_context()
    given = [name for name in flags if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    options = options_from(flags).with_preset(given)
    options.check()
    if options.dataset:
        from suffice.cli.infer.batch import infer_dataset

        return infer_dataset(options)
    if options.prompt is not None or not sys.stdin.isatty():
        return asyncio.run(_answer_once(options))
    from suffice.cli.infer.chat import chat

    return chat(options)


async def _answer_once(options: InferOptions) -> int:
    from suffice.cli.infer.answer_view import answer_json, show_answer

    prompt = standard_input() if options.prompt in (None, "-") else options.prompt
    if not prompt or not prompt.strip():
        raise UsageError("the prompt is empty: give --prompt 'text', or pipe text into the command")

    def say() -> None:
        if engine.waiting and engine.refused == 1:
            tell("notice: the server is busy: waiting for it")

    engine = options.open_patient_engine(_MAX_WAIT, say)
    async with engine:
        session = options.session(engine)
        request = options.request(({"role": "user", "content": prompt},))
        if options.json:
            answer = await session.answer(request)
            print(json.dumps(answer_json(answer), ensure_ascii=False))
        else:
            answer = await show_answer(session, request, stream=options.stream, raw=options.raw)
    return 1 if answer.finish.reason == "error" else 0


command = Command(
    "infer", callback=_run, params=infer_options(), help=_run.__doc__, examples=_EXAMPLES, bare="--prompt"
)
