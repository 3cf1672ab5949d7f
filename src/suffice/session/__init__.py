"""One request's way through, the same for every engine and every caller."""

from suffice.session.events import Answer, AnswerBuilder, Event, Repetition, Text, Thinking
from suffice.session.request import Request
from suffice.session.session import Session

__all__ = ["Answer", "AnswerBuilder", "Event", "Repetition", "Request", "Session", "Text", "Thinking"]
