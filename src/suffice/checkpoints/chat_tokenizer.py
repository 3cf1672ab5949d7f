"""A model's tokenizer and chat template: conversations to tokens, tokens to text. Needs no weights."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from suffice.errors import ModelError, UsageError, first_line
from suffice.prompt import Message, Prompt, content_text, is_text

__all__ = ["ChatTokenizer", "load_tokenizer", "template_message"]

_OPENING_TOKENS = 12  # more than "<think>" and a line end take where they are not single tokens


class ChatTokenizer:
    """Turns what a caller writes into what a model reads; `name` is the model's, for errors."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self.tokenizer, self._name = tokenizer, name
        self._reads_tools: bool | None = None
        self._fast = getattr(tokenizer, "backend_tokenizer", None)  # a third of the time per token
        self.decode_token = lambda token: self.decode((token,))
        """The text of one token, always the same function."""

    def prompt_ids(self, prompt: Prompt) -> Sequence[int]:
        """Tokens of a prompt, a conversation with the chat template applied; one that ends with the assistant is
        continued, not answered.

        They are worked out once and kept on the prompt, so that counting and answering it cost one rendering, and no
        tokens outlive their prompt.

        Raises:
            UsageError: the prompt is empty, a message is not text, or the model has no chat template, or none that
                knows tools where there are some.
        """
        if prompt.ids:
            return prompt.ids
        known = prompt.known_ids.get(self)
        if known is None:
            known = prompt.known_ids[self] = array("i", self._tokenized(prompt))
        return known

    def text_ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a few tokens, special ones left out."""
        if self._fast is not None:
            return str(self._fast.decode(list(ids), skip_special_tokens=True))
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def opens_thinking(self, prompt_ids: Sequence[int]) -> bool:
        """Whether the chat template has opened a block of thinking, as those of some reasoning models do."""
        return self.decode(prompt_ids[-_OPENING_TOKENS:]).rstrip().endswith("<think>")

    def token_bytes(self, token: int) -> tuple[str, bytes]:
        """One token's text and bytes, a special one's name; U+FFFD stands for an incomplete character."""
        text = self.decode((token,))
        if text and "\ufffd" not in text:
            return text, text.encode()
        name = str(self.tokenizer.convert_ids_to_tokens(token))
        if not text:
            return name, name.encode()
        if byte := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", name):  # SentencePiece's tokens of one byte
            return text, bytes([int(byte[1], 16)])
        known = _byte_of_letter()
        whole = all(letter in known for letter in name)
        return text, bytes(known[letter] for letter in name) if whole else text.encode()

    def _tokenized(self, prompt: Prompt) -> list[int]:
        ids: list[int] = []
        if prompt.raw is not None:
            ids = self.tokenizer(prompt.raw)["input_ids"]
        elif prompt.messages:
            ids = self.tokenizer(self._render(prompt.messages, prompt.tools), add_special_tokens=False)["input_ids"]
        if not ids:
            raise UsageError("the prompt is empty: give messages, text or token ids")
        return ids

    def _render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str:
        if not self.tokenizer.chat_template:
            raise UsageError(f"{self._name} has no chat template: give a raw prompt, or use a model made for chat")
        if (tools or any("tool_calls" in message for message in messages)) and not self._knows_tools():
            raise UsageError(f"this model's chat template has no tools ({self._name}): leave out tools and tool calls")
        from jinja2 import TemplateError

        continues = messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]
        try:
            text = self.tokenizer.apply_chat_template(
                [template_message(message) for message in messages],
                tools=list(tools) or None,
                tokenize=False,
                add_generation_prompt=not continues,
                continue_final_message=continues,
            )
        except TemplateError as error:  # some allow no system message, or want user and assistant to take turns
            raise UsageError(f"the chat template of {self._name} refuses this conversation: {error}") from None
        return str(text)

    def _knows_tools(self) -> bool:
        """Whether the chat template shows the model its tools: found out once, by trying."""
        if self._reads_tools is None:
            parameters = {"type": "object", "properties": {}}
            function = {"name": "probe_of_tools", "description": "", "parameters": parameters}
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": "x"}], tools=[{"type": "function", "function": function}], tokenize=False
            )
            self._reads_tools = "probe_of_tools" in text
        return self._reads_tools


def load_tokenizer(name: str) -> ChatTokenizer:
    """The tokenizer in a folder, or of a hub id; without the network where it is a folder.

    Raises:
        ModelError: there is none.
    """
    from suffice.checkpoints.hub import find_on_hub
    from suffice.checkpoints.model_source import resolve_model

    source = resolve_model(name)
    try:
        from transformers import AutoTokenizer

        source = find_on_hub(source)
        tokenizer = AutoTokenizer.from_pretrained(source.location, local_files_only=source.only_here)
    except ModuleNotFoundError:
        raise ModelError("--tokenizer needs transformers: pip install 'suffice[local]'") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load the tokenizer of {name!r}: {first_line(error)}") from error
    return ChatTokenizer(tokenizer, source.name)


@cache
def _byte_of_letter() -> dict[str, int]:
    """GPT-2's letters for the 256 bytes, which the names of byte-level tokens are made of (Radford et al. 2019)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in plain}
    others = (byte for byte in range(256) if byte not in plain)
    return letters | {chr(256 + number): byte for number, byte in enumerate(others)}


def template_message(message: Message) -> dict[str, Any]:
    """A message as templates read it: content as text, and the arguments of calls as objects, not as JSON in a text."""
    plain: dict[str, Any] = {**message, "content": _text(message["content"])}
    if calls := plain.get("tool_calls"):
        plain["tool_calls"] = [
            {**call, "function": _with_arguments(call["function"])} if call.get("function") else call for call in calls
        ]
    return plain


def _with_arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    given = function.get("arguments")
    try:
        return {**function, "arguments": json.loads(given) if isinstance(given, str) and given else given or {}}
    except ValueError:
        return {**function, "arguments": given}


def _text(content: Any) -> str:
    if not is_text(content):
        raise UsageError("a message's content must be text: this model reads no images, audio or files")
    return content_text(content)
