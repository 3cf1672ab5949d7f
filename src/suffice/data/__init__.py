"""Reads datasets in every common shape, and writes results that survive a crash."""

from __future__ import annotations

from suffice.data.answers import AnswerSummary, read_answers
from suffice.data.dataset import DatasetRows, count_rows, dataset_fingerprint, read_dataset
from suffice.data.results import ResultWriter, read_results
from suffice.data.sidecar import known_differences, known_of, sidecar_path
from suffice.data.types import Conversation, DatasetSummary, Turn, UnusableRow
from suffice.deprecated import renamed

__all__ = [
    "AnswerSummary",
    "Conversation",
    "DatasetRows",
    "DatasetSummary",
    "ResultWriter",
    "Turn",
    "UnusableRow",
    "count_rows",
    "dataset_fingerprint",
    "known_differences",
    "known_of",
    "read_answers",
    "read_dataset",
    "read_results",
    "sidecar_path",
]

__getattr__ = renamed(__name__, {"RowError": "UnusableRow"})
