"""The loop of the chat: read, do, and go on whatever happens."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from suffice.cli.infer.chat.commands import COMMANDS, KNOWN, choices, prefers_chinese, run_command
from suffice.cli.infer.chat.dialogue import Dialogue
from suffice.cli.infer.chat.inputs import ChatInput, PlainInput, terminal_can_edit
from suffice.cli.infer.chat.talk import Talk, complain, opened
from suffice.cli.infer.chat.texts import command_word, message_text
from suffice.cli.infer.chat.type_ahead import quiet_terminal
from suffice.cli.notes import note
from suffice.errors import SufficeError, UsageError
from suffice.nearest import did_you_mean
from suffice.settings import data_folder

if TYPE_CHECKING:
    from suffice.cli.infer.options import InferOptions

__all__ = ["chat"]


def chat(options: InferOptions) -> int:
    """Talk until Ctrl-D, `exit` or /exit. Returns the exit status."""
    edits = terminal_can_edit()
    with asyncio.Runner() as runner, quiet_terminal() if edits else nullcontext(), _talking(options, runner) as talk:
        if edits:
            talk.input = _editor(talk)
        _greet(talk)
        _loop(talk)
    return 0


@contextmanager
def _talking(options: InferOptions, runner: asyncio.Runner) -> Iterator[Talk]:
    engine = opened(options)
    runner.run(engine.__aenter__())
    dialogue = Dialogue(system=options.system)
    talk = Talk(
        options=options,
        runner=runner,
        input=PlainInput(),
        engine=engine,
        session=options.session(engine),
        dialogue=dialogue,
    )
    try:
        yield talk
    finally:
        runner.run(talk.engine.__aexit__(None, None, None))


def _editor(talk: Talk) -> ChatInput:
    from suffice.cli.infer.chat.prompt_input import PromptInput  # prompt_toolkit takes a tenth of a second

    history = data_folder() / "chat_history" if talk.options.history else None
    completed = [f"{word} " if each.argument else word for word, each in COMMANDS.items()]
    return PromptInput(talk.runner, history, completed, lambda word: choices(talk, word))


def _greet(talk: Talk) -> None:
    if prefers_chinese():
        note(f"{talk.engine.model_name}；/help 列出命令，Ctrl-D 离开")
    else:
        note(f"{talk.engine.model_name}; /help lists the commands (/帮助 中文), Ctrl-D leaves")


def _loop(talk: Talk) -> None:
    while True:
        try:
            text, talk.typed = talk.typed or talk.input.read("> "), None
            _take(talk, text)
        except EOFError:
            print(file=sys.stderr)
            return
        except KeyboardInterrupt:
            note("(Ctrl-D or /exit leaves)")
        except SufficeError as error:
            complain(error)


def _take(talk: Talk, text: str) -> None:
    """Do what was typed: a command, a message, or nothing."""
    word, message = command_word(text.lstrip("\n")), message_text(text)
    if word in KNOWN:
        run_command(talk, word, message[len(word) + 1 :].strip())
    elif word and "\n" not in message:
        raise UsageError(
            f"no command /{word}{did_you_mean(f'/{word}', [f'/{known}' for known in KNOWN])} (/help lists them, and a "
            "space before it makes it a message)"
        )
    elif message.lower() in ("exit", "quit"):
        raise EOFError
    elif message:
        talk.say(message)
