"""Groups the rows of one step by length: short rows share a forward pass that holds no more than the longest row.

A step's gradient is the mean over its answer tokens, however the rows are grouped: grouping changes speed and nothing
else. With one row at a time, as the usual recipe has it, most of a step is waiting for small matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from suffice.train.loss_mask import IGNORED, EncodedRow

__all__ = ["BatchLimits", "collate", "split"]

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The most that one forward pass may hold, padding included."""

    tokens: int
    logits: int
    """Tokens whose logits are computed."""

    @classmethod
    def of(cls, rows: Sequence[EncodedRow], batch_size: int) -> BatchLimits:
        """What a batch of `batch_size` rows would hold if the longest rows met in it."""
        tokens = batch_size * max(row.tokens for row in rows)
        learned = sorted((sum(label != IGNORED for label in row.labels) for row in rows), reverse=True)
        return cls(tokens, min(tokens, batch_size * sum(learned[:batch_size])))


def collate(rows: Sequence[EncodedRow], padding: int) -> Batch:
    """The rows of a step (on one device), filled up on the right to the longest with the token `padding`, masked."""
    longest = max(row.tokens for row in rows)

    def filled(values: Sequence[list[int]], empty: int) -> torch.Tensor:
        return torch.tensor([value + [empty] * (longest - len(value)) for value in values])

    return {
        "input_ids": filled([row.input_ids for row in rows], padding),
        "attention_mask": filled([[1] * row.tokens for row in rows], 0),
        "labels": filled([row.labels for row in rows], IGNORED),
    }


def split(batch: Mapping[str, torch.Tensor], limits: BatchLimits) -> list[Batch]:
    """Groups of rows of about one length, longest first, each within the limits; a row by itself always is."""
    lengths: list[int] = batch["attention_mask"].sum(dim=1).tolist()
    firsts: list[int] = (batch["labels"] != IGNORED).int().argmax(dim=1).tolist()
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        group = [*groups[-1], row] if groups else [row]
        longest, first = lengths[group[0]], min(firsts[each] for each in group)
        fits = len(group) * longest <= limits.tokens and len(group) * (longest - first) <= limits.logits
        if groups and fits:
            groups[-1] = group
        else:
            groups.append([row])
    return [{name: values[group, : lengths[group[0]]] for name, values in batch.items()} for group in groups]
