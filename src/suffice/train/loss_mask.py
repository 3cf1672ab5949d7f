"""Encodes a conversation as token ids and labels: the loss is on the answers alone, including the token that ends them.

Knows no particular chat template: prompts and answers are told apart by rendering the conversation up to each answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suffice.checkpoints.chat_tokenizer import template_message
from suffice.errors import first_line
from suffice.prompt import Message

__all__ = ["IGNORED", "EncodedRow", "Encoder", "TemplateProblem"]

IGNORED = -100
"""Label of a token without loss (the default `ignore_index` of torch's cross-entropy)."""


class TemplateProblem(ValueError):  # noqa: N818 - a reason for the table, not an error that a user sees
    """Why the chat template cannot show this row."""


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One conversation as the model sees it."""

    input_ids: list[int]
    labels: list[int]
    prompt_tokens: int
    """Tokens before the last answer."""

    @property
    def tokens(self) -> int:
        return len(self.input_ids)

    @property
    def answer_tokens(self) -> int:
        """Tokens of the last answer, its end token included."""
        return self.tokens - self.prompt_tokens

    def cut(self, tokens: int) -> EncodedRow:
        return EncodedRow(self.input_ids[:tokens], self.labels[:tokens], min(self.prompt_tokens, tokens))


class Encoder:
    """Tokens and labels of conversations, for one tokenizer, its chat template and the tokens that end an answer."""

    def __init__(self, tokenizer: Any, end_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._end_ids = frozenset(end_ids)

    def encode(self, messages: Sequence[Message]) -> EncodedRow:
        """Encode a conversation that ends with an assistant's message.

        Raises:
            TemplateProblem: the template refuses the conversation, or does not show the answer as it is.
        """
        prompt, answer = self._split(messages)
        ids: list[int] = []
        labels: list[int] = []
        for text, learned in self._pieces(prompt, messages):
            new = self._ids(text)
            answer_end = len(self._through_end(new)) if learned else 0
            ids += new
            labels += new[:answer_end] + [IGNORED] * (len(new) - answer_end)
        prompt_tokens = len(ids)
        answer_ids = self._through_end(self._ids(answer))
        if answer_ids[-1] not in self._end_ids:  # a template without an end token would teach the model never to stop
            answer_ids.append(self._tokenizer.eos_token_id)
        return EncodedRow(ids + answer_ids, labels + answer_ids, prompt_tokens)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation that is to be answered, as at inference."""
        return self._ids(self._render(messages, True))

    def _split(self, messages: Sequence[Message]) -> tuple[str, str]:
        """The prompt as inference renders it, and what is to follow."""
        prompt, whole = self._render(messages[:-1], True), self._render(messages, False)
        if whole.startswith(prompt):
            answer = whole[len(prompt) :]
        else:  # such as templates that open a reasoning block for the model
            content = messages[-1]["content"].strip()
            start = whole.rfind(content) if content else -1
            if start < 0:
                raise TemplateProblem("the chat template changes the answer, so that it cannot be told from the prompt")
            answer = whole[start:]
        if not _shows_calls(messages[-1], answer):
            raise TemplateProblem("the answer calls a tool, and the chat template does not show tool calls")
        return prompt, answer

    def _pieces(self, prompt: str, messages: Sequence[Message]) -> Iterator[tuple[str, bool]]:
        """The prompt in pieces: earlier answers are learned too, where the template shows them as they were given."""
        at = 0
        for number, message in enumerate(messages[:-1]):
            if message["role"] != "assistant":
                continue
            before, after = self._render(messages[:number], True), self._render(messages[: number + 1], False)
            same = after.startswith(before) and prompt.startswith(after) and at <= len(before) < len(after)
            if same and _shows_calls(message, after[len(before) :]):
                yield prompt[at : len(before)], False
                yield prompt[len(before) : len(after)], True
                at = len(after)
        yield prompt[at:], False

    def _through_end(self, ids: list[int]) -> list[int]:
        end = next((place for place, token in enumerate(ids) if token in self._end_ids), len(ids) - 1)
        return ids[: end + 1]

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _render(self, messages: Sequence[Message], answer_next: bool) -> str:
        try:
            turns = [template_message(message) for message in messages]
            return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer_next))
        except Exception as error:  # templates raise errors of jinja's, or any other
            raise TemplateProblem(f"the chat template refuses it: {first_line(error)}") from None


def _shows_calls(message: Message, rendered: str) -> bool:
    """Whether each function that the message calls is named in the text that a template made of it."""
    calls: Sequence[Mapping[str, Any]] = message.get("tool_calls") or ()  # type: ignore[assignment]
    names = [(call.get("function") or call).get("name") for call in calls]
    return all(name and name in rendered for name in names)
