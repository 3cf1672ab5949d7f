"""How long are prompts and answers? Measuring files of any size, and what follows for caps, tiers and `max_length`."""

from __future__ import annotations

from suffice.data.lengths.advice import advise, row_limits
from suffice.data.lengths.histogram import Histogram
from suffice.data.lengths.profile import Profile, measure
from suffice.data.lengths.records import LengthRecord
from suffice.data.lengths.report import MemoryFacts, Report
from suffice.data.lengths.source import DEFAULT_GROUPS, LengthReader, TokenCounter, find_sources

__all__ = [
    "DEFAULT_GROUPS",
    "Histogram",
    "LengthReader",
    "LengthRecord",
    "MemoryFacts",
    "Profile",
    "Report",
    "TokenCounter",
    "advise",
    "find_sources",
    "measure",
    "row_limits",
]
