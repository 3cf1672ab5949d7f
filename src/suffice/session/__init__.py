"""One request's way through, the same for every engine and every caller."""

from suffice.session.events import Answer, AnswerBuilder, Event, Progress, Repetition, Text, Thinking, ToolCallPiece
from suffice.session.request import Request
from suffice.session.session import Session
from suffice.session.side_by_side import side_by_side

__all__ = [
    "Answer",
    "AnswerBuilder",
    "Event",
    "Progress",
    "Repetition",
    "Request",
    "Session",
    "Text",
    "Thinking",
    "ToolCallPiece",
    "side_by_side",
]
