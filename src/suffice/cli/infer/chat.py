"""The interactive chat of `suffice infer`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from suffice.cli.command import TokenLimit
from suffice.cli.infer.answer_view import CHAT_HINTS, show_answer
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


def chat(options: InferOptions) -> int:
    """Talk until Ctrl-D or /exit. Returns the exit status."""
    with asyncio.Runner() as runner:
        engine = options.open_engine()
        runner.run(engine.__aenter__())
        try:
            _note(f"{engine.model_name}; /help lists the commands, Ctrl-D leaves")
            _Chat(options, runner, options.session(engine)).talk()
        finally:
            runner.run(engine.__aexit__(None, None, None))
    return 0


@dataclass(slots=True)
class _Chat:
    options: InferOptions
    runner: asyncio.Runner
    session: Session
    messages: list[Message] = field(default_factory=list)
    cut: bool = False
    """Whether the last message is an answer that a limit ended."""

    def talk(self) -> None:
        with suppress(ImportError):
            import readline  # noqa: F401 - arrow keys and history in `input`
        while True:
            try:
                text = _read()
            except EOFError:
                print(file=sys.stderr)
                return
            except KeyboardInterrupt:
                _note("\n(Ctrl-D or /exit leaves)")
                continue
            if text in ("/exit", "/quit"):
                return
            try:
                self._take(text)
            except KeyboardInterrupt:
                _note("(stopped)")
            except SufficeError as error:
                print(f"error: {error}", file=sys.stderr)

    def _take(self, text: str) -> None:
        command, _, rest = text.partition(" ")
        match command:
            case "":
                return
            case "/help":
                _note(_HELP)
            case "/clear":
                self._forget()
                _note("(forgotten)")
            case "/system":
                self._forget()
                self.options = replace(self.options, system=rest.strip() or None)
                _note(f"(system prompt: {self.options.system or 'none'})")
            case "/budget":
                self._budget(rest.strip())
            case "/continue" if self.cut:
                self._answer()
            case "/continue":
                _note("(there is no cut answer to continue)")
            case _ if command.startswith("/") and command[1:].isalpha():
                print(f"error: no command {command}: /help lists them", file=sys.stderr)
            case _:
                self.messages.append({"role": "user", "content": text})
                self.cut = False
                self._answer()

    def _forget(self) -> None:
        self.messages.clear()
        self.cut = False

    def _answer(self) -> None:
        """Answer the conversation, or continue its last answer, and offer to continue what was cut."""
        while True:
            try:
                request = self.options.request(tuple(self.messages))
                answer = self.runner.run(
                    show_answer(self.session, request, stream=self.options.stream, hints=CHAT_HINTS)
                )
            except (SufficeError, KeyboardInterrupt):
                if self.messages[-1]["role"] == "user":
                    self.messages.pop()  # an unanswered message would spoil the turns of the conversation
                raise
            before = self.messages.pop()["content"] if self.messages[-1]["role"] == "assistant" else ""
            self.messages.append({"role": "assistant", "content": before + answer.text_without_copies})
            self.cut = answer.finish.cut
            if not self.cut or not self.options.ask_on_length or not _confirm("continue? [y/N] "):
                return

    def _budget(self, value: str) -> None:
        if value:
            self.options = replace(self.options, max_new_tokens=TokenLimit("auto").convert(value, None, None))
            _note(f"(max_new_tokens: {value})")
            return
        users = [place for place, message in enumerate(self.messages) if message["role"] == "user"]
        if not users:
            _note("(nothing has been asked yet)")
            return
        request = self.options.request(tuple(self.messages[: users[-1] + 1]))
        budget = self.runner.run(self.session.decide(request))
        _note(f"budget {budget.max_new_tokens}, expected {budget.expected_tokens} tokens:")
        for reason in budget.reasons:
            _note(f"  - {reason}")


def _note(text: str) -> None:
    print(dim(text), file=sys.stderr)


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
