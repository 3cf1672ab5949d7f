"""A model's tokenizer and chat template: conversations to tokens, tokens to text. Needs no weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from suffice.engines.base import Message
from suffice.errors import ModelError, UsageError

__all__ = ["ChatTokenizer", "load_tokenizer"]


_OPENING_TOKENS = 12  # more than "<think>" and a line end take where they are no tokens of their own


class ChatTokenizer:
    """Turns what a caller writes into what a model reads.

    Args:
        tokenizer: of transformers.
        name: the model's, for errors.
    """

    def __init__(self, tokenizer: Any, name: str) -> None:
        self.tokenizer = tokenizer
        self._name = name
        self._fast = getattr(tokenizer, "backend_tokenizer", None)  # a third of the time per token
        self.decode_token = lambda token: self.decode((token,))
        """The text of one token, always the same function."""

    def prompt_ids(self, messages: Sequence[Message], prompt: str | None) -> list[int]:
        """Tokens of the conversation with the chat template applied, or of the raw `prompt`.

        A conversation that ends with the assistant is gone on with, not answered.

        Raises:
            UsageError: neither or both are given, a message is no text, or the model has no chat template.
        """
        if bool(messages) == (prompt is not None):
            raise UsageError("give either messages or a prompt, and not both")
        if prompt is not None:
            ids = self.tokenizer(prompt)["input_ids"]
        else:
            ids = self.tokenizer(self._render(messages), add_special_tokens=False)["input_ids"]
        if not ids:
            raise UsageError("the prompt is empty")
        return list(ids)

    def text_ids(self, text: str) -> tuple[int, ...]:
        """Tokens of a piece of an answer."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a few tokens, special ones left out."""
        if self._fast is not None:
            return str(self._fast.decode(list(ids), skip_special_tokens=True))
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def opens_thinking(self, prompt_ids: Sequence[int]) -> bool:
        """Whether the chat template has opened a block of thinking, as those of some reasoning models do."""
        return self.decode(prompt_ids[-_OPENING_TOKENS:]).rstrip().endswith("<think>")

    def _render(self, messages: Sequence[Message]) -> str:
        if not self.tokenizer.chat_template:
            raise UsageError(f"{self._name} has no chat template: give a raw prompt, or use a model made for chat")
        going_on = messages[-1]["role"] == "assistant"
        text = self.tokenizer.apply_chat_template(
            [{**message, "content": _text(message["content"])} for message in messages],
            tokenize=False,
            add_generation_prompt=not going_on,
            continue_final_message=going_on,
        )
        return str(text)


def load_tokenizer(name: str) -> ChatTokenizer:
    """The tokenizer in a folder, or of a hub id; without the network where it is a folder.

    Raises:
        ModelError: there is none.
    """
    from suffice.engines.loading import resolve_model

    source = resolve_model(name)
    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(source.location, local_files_only=source.local)
    except ModuleNotFoundError:
        raise ModelError("--tokenizer needs transformers: pip install 'suffice[local]'") from None
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"cannot load the tokenizer of {name!r}: {reason}") from error
    return ChatTokenizer(tokenizer, source.name)


def _text(content: Any) -> str:
    """The text of a message's content, which OpenAI also allows to be a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(part["text"] for part in content)
    raise UsageError("a message's content must be text: this model reads no images, audio or files")
