"""What a model's own files say: its chat template, end tokens, context and default limit."""

from __future__ import annotations

from collections.abc import Sequence

from suffice.checkpoints.chat_tokenizer import ChatTokenizer
from suffice.checkpoints.load_model import LoadedModel
from suffice.engines.base import Finish
from suffice.errors import UsageError
from suffice.prompt import Prompt

__all__ = ["ModelTokenizer"]


class ModelTokenizer(ChatTokenizer):
    """The text side of a loaded model: prompts to tokens, tokens to text, end tokens."""

    def __init__(self, loaded: LoadedModel) -> None:
        super().__init__(loaded.tokenizer, loaded.source.name)
        self.model = loaded.model
        self.generation = loaded.model.generation_config
        """The model's own defaults."""
        self._config = loaded.model.config.get_text_config()
        self._end_ids = self._own_end_ids()

    @property
    def context_tokens(self) -> int:
        return int(self._config.max_position_embeddings)

    @property
    def default_max_new_tokens(self) -> int | None:
        limit: int | None = self.generation.max_new_tokens
        return limit

    def prompt_ids(self, prompt: Prompt) -> Sequence[int]:
        if prompt.ids and (largest := max(prompt.ids)) >= self._config.vocab_size:
            raise UsageError(f"the prompt has the token {largest}: this model's end at {self._config.vocab_size - 1}")
        return super().prompt_ids(prompt)

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

    def _own_end_ids(self) -> tuple[int, ...]:
        ids = self.generation.eos_token_id
        listed = [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
        if self.tokenizer.eos_token_id is not None:
            listed.append(self.tokenizer.eos_token_id)
        return tuple(dict.fromkeys(int(each) for each in listed))
