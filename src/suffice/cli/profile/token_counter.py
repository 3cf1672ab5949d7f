"""Counting tokens of many texts at once with a model's own tokenizer; no weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suffice.cli.notes import tell
from suffice.data import Turn
from suffice.errors import ModelError, first_line, packages_of

if TYPE_CHECKING:
    from suffice.checkpoints.model_source import ModelSource

__all__ = ["TemplateCounter", "load_counter", "model_config"]


class TemplateCounter:
    """A tokenizer of transformers, and its chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._fast = getattr(tokenizer, "backend_tokenizer", None)
        self._templated = bool(tokenizer.chat_template)

    def prompts(self, conversations: Sequence[Sequence[Turn]]) -> list[int | None]:
        """Of each conversation as the chat template renders it, up to where the answer begins; without a template, of
        its texts. None where the template refuses the conversation."""
        texts = [self._rendered(turns) for turns in conversations]
        counts = iter(self._count([text for text in texts if text is not None]))
        return [None if text is None else next(counts) for text in texts]

    def answers(self, texts: Sequence[str]) -> list[int]:
        """Of each answer, and one for the token that ends it."""
        return [count + 1 for count in self._count(texts)]

    def _rendered(self, turns: Sequence[Turn]) -> str | None:
        if not self._templated:
            return "\n".join(str(turn["content"]) for turn in turns)
        try:
            return str(self._tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True))
        except Exception:  # templates raise errors of jinja's, or any other
            return None

    def _count(self, texts: Sequence[str]) -> list[int]:
        if self._fast is not None:
            return [len(each.ids) for each in self._fast.encode_batch_fast(list(texts), add_special_tokens=False)]
        slow = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
        return list(map(len, slow))


def load_counter(model: str | None, hub: str = "hf") -> TemplateCounter:
    """The counter for a model: a folder (a tokenizer's alone will do), an id, or the bundled model with a notice.

    Raises:
        ModelError: the tokenizer cannot be found or loaded.
        UsageError: transformers is not installed.
    """
    source = _located(model, hub)
    if model is None:
        notice = "counted with the tokenizer of the bundled toy model"
        tell(f"notice: {notice}; for the lengths that your model sees give --model")
    with packages_of("local", "rows without token counts are here, and counting needs"):
        import transformers
        from transformers import AutoTokenizer

        from suffice.checkpoints.hub import find_on_hub
    transformers.logging.set_verbosity_error()
    source = find_on_hub(source, hub)
    try:
        return TemplateCounter(AutoTokenizer.from_pretrained(source.location, local_files_only=source.only_here))
    except Exception as error:  # whatever a hub or a file comes up with
        raise ModelError(f"cannot load the tokenizer of {source.location!r}: {first_line(error)}") from error


def model_config(model: str | None, hub: str = "hf") -> Mapping[str, Any] | None:
    """The `config.json` of a model whose files are here; None where it has none, or lies on a hub.

    Raises:
        ModelError: no such model, or a config that cannot be read.
    """
    from suffice.memory.cards import model_in_folder

    source = _located(model, hub)
    folder = Path(source.location)
    return model_in_folder(folder).config if source.local and (folder / "config.json").is_file() else None


def _located(model: str | None, hub: str) -> ModelSource:
    from suffice.checkpoints.model_source import ModelSource, resolve_model

    if model is not None and (Path(model).expanduser() / "tokenizer.json").is_file():
        return ModelSource(model, str(Path(model).expanduser()), local=True)
    return resolve_model(model, hub=hub)
