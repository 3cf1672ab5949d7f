"""Attention over transformers' paged KV cache, one small batch per step instead of one large masked product.

transformers' own `sdpa` path multiplies every query with the keys of *every* request and masks the rest away, so the
work grows with the square of the number of requests. Here each request attends only to its own pages; when all decode,
requests of similar length form one padded batch. Plain PyTorch, for CPU and accelerators without flash-attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["PAGED_ATTENTION", "has_sinks", "plan_decode", "plan_mixed", "register", "supports"]

PAGED_ATTENTION = "suffice_paged"
"""The name under which transformers knows the attention function (`attn_implementation`)."""

_SHORT_PAGES = 7  # up to this many pages are padded to each other; above, at most to twice the length


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Requests of similar length, attended to as one padded batch."""

    rows: torch.Tensor
    """Places of the requests in the step."""
    pages: torch.Tensor
    """Pages to read, shape [requests * pages of the longest]."""
    mask: torch.Tensor
    """Additive mask over the gathered positions, shape [requests, 1, 1, positions]."""


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """A step in which every request has exactly one new token."""

    write_index: torch.Tensor
    """Cache row of each request's new token, shape [requests]."""
    groups: tuple[DecodeGroup, ...]


MixedStep = tuple[tuple[int, int, int, int], ...]
"""A step with prompts in it: where each request's queries and keys lie in the packed row (first query, end of queries,
first key, end of keys)."""


def supports(model: Any) -> bool:
    """Whether this attention computes what `model` needs: full attention in every layer, and nothing special in it."""
    config = model.config.get_text_config()
    layer_types = set(getattr(config, "layer_types", None) or ())
    if not layer_types and getattr(config, "sliding_window", None) is not None:
        return False
    plain = layer_types <= {"full_attention"} and getattr(config, "attn_logit_softcapping", None) is None
    return plain and model._supports_attention_backend and not has_sinks(model)


def has_sinks(model: Any) -> bool:
    """Whether the model's attention has learned sinks (gpt-oss)."""
    return any("sinks" in name for name, _ in model.named_parameters())


def register() -> None:
    """Make `PAGED_ATTENTION` known to transformers. May be called again."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(PAGED_ATTENTION, paged_attention)


def plan_decode(cache: Any, request_ids: Sequence[str], position_ids: torch.Tensor, dtype: torch.dtype) -> DecodeStep:
    """Work out a step with one new token per request, once for all layers.

    Args:
        cache: transformers' `PagedAttentionCache`.
        position_ids: position of each new token, shape [1, requests].
        dtype: of queries and keys.
    """
    (allocator,) = cache.cache_allocators.values()
    page_size, stride = allocator.tokens_per_page, allocator.block_physical_stride // allocator.tokens_per_page
    tables = [allocator.block_table[request_id] for request_id in request_ids]
    positions = position_ids[0].tolist()
    write_index = [
        table[position // page_size] * stride * page_size + position % page_size
        for table, position in zip(tables, positions, strict=True)
    ]
    buckets: dict[int, list[int]] = {}
    for row, position in enumerate(positions):
        buckets.setdefault(max(position // page_size, _SHORT_PAGES).bit_length(), []).append(row)

    def group(rows: list[int]) -> DecodeGroup:
        longest = max(positions[row] for row in rows) // page_size + 1  # in pages
        # What fills up a row is masked, so any page will do.
        blocks = [tables[row][:longest] + tables[row][:1] * (longest - len(tables[row])) for row in rows]
        index = torch.tensor([rows, [positions[row] for row in rows]], device=position_ids.device)
        beyond = torch.arange(longest * page_size, device=index.device) > index[1][:, None]
        mask = torch.zeros(beyond.shape, dtype=dtype, device=index.device).masked_fill_(beyond, float("-inf"))
        pages = torch.tensor(blocks, device=index.device).flatten() * stride
        return DecodeGroup(index[0], pages, mask[:, None, None, :])

    return DecodeStep(torch.tensor(write_index, device=position_ids.device), tuple(map(group, buckets.values())))


def plan_mixed(query_ends: torch.Tensor, key_ends: torch.Tensor) -> MixedStep:
    """Work out a step with prompts in it from the cumulative lengths of queries and keys, both [requests + 1]."""
    pairs = zip(pairwise(query_ends.tolist()), pairwise(key_ends.tolist()), strict=True)
    return tuple((*queries, *keys) for queries, keys in pairs)


def paged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    cache: Any = None,
    step: DecodeStep | MixedStep | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer, in transformers' interface, for a `step` that `plan_decode` or `plan_mixed` worked out.

    `query`, `key` and `value` have the shape [1, heads, tokens, head size], and the output [1, tokens, heads, head
    size]. From transformers 5.24 on, a layer puts keys and values into the cache itself; before, this does.

    Raises:
        ValueError: called outside continuous batching.
    """
    in_cache = not isinstance(kwargs.get("cu_seq_lens_k"), Mapping)  # the cache takes this layer's out of those of all
    if step is None or (cache is None and not in_cache):
        raise ValueError(f"`{PAGED_ATTENTION}` works only inside continuous batching: use `sdpa` for a plain forward")
    if not in_cache:
        key, value = cache.update(key, value, module.layer_idx, kwargs)
    if isinstance(step, DecodeStep):
        return _decode(query, key, value, kwargs["k_cache"], kwargs["v_cache"], step, scaling), None
    return _prefill(query, key, value, step, scaling), None


def _decode(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    step: DecodeStep,
    scaling: float | None,
) -> torch.Tensor:
    _, heads, requests, head_size = query.shape
    kv_heads = key.shape[1]
    for pages, new in ((k_cache, key), (v_cache, value)):
        pages.view(-1, kv_heads, head_size).index_copy_(0, step.write_index, new[0].transpose(0, 1))
    # The query heads that share a key-value head become its query rows: no key is repeated.
    grouped = query[0].transpose(0, 1).reshape(requests, kv_heads, heads // kv_heads, head_size)

    def attend(group: DecodeGroup) -> torch.Tensor:
        q = grouped if len(step.groups) == 1 else grouped.index_select(0, group.rows)
        k, v = (
            pages.index_select(0, group.pages).view(len(q), -1, kv_heads, head_size).transpose(1, 2)
            for pages in (k_cache, v_cache)
        )
        return scaled_dot_product_attention(q, k, v, attn_mask=group.mask, scale=scaling)

    if len(step.groups) == 1:
        return attend(step.groups[0]).reshape(1, requests, heads, head_size)
    out = torch.empty_like(grouped)
    for group in step.groups:
        out.index_copy_(0, group.rows, attend(group))
    return out.view(1, requests, heads, head_size)


def _prefill(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, step: MixedStep, scaling: float | None
) -> torch.Tensor:
    groups = query.shape[1] // key.shape[1]
    out = torch.empty_like(query)
    for q_start, q_end, k_start, k_end in step:
        q, k, v = query[:, :, q_start:q_end], key[:, :, k_start:k_end], value[:, :, k_start:k_end]
        if groups > 1:
            k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
        tokens, seen = q_end - q_start, k_end - k_start
        mask = None
        if 1 < tokens < seen:  # a later part of a prompt: the mask's diagonal ends in the lower right corner
            mask = torch.ones(tokens, seen, dtype=torch.bool, device=q.device).tril_(seen - tokens)
        out[:, :, q_start:q_end] = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=tokens > 1 and mask is None, scale=scaling
        )
    return out.transpose(1, 2).contiguous()
