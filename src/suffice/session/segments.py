"""One answer from several engine requests: when a reservation runs out, the next request continues it without a gap.

Each request is a *segment*. `Session.stream` has the loop, and puts the next segment into line here:

    a segment's chunks come ──┬── the answer ends ───────────────────────────────> no more segments
                              ├── its reservation is used up ─────> `extend()` ──> a segment that continues the answer
                              ├── its thinking is to be closed ───> `extend(tag)` ─> a segment behind the closing tag
                              └── it fails before its first chunk ─> `repeat()` ─> the same segment, on another engine

An engine may write the end of the answer so far again (half a character, white space that a template strips): `join`
takes that out, so that the reader sees everything once.
"""

from __future__ import annotations

from dataclasses import replace

from suffice.engines.base import Chunk, Engine, Finish, GenerationRequest, Usage
from suffice.errors import CannotContinueError
from suffice.session.answer_so_far import AnswerSoFar
from suffice.session.request import Request
from suffice.watch import TextJoiner

__all__ = ["Segments", "may_continue"]

# fmt: off
_NOT_CONTINUED = frozenset({
    "tools", "tool_choice", "functions", "function_call", "response_format", "structured_outputs", "guided_json",
    "guided_regex", "guided_choice", "guided_grammar", "json_schema", "grammar", "regex", "ebnf", "logprobs",
    "top_logprobs", "prompt_logprobs", "echo", "presence_penalty", "frequency_penalty", "min_tokens", "n", "best_of",
})
# fmt: on
"""Fields whose meaning a second request would change: a grammar would begin again, penalties would forget the answer
so far, and half a tool call is not a call."""


def may_continue(request: GenerationRequest | Request, *, tools: bool = False) -> bool:
    """Whether continuing an answer in a second request can give what one request would give; `tools`: also where some
    may be called, as at the end of thinking, if the engine leaves calls in the text."""
    called = request.prompt.tools and not tools
    return not (called or request.logprobs is not None or _NOT_CONTINUED & request.extra.keys())


class Segments:
    """What has come of an answer over all of its segments, and the request for the next one.

    Args:
        first: asks for the whole answer, with its cap and its first reservation.
        prompt_tokens: length of the prompt, for where the engine does not say.
    """

    def __init__(self, engine: Engine, first: GenerationRequest, prompt_tokens: int) -> None:
        self.pending: GenerationRequest | None = first
        """The segment to submit next; None where none is to follow the current one."""
        self.begun = False
        """Whether a chunk of the current segment has come."""
        self.used_up = False
        """The latest chunk has ended its segment because a reservation was used up, not the answer."""
        self._first = self._current = first
        self._engine = engine
        self._so_far = AnswerSoFar(prompt_tokens)
        self._joiner = TextJoiner()
        self._begins_thinking = False  # the next chunk stands inside thinking that the server took out of the text

    @property
    def usage(self) -> Usage:
        """Tokens of all segments: the prompt of the first, and answers without what had to be written twice."""
        return self._so_far.usage

    def next(self) -> GenerationRequest | None:
        """The pending segment, which becomes the current one; None at the answer's end."""
        segment, self.pending, self.begun = self.pending, None, False
        self._current = segment or self._current
        return segment

    def repeat(self) -> None:
        """Submit the current segment again."""
        self.pending = self._current

    async def extend(self, text: str = "") -> str:
        """Let a segment follow that continues the answer behind what has come and `text`; each one doubles what there
        is. Where it cannot be continued, nothing changes.

        Returns:
            '', or why the answer cannot be continued.
        """
        if text and not may_continue(self._first, tools=self._engine.capabilities().calls_in_text):
            return "tool calls, JSON modes and the like are not continued"
        written = self._so_far.prefix()
        try:
            prefix = await self._engine.resume_point(self._first, written, text)
        except CannotContinueError as error:
            return str(error)
        self._joiner.begin("" if text else written.text.removeprefix(prefix.text))
        self._begins_thinking = written.reasoned and not written.text and not text
        self._so_far.next_segment(prefix, text)
        generated, reservation = self.usage.answer_tokens, self._current.reservation
        self.pending = replace(
            self._current,
            prefix=prefix,
            max_new_tokens=max(1, self._first.max_new_tokens - generated),
            reservation=None if reservation is None else max(generated, self._current.first_cap),
        )
        return ""

    def join(self, chunk: Chunk) -> Chunk:
        """Take the next chunk, and return it as part of one answer: without what was shown already, and without the
        `finish` of a segment that can be followed by another."""
        self.begun = True
        chunk = self._without_repeats(chunk)
        self._so_far.add(chunk)
        self.used_up = chunk.finish is not None and chunk.finish.by == "reservation"
        if self.used_up:
            return replace(chunk, finish=None)
        return self._with_rest(chunk) if chunk.finish is not None else chunk

    def last(self, finish: Finish) -> Chunk:
        """The chunk that ends an answer where no segment can follow."""
        return self._with_rest(Chunk(finish=finish))

    def _without_repeats(self, chunk: Chunk) -> Chunk:
        """Text whose tokens are known is never written twice."""
        if self._begins_thinking:
            chunk, self._begins_thinking = replace(chunk, thinking=True), False
        if chunk.lengths or not chunk.text:
            return chunk
        text = self._joiner.push(chunk.text)
        return chunk if text == chunk.text else replace(chunk, text=text)

    def _with_rest(self, chunk: Chunk) -> Chunk:
        """With what the joiner has held back."""
        rest = self._joiner.flush()
        return replace(chunk, text=chunk.text + rest) if rest else chunk
