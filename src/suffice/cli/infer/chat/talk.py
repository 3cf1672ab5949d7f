"""The conversation under way: who answers, what has been said, and what is done with each answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from suffice.cli.infer.answer_view import CHAT_HINTS, show_answer
from suffice.cli.infer.chat.dialogue import Dialogue
from suffice.cli.infer.chat.inputs import ChatInput
from suffice.cli.infer.chat.interrupts import interruptible
from suffice.cli.infer.chat.room import Shortening
from suffice.cli.infer.chat.texts import agrees, declines
from suffice.cli.notes import note, tell
from suffice.errors import PromptTooLongError, SufficeError
from suffice.session import Answer, Session

if TYPE_CHECKING:
    from suffice.cli.infer.options import InferOptions
    from suffice.engines import Message
    from suffice.engines.patience import PatientEngine
    from suffice.session import Request

__all__ = ["Talk", "complain", "opened"]

_MAX_WAIT = 60.0  # seconds that an answer waits for a busy server, where nothing else is said; Ctrl-C ends it earlier


def complain(error: SufficeError) -> None:
    """One line about what went wrong, whoever it quotes."""
    tell(f"error: {error!s}")


def opened(options: InferOptions) -> PatientEngine:
    """The engine that the options name, not yet entered; it says so when it waits for a busy server."""

    def say() -> None:
        if engine.waiting:
            note("(the server is busy: waiting for it; Ctrl-C stops)")

    engine = options.open_patient_engine(_MAX_WAIT, say)
    return engine


@dataclass(slots=True, kw_only=True)
class Talk:
    """Everything that the loop of the chat and its commands change."""

    options: InferOptions
    runner: asyncio.Runner
    input: ChatInput
    engine: PatientEngine
    """Entered."""
    session: Session
    dialogue: Dialogue = field(default_factory=Dialogue)
    """Whole turns: a message and its answer."""
    past: list[Dialogue] = field(default_factory=list)
    """What `dialogue` was before each change."""
    unanswered: tuple[Message, ...] = ()
    """The last message, while it has no answer: nothing that was typed is lost because an engine failed."""
    typed: str | None = None
    """What was typed in place of yes or no, which is the next input."""

    def say(self, text: str) -> None:
        self.unanswered = ({"role": "user", "content": text},)
        self.answer(self.dialogue.asking(self.unanswered))

    def change(self, dialogue: Dialogue) -> None:
        """Make this the conversation, so that `undo` finds the one before."""
        if dialogue != self.dialogue:
            self.past.append(self.dialogue)
            self.dialogue = dialogue

    def load(self, dialogue: Dialogue) -> None:
        """Go on with another conversation; a message at its end waits for its answer."""
        last = [place for place, each in enumerate(dialogue.messages) if each["role"] == "assistant"]
        end = last[-1] + 1 if last else 0
        self.change(replace(dialogue, messages=dialogue.messages[:end]))
        self.unanswered = dialogue.messages[end:]

    @property
    def listed_models(self) -> tuple[str, ...]:
        """What the server lists; () where a model is loaded here."""
        return tuple(getattr(self.engine.engine, "listed_models", ()))

    def agrees(self, question: str) -> bool:
        """Ask. Anything but yes and no is kept as the next input, and counts as no; so does Ctrl-C."""
        try:
            reply = self.input.read(f"{question} [y/N] ")
        except KeyboardInterrupt:
            return False
        if not (agrees(reply) or declines(reply)):
            self.typed = reply
        return agrees(reply)

    def answer(self, asked: Dialogue) -> None:
        """Answer the last message of a conversation, or continue its last answer; offer to continue what is cut."""
        following: Dialogue | None = asked
        while following is not None:
            try:
                answer = self.runner.run(interruptible(self._shown(following)))
            except PromptTooLongError as error:
                following = self._with_room(following, error.limit)
            except (SufficeError, KeyboardInterrupt) as error:
                self._gave_up(error)
                return
            else:
                following = self._continued(answer) if self._keep(following, answer) else None

    def request(self, asked: Dialogue) -> Request:
        return replace(self.options, system=asked.system).request(asked.messages)

    def count(self, asked: Dialogue) -> int:
        """Tokens of a conversation, estimated where the engine cannot count."""
        return self.runner.run(self.engine.count_tokens(self.request(asked).prompt)).tokens

    def switch(self, options: InferOptions) -> None:
        """Let another model answer from now on.

        Raises:
            KeyboardInterrupt, SufficeError: it cannot be loaded; the one before goes on.
        """
        engine, before = opened(options), self.engine
        local = options.upstream is None
        if local:  # two models may not fit into the memory
            self.runner.run(before.__aexit__(None, None, None))
        try:
            self.runner.run(interruptible(engine.__aenter__()))
        except BaseException:
            if local:
                note(f"(loading {before.model_name} again)")
                self.runner.run(before.__aenter__())
            raise
        if not local:
            self.runner.run(before.__aexit__(None, None, None))
        self.options, self.engine, self.session = options, engine, options.session(engine)

    def _gave_up(self, error: BaseException) -> None:
        """Nothing has been written: say why, and what becomes of the message."""
        said = ["your message waits: /retry sends it again"] if self.unanswered else []
        if isinstance(error, SufficeError):
            complain(error)
        else:
            said.insert(0, "stopped")
        if said:
            note(f"({'; '.join(said)})")

    async def _shown(self, asked: Dialogue) -> Answer:
        stream, raw = self.options.stream, self.options.raw
        return await show_answer(self.session, self.request(asked), stream=stream, raw=raw, hints=CHAT_HINTS)

    def _keep(self, asked: Dialogue, answer: Answer) -> bool:
        """Make an answer part of the conversation, and say so where it did not end by itself. False: there is none."""
        finish = answer.finish
        if not answer.text.strip() and not asked.answered:
            note(f"({_why_nothing(answer)}; your message waits: /retry sends it again)")
            return False
        before = self.dialogue
        self.change(asked.answering(answer.text_without_copies, unfinished=finish.reason != "stop"))
        self.unanswered = ()
        if finish.reason in ("cancelled", "error"):
            what = "stopped" if finish.reason == "cancelled" else "failed"
            note(f"({what}; what was written is kept: /continue goes on, /retry answers again, /undo forgets it)")
        elif finish.looped:
            note("(the copies are left out of what is sent with your next message; /retry answers again)")
        elif not asked.answered and before.answered and self.dialogue.messages == before.messages:
            note("(the same answer: with /set temperature 0.8, answers differ)")
        return True

    def _continued(self, answer: Answer) -> Dialogue | None:
        """What to send next: the conversation again, where a limit has cut the answer and the user wants more of it."""
        finish = answer.finish
        if not finish.cut or not self.options.ask_on_length:
            return None
        limit = self._context()
        if finish.by in ("context", "memory") and limit is not None:
            return self._with_room(self.dialogue, limit)
        return self.dialogue if self.agrees("continue?") else None

    def _context(self) -> int | None:
        """Tokens that prompt and answer may have together, where that is known."""
        able = self.engine.capabilities()
        return min(
            (each for each in (self.options.max_length, able.context_tokens, able.kv_tokens) if each), default=None
        )

    def _with_room(self, asked: Dialogue, limit: int) -> Dialogue | None:
        """The conversation without its oldest turns, where the user agrees that they go."""
        found = Shortening.of(asked, limit, self.count)
        if found is None:
            note(f"({self._too_long(asked, limit)})")
            return None
        note(f"(the conversation has {found.whole} tokens and the context {limit}; /clear forgets all of it)")
        oldest = "turn" if found.turns == 1 else f"{found.turns} turns"
        then = "continue" if asked.answered else "answer"
        if self.agrees(f"drop the oldest {oldest} ({found.tokens} tokens) and {then}?"):
            return found.shorter
        if self.unanswered and self.typed is None:
            note("(your message waits: /retry sends it when there is room; /drop N forgets the oldest turns)")
        return None

    def _too_long(self, asked: Dialogue, limit: int) -> str:
        if asked.answered:
            return f"this turn alone fills the context of {limit} tokens: /clear begins a new conversation"
        tokens = self.count(asked.without_oldest(asked.turns - 1))
        system = " with the system prompt" if asked.system else ""
        return (
            f"your message alone{system} has {tokens} tokens and the context {limit}: shorten it; the up arrow brings "
            "it back"
        )


def _why_nothing(answer: Answer) -> str:
    finish = answer.finish
    match finish.reason:
        case "cancelled":
            return "stopped before the first word"
        case "error" if "context" in finish.what.lower():
            return "no answer; if the conversation has grown too long, /drop N forgets its oldest turns"
        case "error":
            return "no answer"
        case "length" if answer.thinking:
            return "cut while it was thinking; /set max_thinking_tokens N or /budget N gives it more"
    if answer.tool_calls:
        return "it calls a tool, and the chat has none"
    return "the answer is empty"
