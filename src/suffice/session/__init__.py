"""One request from its budget to its finish, the same for every engine and every caller."""

from suffice.deprecated import renamed
from suffice.session.events import (
    Answer,
    AnswerBuilder,
    Event,
    Progress,
    Repetition,
    Restarted,
    Text,
    Thinking,
    ToolCallPiece,
)
from suffice.session.merge_streams import merge_streams
from suffice.session.request import Request
from suffice.session.runaway_watch import RunawayPolicy
from suffice.session.session import Session

__all__ = [
    "Answer",
    "AnswerBuilder",
    "Event",
    "Progress",
    "Repetition",
    "Request",
    "Restarted",
    "RunawayPolicy",
    "Session",
    "Text",
    "Thinking",
    "ToolCallPiece",
    "merge_streams",
]

__getattr__ = renamed(__name__, {"side_by_side": "merge_streams"})
