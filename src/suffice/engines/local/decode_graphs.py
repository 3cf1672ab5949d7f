"""Steps of decoding that can be recorded as CUDA graphs: all that they read stays where it is in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from suffice.engines.local.paged_attention import DecodeGroup, DecodePlan, Step, by_layer, to_device, window_of

__all__ = ["DecodeTables"]


class DecodeTables:
    """Where the requests of a step have their tokens and pages.

    A recorded step reads these tensors, so filling them with those of the next step and replaying it computes that one.
    Whatever has another shape is recorded on its own: steps are told apart by their number of requests, which
    transformers pads to a power of two, and by `pages`, that of the longest, padded likewise.

    Args:
        cache: transformers' `PagedAttentionCache`.
        requests: of a step at most.
        dtype: of queries and keys.
    """

    def __init__(self, cache: Any, requests: int, device: torch.device, dtype: torch.dtype) -> None:
        self._cache, self._device, self._dtype = cache, device, dtype
        self._allocators = dict(cache.cache_allocators)
        self._positions = torch.zeros(requests, dtype=torch.int64, device=device)
        self._blocks = {
            name: torch.zeros(requests, _most_pages(each), dtype=torch.int64, device=device)
            for name, each in self._allocators.items()
        }
        self.pages = 1
        """Pages that are read for each request, padded."""

    def fill(self, request_ids: Sequence[str], positions: Sequence[int], padded_to: int) -> None:
        """Take over a step: its requests, the position of the new token of each, and how many places there are. Places
        without a request read and write the sector that transformers keeps for that."""
        empty = padded_to - len(request_ids)
        tables = {
            name: [allocator.block_table[request_id] for request_id in request_ids]
            for name, allocator in self._allocators.items()
        }
        self.pages = _padded(max(len(table) for rows in tables.values() for table in rows))
        self._positions[:padded_to].copy_(to_device([*positions, *[0] * empty], self._device))
        for name, rows in tables.items():
            trash = self._allocators[name].blocks_per_sector  # the first block of the second sector
            width = min(self.pages, self._blocks[name].shape[1])
            filled = [row + [trash] * (width - len(row)) for row in rows] + [[trash] * width] * empty
            self._blocks[name][:padded_to, :width].copy_(to_device(filled, self._device))

    def plan(self, requests: int) -> Step:
        """The step's plan, worked out on the device alone."""
        return by_layer(self._cache, lambda allocator: self._plan(allocator, requests))

    def _plan(self, allocator: Any, requests: int) -> DecodePlan:
        page_size, stride = allocator.tokens_per_page, allocator.block_physical_stride // allocator.tokens_per_page
        window = window_of(allocator)
        positions = self._positions[:requests]
        slots = positions % window if window else positions
        lasts = positions.clamp(max=window - 1) if window else positions
        blocks = self._blocks[allocator.layer_type][:requests, : self.pages]
        page = blocks.gather(1, (slots // page_size)[:, None])[:, 0]
        beyond = torch.arange(blocks.shape[1] * page_size, device=self._device) > lasts[:, None]
        mask = torch.zeros(beyond.shape, dtype=self._dtype, device=self._device).masked_fill_(beyond, float("-inf"))
        group = DecodeGroup(positions, (blocks * stride).flatten(), mask[:, None, None, :])
        return DecodePlan(page * stride * page_size + slots % page_size, (group,))


def _most_pages(allocator: Any) -> int:
    """That one request can have, padded where there is no window."""
    window = window_of(allocator)
    pages = _padded(allocator.num_blocks)
    return min(pages, -(-window // allocator.tokens_per_page)) if window else pages


def _padded(pages: int) -> int:
    """To a power of two."""
    return 1 << (pages - 1).bit_length()
