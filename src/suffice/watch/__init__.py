"""Reading an answer as it grows: runaways, thinking, stop words, tool calls, what is left, and whole characters."""

from suffice.deprecated import renamed
from suffice.watch.runaway import Notice, Runaway, RunawayDetector, RunawayKind
from suffice.watch.stop_words import StopMatch, StopWords
from suffice.watch.streaming_text import IncrementalDecoder, TextJoiner
from suffice.watch.thinking import ThinkingSplitter
from suffice.watch.tool_calls import CallSplitter

__all__ = [
    "CallSplitter",
    "IncrementalDecoder",
    "Notice",
    "Runaway",
    "RunawayDetector",
    "RunawayKind",
    "StopMatch",
    "StopWords",
    "TextJoiner",
    "ThinkingSplitter",
]

__getattr__ = renamed(__name__, {"TextSeam": "TextJoiner"})
