"""What a model's own files say: its chat template, end tokens, context and sampling defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from suffice.engines.base import Finish, Message, Sampling
from suffice.engines.loading import LoadedModel
from suffice.engines.sampling import SamplingParams
from suffice.errors import UsageError

__all__ = ["Prompting"]


class Prompting:
    """The text side of a loaded model: prompts to tokens, tokens to text, defaults filled in."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.model = loaded.model
        self.tokenizer = loaded.tokenizer
        self._name = loaded.source.name
        self._fast = getattr(loaded.tokenizer, "backend_tokenizer", None)  # a third of the time per token
        self._generation = loaded.model.generation_config
        self._config = loaded.model.config.get_text_config()
        self._end_ids = self._own_end_ids()

    @property
    def context_tokens(self) -> int:
        """The longest prompt + answer."""
        return int(self._config.max_position_embeddings)

    @property
    def default_max_new_tokens(self) -> int | None:
        """From `generation_config.json`, if it says."""
        limit: int | None = self._generation.max_new_tokens
        return limit

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

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a few tokens, special ones left out."""
        if self._fast is not None:
            return str(self._fast.decode(list(ids), skip_special_tokens=True))
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def end_tokens(self, stop_tokens: Sequence[str]) -> dict[int, Finish]:
        """Every token that ends an answer, and what to say when it does."""
        special = set(self.tokenizer.all_special_tokens) | {
            str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special
        }
        found = {
            self.tokenizer.convert_tokens_to_ids(word): Finish("stop", "stop_word", word)
            for word in stop_tokens
            if word in special
        }
        own = {token: self.tokenizer.convert_ids_to_tokens(token) for token in self._end_ids}
        return found | {token: Finish("stop", "end_token", str(word)) for token, word in own.items()}

    def sampling(self, wanted: Sampling) -> SamplingParams:
        """Fill in what the request leaves open.

        Raises:
            UsageError: a value is out of range.
        """
        own = self._generation
        temperature = _first(wanted.temperature, (own.temperature or 1.0) if own.do_sample else 0.0)
        params = SamplingParams(
            temperature=float(temperature),
            top_p=float(_first(wanted.top_p, own.top_p, 1.0)),
            top_k=int(_first(wanted.top_k, own.top_k, 0)),
            repetition_penalty=float(_first(wanted.repetition_penalty, own.repetition_penalty, 1.0)),
            seed=wanted.seed,
        )
        for name, value, ok, range_ in (
            ("temperature", params.temperature, params.temperature >= 0, "0 or more"),
            ("top_p", params.top_p, 0 < params.top_p <= 1, "above 0 and at most 1"),
            ("top_k", params.top_k, params.top_k >= 0, "0 (off) or more"),
            ("repetition_penalty", params.repetition_penalty, params.repetition_penalty > 0, "above 0"),
        ):
            if not ok:
                raise UsageError(f"{name} is {value:g}: it must be {range_}")
        return params

    def _own_end_ids(self) -> tuple[int, ...]:
        ids = self._generation.eos_token_id
        listed = [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
        if self.tokenizer.eos_token_id is not None:
            listed.append(self.tokenizer.eos_token_id)
        return tuple(dict.fromkeys(int(each) for each in listed))

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


def _text(content: Any) -> str:
    """The text of a message's content, which OpenAI also allows to be a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(part["text"] for part in content)
    raise UsageError("a message's content must be text: this model reads no images, audio or files")


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)
