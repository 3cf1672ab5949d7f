"""A conversation at one moment. Knows nothing about engines, terminals or files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from suffice.prompt import Message

__all__ = ["Dialogue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """What is sent with every request. A change makes a new one, so that each change can be taken back."""

    system: str | None = None
    messages: tuple[Message, ...] = ()
    """Without the system prompt. The thinking of earlier turns is not among them: chat templates leave it out, and
    hosted APIs refuse it."""
    unfinished: bool = False
    """Whether the last answer was ended by a limit, a loop, a failure or Ctrl-C, so that it can be continued."""

    @property
    def turns(self) -> int:
        """Messages of the user, with whatever follows each."""
        return len(self._beginnings)

    @property
    def answered(self) -> bool:
        """Whether the last message is an answer; a request then continues it."""
        return bool(self.messages) and self.messages[-1]["role"] == "assistant"

    def asking(self, messages: Sequence[Message]) -> Dialogue:
        """With messages at the end that are to be answered."""
        return replace(self, messages=(*self.messages, *messages), unfinished=False)

    def answering(self, text: str, *, unfinished: bool) -> Dialogue:
        """With an answer at the end, or with more of the one that is there."""
        before = str(self.messages[-1]["content"]) if self.answered else ""
        messages = self.messages[:-1] if self.answered else self.messages
        answer: Message = {"role": "assistant", "content": _joined(before, text)}
        return replace(self, messages=(*messages, answer), unfinished=unfinished)

    def without_answer(self) -> Dialogue:
        """Ending with the last message that was answered, to answer it again."""
        return replace(self, messages=self.messages[:-1], unfinished=False) if self.answered else self

    def without_oldest(self, turns: int) -> Dialogue:
        """Without that many turns at the beginning; what stands before the first turn goes with it."""
        starts = self._beginnings
        return replace(self, messages=self.messages[starts[turns] :] if turns < len(starts) else ())

    @property
    def _beginnings(self) -> list[int]:
        return [place for place, message in enumerate(self.messages) if message["role"] == "user"]


def _joined(before: str, text: str) -> str:
    """White space at the joint counts once: chat templates strip it from what is continued, and it is written again."""
    space = before[len(before.rstrip()) :]
    return before + text.removeprefix(space)
