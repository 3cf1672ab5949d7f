"""The interactive chat of `suffice infer`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from suffice.cli.command import TokenLimit
from suffice.cli.infer.answer_view import show_answer
from suffice.cli.infer.screen import dim
from suffice.errors import SufficeError
from suffice.session import Session

if TYPE_CHECKING:
    from suffice.cli.infer.options import InferOptions
    from suffice.engines import Message

__all__ = ["chat"]

_HELP = """\
/clear            forget the conversation
/system TEXT      set the system prompt (alone: remove it) and forget the conversation
/budget           the budget that the last message would get now, with its reasons
/budget N|auto    set max_new_tokens for what follows
/continue         continue an answer that was cut
/help, /exit      this list; leave (so does Ctrl-D)
Ctrl-C stops an answer. End a line with \\ to continue on the next one, or put several lines between lines of \"\"\"."""


@dataclass(slots=True)
class _Conversation:
    options: InferOptions
    messages: list[Message] = field(default_factory=list)
    cut: bool = False
    """Whether the last message is an answer that a limit ended."""

    def forget(self) -> None:
        self.messages.clear()
        self.cut = False


def chat(options: InferOptions) -> int:
    """Talk until Ctrl-D or /exit. Returns the exit status."""
    with asyncio.Runner() as runner:
        engine = options.open_engine()
        runner.run(engine.__aenter__())
        try:
            print(dim(f"{engine.model_name}; /help lists the commands, Ctrl-D leaves"), file=sys.stderr)
            _converse(runner, options.session(engine), _Conversation(options))
        finally:
            runner.run(engine.__aexit__(None, None, None))
    return 0


def _converse(runner: asyncio.Runner, session: Session, talk: _Conversation) -> None:
    with suppress(ImportError):
        import readline  # noqa: F401 - arrow keys and history in `input`
    while True:
        try:
            text = _read()
        except EOFError:
            print(file=sys.stderr)
            return
        except KeyboardInterrupt:
            print(dim("\n(Ctrl-D or /exit leaves)"), file=sys.stderr)
            continue
        if text in ("/exit", "/quit"):
            return
        try:
            _take(runner, session, talk, text)
        except KeyboardInterrupt:
            print(dim("(stopped)"), file=sys.stderr)
        except SufficeError as error:
            print(f"error: {error}", file=sys.stderr)


def _take(runner: asyncio.Runner, session: Session, talk: _Conversation, text: str) -> None:
    command, _, rest = text.partition(" ")
    match command:
        case "":
            return
        case "/help":
            print(dim(_HELP), file=sys.stderr)
        case "/clear":
            talk.forget()
            print(dim("(forgotten)"), file=sys.stderr)
        case "/system":
            talk.forget()
            talk.options = replace(talk.options, system=rest.strip() or None)
            print(dim(f"(system prompt: {talk.options.system or 'none'})"), file=sys.stderr)
        case "/budget":
            _budget(runner, session, talk, rest.strip())
        case "/continue":
            if not talk.cut:
                print(dim("(there is no cut answer to continue)"), file=sys.stderr)
            else:
                _say(runner, session, talk)
        case _ if command.startswith("/") and command[1:].isalpha():
            print(f"error: no command {command}: /help lists them", file=sys.stderr)
        case _:
            talk.messages.append({"role": "user", "content": text})
            talk.cut = False
            _say(runner, session, talk)


def _say(runner: asyncio.Runner, session: Session, talk: _Conversation) -> None:
    """Answer the conversation, or continue its last answer, and offer to continue what was cut."""
    while True:
        try:
            request = talk.options.request(tuple(talk.messages))
            answer = runner.run(show_answer(session, request, stream=talk.options.stream))
        except (SufficeError, KeyboardInterrupt):
            if talk.messages[-1]["role"] == "user":
                talk.messages.pop()  # an unanswered message would spoil the turns of the conversation
            raise
        before = talk.messages.pop()["content"] if talk.messages[-1]["role"] == "assistant" else ""
        talk.messages.append({"role": "assistant", "content": before + answer.text})
        talk.cut = answer.finish.reason == "length"
        if not talk.cut or not talk.options.ask_on_length or not _confirm("continue? [y/N] "):
            return


def _budget(runner: asyncio.Runner, session: Session, talk: _Conversation, value: str) -> None:
    if value:
        talk.options = replace(talk.options, max_new_tokens=TokenLimit("auto").convert(value, None, None))
        print(dim(f"(max_new_tokens: {value})"), file=sys.stderr)
        return
    users = [i for i, message in enumerate(talk.messages) if message["role"] == "user"]
    if not users:
        print(dim("(nothing has been asked yet)"), file=sys.stderr)
        return
    budget = runner.run(session.decide(talk.options.request(tuple(talk.messages[: users[-1] + 1]))))
    print(dim(f"budget {budget.max_new_tokens}, expected {budget.expected_tokens} tokens:"), file=sys.stderr)
    for reason in budget.reasons:
        print(dim(f"  - {reason}"), file=sys.stderr)


def _read() -> str:
    """One input: a line, lines joined by a trailing backslash, or a block between lines of three quotes."""
    line = input("> ")
    if line.strip() == '"""':
        block = []
        while (line := input("… ")).strip() != '"""':
            block.append(line)
        return "\n".join(block).strip()
    lines = []
    while line.endswith("\\"):
        lines.append(line[:-1])
        line = input("… ")
    return "\n".join([*lines, line]).strip()


def _confirm(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes", "是", "好")
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)
        return False
