"""What an engine's chunks mean to the reader of an answer: thinking, text without stop words, loops, and the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from suffice.budget import Budget
from suffice.engines.base import Chunk, Finish, Usage
from suffice.session.events import Event, Repetition, Text, Thinking, ToolCallPiece
from suffice.session.logprobs import LogprobAligner
from suffice.session.progress import ProgressMeter
from suffice.session.request import Request
from suffice.session.runaway_watch import Loop, RunawayPolicy, RunawayWatch
from suffice.session.thinking_budget import ThinkingSplit
from suffice.watch import CallSplitter, StopWords, ThinkingSplitter

__all__ = ["ChunkReader"]


class ChunkReader:
    """Reads one answer.

    Args:
        split: how much of the budget may be thinking.
        decode: the engine's text of one token, where it has one.
        policy: what is done about loops.
        calls_in_text: tool calls are to be looked for in the text.
    """

    def __init__(
        self,
        request: Request,
        budget: Budget,
        split: ThinkingSplit,
        policy: RunawayPolicy,
        decode: Callable[[int], str] | None,
        *,
        calls_in_text: bool = False,
    ) -> None:
        self.finish: Finish | None = None
        """Why the answer is over, once it is."""
        self._request, self._budget, self._split, self._decode = request, budget, split, decode
        self._stop_words = StopWords(request.stop_words, keep=request.keep_stop_words)
        self._splitter = ThinkingSplitter()
        self._policy = policy
        self._watch = None if policy.mode == "off" or policy.min_tokens else RunawayWatch(request.prompt, decode)
        # Two counts of characters. The engine's text is thinking, then the answer; stop words are held back or cut:
        self._seen = 0  # of the engine's text so far, thinking included
        self._shown = 0  # given out as `Text`, from `answer_start` of the engine's text on
        self._thinking_tokens = self._answer_tokens = self._undecided = 0
        self._separate = False  # the server takes thinking out of the text itself
        self._loop: Loop | None = None
        self._note = ""
        self._meter = ProgressMeter(request, budget) if request.progress else None
        self._calls = CallSplitter() if calls_in_text else None
        self._aligner = LogprobAligner() if request.logprobs is not None else None

    def read(self, chunk: Chunk) -> Iterator[Event]:
        """The events in a chunk; look at `finish` and `thinking_is_over` after."""
        if chunk.thinking:
            self._splitter.open()
        self._seen += len(chunk.text)
        if self._aligner is not None:
            self._aligner.push(chunk)
        if chunk.reasoning:
            self._separate = True
            yield Thinking(chunk.reasoning)
        for is_thinking, text in self._splitter.push(chunk.text):
            self._separate = self._separate and is_thinking
            if is_thinking:
                yield Thinking(text)
            else:
                yield from self._text(text) if self._calls is None else self._text_and_calls(text, self._calls)
        if chunk.tool_calls:
            self._separate = False
            yield from map(ToolCallPiece, chunk.tool_calls)
        self._count(chunk)
        if self.finish is None:
            if self._watch is None:
                self._begin_watch()
            elif (loop := self._watch.push(chunk)) is not None and not _ends_by_itself(chunk):
                yield from self._looped(loop)
        if self.finish is None:
            self.finish = chunk.finish or self._answer_is_full()
        if self._meter is not None and self.finish is None:
            yield from self._meter.read("" if self.thinking else chunk.text, self._tokens, self.thinking)

    @property
    def _tokens(self) -> int:
        return self._thinking_tokens + self._answer_tokens + self._undecided

    @property
    def thinking(self) -> bool:
        return self._splitter.thinking or self._separate

    @property
    def thinking_is_over(self) -> bool:
        """Whether the block of thinking shall be closed now: its budget is spent, or it loops."""
        spent = self._loop is not None or self._thinking_tokens >= self._split.thinking
        return self.thinking and spent and not self._note and self.finish is None

    def close_thinking(self, refusal: str) -> Iterator[Event]:
        """The block was closed, or could not be for the reason `refusal`: then a loop in it ends everything."""
        if refusal:
            self._note = f"; thinking could not be closed: {refusal}"
            if self._loop is not None:
                self.finish = self._stopped(self._loop)
            return
        if rest := self._splitter.close():
            yield Thinking(rest)
        self._separate, self._loop = False, None
        self._watch_again(self._tokens, self._seen)

    def end(self, usage: Usage) -> Iterator[Event]:
        """What was held back, and the last two events."""
        finish = self.finish or Finish("error", "engine", "the engine ended the answer without saying why")
        if finish.by != "stop_word":
            self.finish = None  # what was held back is part of the answer, and may complete a stop word
            yield from self._held_back()
            finish = self.finish or finish
        yield from finish.told
        if self._watch is not None and (notice := self._watch.notice) is not None:
            yield replace(notice, at=max(0, notice.at - (self._splitter.answer_start or 0)))
        yield replace(usage, thinking_tokens=max(usage.thinking_tokens, self._thinking_tokens))
        yield self._with_limit(finish)

    def _held_back(self) -> Iterator[Event]:
        is_thinking, rest = self._splitter.flush()
        if rest and is_thinking:
            yield Thinking(rest)
        elif rest:
            yield from self._text(rest) if self._calls is None else self._text_and_calls(rest, self._calls)
        if self._calls is not None and (rest := self._calls.flush()):
            yield from self._text(rest)
        if rest := self._stop_words.flush():
            yield self._shown_text(rest)

    def _text_and_calls(self, text: str, calls: CallSplitter) -> Iterator[Event]:
        for part in calls.push(text):
            if isinstance(part, str):
                yield from self._text(part)
            elif self.finish is None:
                yield ToolCallPiece(part)

    def _text(self, text: str) -> Iterator[Event]:
        if self.finish is not None:
            return
        match = self._stop_words.push(text)
        if match.text:
            yield self._shown_text(match.text)
        if match.word is not None:
            self.finish = Finish("stop", "stop_word", match.word)

    def _shown_text(self, text: str) -> Text:
        self._shown += len(text)
        if self._aligner is None:
            return Text(text)
        begin = self._splitter.answer_start or 0
        return Text(text, self._aligner.between(begin, begin + self._shown))

    def _answer_is_full(self) -> Finish | None:
        """Where thinking comes on top, the engine would continue behind the answer's budget with another answer."""
        full = self._split.on_top > 0 and self._answer_tokens >= self._budget.max_new_tokens
        return Finish("length") if full else None

    def _count(self, chunk: Chunk) -> None:
        self._undecided += chunk.tokens
        if self._separate or self._splitter.phase == "thinking":
            self._thinking_tokens, self._undecided = self._thinking_tokens + self._undecided, 0
        elif self._splitter.phase == "answer" or chunk.tool_calls:
            if not self._answer_tokens and self._thinking_tokens:
                self._watch_again(self._tokens - chunk.tokens, self._seen - len(chunk.text))
            self._answer_tokens, self._undecided = self._answer_tokens + self._undecided, 0

    def _begin_watch(self) -> None:
        """Look for loops from now on, if so many tokens have come that one may be stopped."""
        if self._policy.mode != "off" and self._tokens >= self._policy.min_tokens:
            self._watch = RunawayWatch(self._request.prompt, self._decode, self._tokens, self._seen)

    def _watch_again(self, tokens: int, characters: int) -> None:
        """The answer is watched apart from the thinking: it may well say what was thought."""
        if self._watch is not None:
            self._watch = RunawayWatch(self._request.prompt, self._decode, tokens, characters)

    def _looped(self, loop: Loop) -> Iterator[Event]:
        """What the caller wants done about a loop."""
        stopped = self._policy.mode == "stop"
        if stopped and self.thinking and not self._note:
            self._loop = loop
        elif stopped:
            yield from self._held_back()
            self.finish = self.finish or self._stopped(loop)
        copies = None if self.thinking else self._copies(loop)
        yield Repetition(loop.onset, loop.period, loop.unit, copies, stopped, self.thinking, loop.kind)

    def _copies(self, loop: Loop) -> tuple[int, int] | None:
        """Where the copies stand in the text that was shown; None where that is not the engine's text as it came."""
        start = self._splitter.answer_start or 0
        keep, end = loop.keep - start, loop.end - start
        if (early := start - loop.begin) > 0:
            keep += early  # the first turn began before the answer did, which needs one of its own
        as_it_came = loop.in_text and start + self._shown == self._seen
        return (keep, end) if as_it_came and keep < end and loop.kind == "verbatim" else None

    def _stopped(self, loop: Loop) -> Finish:
        return Finish("length", "repetition", f"{loop}{' in the thinking' if self.thinking else ''}{self._note}")

    def _with_limit(self, finish: Finish) -> Finish:
        """An engine knows its own limits (context, memory); whose limit the cap was, the budget knows."""
        if finish.looped:
            return replace(finish, reason="length", told=())
        if finish.told:
            finish = replace(finish, told=())
        if finish.reason != "length":
            return finish
        if finish.by in ("context", "memory", "reservation"):
            return replace(finish, what=finish.what + self._note)
        return Finish("length", self._budget.limited_by, f"{self._budget.max_new_tokens} tokens{self._note}")


def _ends_by_itself(chunk: Chunk) -> bool:
    return chunk.finish is not None and chunk.finish.reason == "stop"
