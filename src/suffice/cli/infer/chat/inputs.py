"""Where the chat's lines come from: an editor on a terminal (`prompt_input`), plain lines everywhere else."""

from __future__ import annotations

import sys
from typing import Protocol

from suffice.cli.infer.chat.texts import in_open_block
from suffice.cli.terminal import is_live
from suffice.data.encodings import decode_text

__all__ = ["ChatInput", "PlainInput", "terminal_can_edit"]


class ChatInput(Protocol):
    def read(self, prompt: str) -> str:
        """One input, of one line or several.

        Raises:
            EOFError: Ctrl-D, or the end of the input.
            KeyboardInterrupt: Ctrl-C.
            DataError: the input is not UTF-8.
        """


class PlainInput:
    """A line, lines joined by a trailing backslash, or a block between lines of three quotes."""

    def read(self, prompt: str) -> str:
        text = _line(prompt)
        while in_open_block(text) or text.endswith("\\"):
            text = (text if in_open_block(text) else text[:-1]) + "\n" + _line("… ")
        return text


def terminal_can_edit() -> bool:
    """Whether a person sits at a terminal that can move its cursor."""
    return sys.stdin.isatty() and is_live(sys.stdout)


def _line(prompt: str) -> str:
    try:
        return input(prompt)
    except UnicodeDecodeError as error:
        return decode_text(error.object, "what was typed")
