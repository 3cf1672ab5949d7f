"""How long prompts and answers are, measured in files of any size, and the caps, tiers and `max_length` that follow."""

from __future__ import annotations

from suffice.profiling.accumulators import Profile, measure
from suffice.profiling.advice import advise, row_limits
from suffice.profiling.histogram import Histogram
from suffice.profiling.records import LengthRecord
from suffice.profiling.report import MemoryFacts, Report
from suffice.profiling.source import DEFAULT_GROUPS, LengthReader, TokenCounter, find_sources

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
