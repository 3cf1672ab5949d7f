"""The editor of the chat: several lines, pastes as they are, completion of commands, history between runs."""

from __future__ import annotations

import asyncio
import shutil
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from suffice.cli.infer.chat.input_history import InputHistory
from suffice.cli.infer.chat.texts import in_open_block
from suffice.cli.infer.chat.type_ahead import keep_pastes_whole

__all__ = ["PromptInput"]

Choices = Callable[[str], Iterable[str] | None]
"""What may stand behind a command, by its word; None for files."""


class PromptInput:
    """Reads with prompt_toolkit, on the event loop of the engine, which therefore goes on while somebody types.

    Args:
        runner: of that loop.
        history: the file of earlier inputs; None remembers those of this run alone.
        commands: their words without the slash; a space at the end where something may follow.
        choices: what may stand behind each.
    """

    def __init__(self, runner: asyncio.Runner, history: Path | None, commands: Iterable[str], choices: Choices) -> None:
        self._runner = runner
        self._history = InputHistory(history)
        self._session: PromptSession[str] = PromptSession(
            history=self._history,
            completer=_CommandCompleter(tuple(commands), choices),
            complete_while_typing=Condition(lambda: _is_command(get_app().current_buffer.text)),
            key_bindings=_keys(),
            multiline=True,
            prompt_continuation=lambda width, line, wraps: "  " if wraps else "… ",
            enable_suspend=True,
            enable_open_in_editor=True,
            tempfile_suffix=".md",
        )

    def read(self, prompt: str) -> str:
        try:
            return self._runner.run(self._session.prompt_async(_on_rows(prompt)))
        finally:
            keep_pastes_whole()


def _on_rows(prompt: str) -> str:
    """A question that is longer than a row, broken at words; the editor itself would break it anywhere."""
    return f"{textwrap.fill(prompt, shutil.get_terminal_size().columns - 1, break_on_hyphens=False)} "


def _is_command(text: str) -> bool:
    return text.startswith(("/", "／")) and "\n" not in text


class _CommandCompleter(Completer):
    def __init__(self, commands: tuple[str, ...], choices: Choices) -> None:
        self._commands, self._choices = commands, choices
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not _is_command(text):
            return
        word, space, rest = text.partition(" ")
        if not space:
            yield from _matching(word[1:], self._commands)
            return
        choices = self._choices(word[1:].lower())
        if choices is None:
            yield from self._files.get_completions(Document(rest), complete_event)
        else:
            yield from _matching(rest, choices)


def _matching(typed: str, words: Iterable[str]) -> Iterable[Completion]:
    found = (word for word in words if word.startswith(typed.lower()))
    return (Completion(word, start_position=-len(typed), display=word.strip()) for word in found)


def _keys() -> KeyBindings:
    """Enter sends, unless the line ends with a backslash or a block of three quotes is open."""
    keys, editing = KeyBindings(), has_focus(DEFAULT_BUFFER)

    @keys.add("enter", filter=editing)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
            buffer.complete_state = None  # takes what was chosen, which may want an argument
        elif in_open_block(buffer.text):
            buffer.newline(copy_margin=False)
        elif buffer.text.endswith("\\") and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=editing)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-c", filter=editing)
    @keys.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        buffer = event.app.current_buffer
        if buffer.text:
            buffer.append_to_history()  # the arrow keys bring it back
            buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt())

    return keys
