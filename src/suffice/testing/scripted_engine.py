"""An engine that says what it is told to: for tests of everything that stands on the engine protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from suffice.engines.base import AnswerPrefix, Capabilities, Chunk, Finish, GenerationRequest, Health, TokenCount, Usage
from suffice.errors import EngineError
from suffice.prompt import Prompt, content_text

__all__ = ["ScriptedEngine"]


class ScriptedEngine:
    """Answers every request with the same text. One token is one character; a prompt has as many as its text.

    What it was asked is in `asked`, the ids of requests that were not read to their end in `cancelled`:

        import asyncio
        from suffice import Request, Session
        from suffice.testing import ScriptedEngine

        engine = ScriptedEngine("hello")
        answer = asyncio.run(Session(engine).answer(Request("say it", max_new_tokens=2)))
        assert (answer.text, answer.finish.reason, answer.finish.by) == ("he", "length", "caller")
        assert engine.asked[0].max_new_tokens == 2

    Args:
        answer: the text, cut at the cap of a request.
        context: tokens that a prompt and its answer may have together.
        default_max_new_tokens: as a model's `generation_config.json` has it.
        fail_after: characters after which it fails with an `EngineError`.
        slow: take ten milliseconds for each character.
    """

    def __init__(
        self,
        answer: str = "hello",
        *,
        context: int | None = 1000,
        default_max_new_tokens: int | None = None,
        fail_after: int | None = None,
        slow: bool = False,
    ) -> None:
        self.answer, self.context, self.default_max_new_tokens = answer, context, default_max_new_tokens
        self.fail_after, self.slow = fail_after, slow
        self.asked: list[GenerationRequest] = []
        self.cancelled: list[str] = []
        self.running = 0
        self.most_running = 0
        """The most that were being answered at once."""

    model_name = "scripted"
    decode_token = staticmethod(chr)

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        self.asked.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        sent, done = 0, False
        try:
            for number, character in enumerate(self.answer[: request.max_new_tokens]):
                if number == self.fail_after:
                    raise EngineError("the cable was pulled")
                await asyncio.sleep(0.01 if self.slow else 0)
                sent += 1
                yield Chunk(character, (ord(character),))
            cut = len(self.answer) > request.max_new_tokens
            usage = Usage(_length(request.prompt), sent)
            done = True
            yield Chunk(finish=Finish("length") if cut else Finish("stop", "end_token", "<end>"), usage=usage)
        finally:
            self.running -= 1
            if not done:
                self.cancelled.append(request.id)

    async def resume_point(self, request: GenerationRequest, written: AnswerPrefix, then: str = "") -> AnswerPrefix:
        return AnswerPrefix(written.text + then)

    def capabilities(self) -> Capabilities:
        return Capabilities(context_tokens=self.context, default_max_new_tokens=self.default_max_new_tokens)

    async def count_tokens(self, prompt: Prompt) -> TokenCount:
        return TokenCount(_length(prompt))

    async def health(self) -> Health:
        return Health(True)

    async def __aenter__(self) -> ScriptedEngine:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None


def _length(prompt: Prompt) -> int:
    """Characters, without those between messages."""
    return len(prompt.ids) or len(prompt.raw or "") + sum(
        len(content_text(each["content"])) for each in prompt.messages
    )
