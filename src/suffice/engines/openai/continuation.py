"""How to continue an answer on an OpenAI-compatible server, depending on what the server supports.

tokens     the server told the ids of all tokens (vLLM): they become the prompt of a completion
message    the conversation with the answer so far at its end (vLLM, SGLang, llama.cpp)
template   the tokenizer is known here: conversation and answer become the prompt of a completion, as tokens
text       a raw prompt and the answer so far, for what was a completion from the start
"""

from __future__ import annotations

from collections.abc import Mapping

from suffice.checkpoints.chat_tokenizer import ChatTokenizer
from suffice.engines.base import AnswerPrefix, GenerationRequest
from suffice.engines.openai.client import OpenAIClient
from suffice.engines.openai.requests import json_object
from suffice.errors import CannotContinueError

__all__ = ["CHARGES_CAP", "Continuation"]

_CONTINUES_MESSAGES = frozenset({"vllm", "sglang", "llamacpp"})
"""`owned_by` in /v1/models of servers that continue the assistant's last message. Others answer it again, most of them
without saying so, and the answer would have two beginnings."""

CHARGES_CAP = frozenset({"sglang"})
"""`owned_by` of servers that set aside what a request may take when they admit it (SGLang: up to 4,096 tokens)."""

_UNFINISHED = "\ufffd"
_TAIL_TOKENS = 8  # enough to see whether a character is unfinished: it has at most 4 bytes


class Continuation:
    """Finds the resume point for one server; `tokenizer` is the model's, where it is known here."""

    def __init__(self, client: OpenAIClient, tokenizer: ChatTokenizer | None) -> None:
        self._client, self._tokenizer = client, tokenizer

    async def resume_point(
        self, request: GenerationRequest, written: AnswerPrefix, then: str, owner: str, model: str
    ) -> AnswerPrefix:
        """As `Engine.resume_point`; `model` is the model's name on the server, and `owner` its `owned_by`."""
        told = written.prompt_ids and (written.token_ids or not written.text)
        if told and (prefix := await self._by_tokens(written, then, model)) is not None:
            return prefix
        if written.reasoned:
            raise CannotContinueError("the server has taken thinking out of the text, and it does not tell its tokens")
        if request.prompt.ids:
            raise CannotContinueError(
                "the prompt was given as tokens, and the server does not tell those of the answer"
            )
        text = written.text.rstrip(_UNFINISHED)
        if request.prompt.raw is not None:
            return AnswerPrefix(text + then)
        if owner in _CONTINUES_MESSAGES:
            # Templates may strip white space at a message's end; what the model writes again is taken out afterwards.
            return AnswerPrefix(text + then if then else text.rstrip())
        if self._tokenizer is not None:
            prompt_ids = tuple(self._tokenizer.prompt_ids(request.prompt))
            return AnswerPrefix(text + then, self._tokenizer.text_ids(text + then), prompt_ids)
        raise CannotContinueError(
            "the server is not known to continue a message (vLLM, SGLang and llama.cpp are); "
            "--tokenizer with the model's name makes it possible on any server that has /v1/completions"
        )

    async def _by_tokens(self, written: AnswerPrefix, then: str, model: str) -> AnswerPrefix | None:
        """The tokens up to the last whole character; the server writes the rest again. None where it cannot tell."""
        ids = written.token_ids
        while ids:
            tail = {"model": model, "tokens": list(ids[-_TAIL_TOKENS:])}
            text = await self._ask("detokenize", tail, "prompt")
            if not isinstance(text, str):
                return None
            if not text.endswith(_UNFINISHED):
                break
            ids = ids[:-1]
        if then:
            added = await self._ask("tokenize", {"model": model, "prompt": then, "add_special_tokens": False}, "tokens")
            if not isinstance(added, list):
                return None
            ids = (*ids, *added)
        return AnswerPrefix(written.text + then, ids, written.prompt_ids, written.reasoned)

    async def _ask(self, route: str, body: Mapping[str, object], field: str) -> object:
        status, text = await self._client.ask("POST", f"{self._client.root}/{route}", dict(body))
        return json_object(text).get(field) if status == 200 else None
