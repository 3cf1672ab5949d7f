"""Attention over transformers' paged KV cache, one small batch per step instead of one large masked product.

transformers' own `sdpa` path multiplies every query with the keys of *every* request and masks the rest away, so the
work grows with the square of the number of requests. Here each request attends only to its own pages; when all decode,
requests of similar length form one padded batch. Plain PyTorch, for CPU and accelerators without flash-attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

__all__ = [
    "PAGED_ATTENTION",
    "Step",
    "by_layer",
    "has_sinks",
    "open_to_decoding",
    "plan_decode",
    "plan_mixed",
    "register",
    "supports",
    "to_device",
    "window_of",
]

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
class DecodePlan:
    """Layers of one kind in a step in which every request has exactly one new token."""

    write_index: torch.Tensor
    """Cache row of each request's new token, shape [requests]."""
    groups: tuple[DecodeGroup, ...]


@dataclass(frozen=True, slots=True)
class PackedRequest:
    """Where one request's queries and keys lie in the packed row of a step with prompts in it."""

    queries: slice
    keys: slice
    mask: torch.Tensor | None
    """Which keys each query sees; None where all are seen, or all up to its own (`causal`)."""
    causal: bool


MixedPlan = tuple[PackedRequest, ...]
"""Layers of one kind in a step with prompts in it."""

Step = Mapping[int, "DecodePlan | MixedPlan"]
"""A step, worked out once for all layers: the plan of each layer, by its index."""


def supports(model: Any) -> bool:
    """Whether this attention computes what `model` needs: causal, over everything or a window, and nothing special."""
    config = model.config.get_text_config()
    plain = set(getattr(config, "layer_types", None) or ()) <= {"full_attention", "sliding_attention"}
    plain = plain and getattr(config, "attn_logit_softcapping", None) is None
    plain = plain and not getattr(config, "use_bidirectional_attention", None)
    return bool(plain and model._supports_attention_backend and not has_sinks(model))


def has_sinks(model: Any) -> bool:
    """Whether the model's attention has learned sinks (gpt-oss)."""
    return any("sinks" in name for name, _ in model.named_parameters())


def register() -> None:
    """Make `PAGED_ATTENTION` known to transformers. May be called again."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(PAGED_ATTENTION, paged_attention)


def open_to_decoding(cache: Any) -> None:
    """Let transformers use `cache` by pages in every layer that this attention knows, those with windows included, and
    leave the tables of pages to `plan_decode`: filled one by one, they take as long as the attention."""
    cache.max_decode_fast_path_length = 1 << 31
    cache.fill_block_table = lambda *args: None
    for allocator in cache.cache_allocators.values():
        allocator.get_cache_for_block_table = allocator._kv_page_views.__getitem__


def plan_decode(
    cache: Any, request_ids: Sequence[str], positions: Sequence[int], device: torch.device, dtype: torch.dtype
) -> Step:
    """Work out a step with one new token per request.

    Args:
        cache: transformers' `PagedAttentionCache`.
        positions: position of each new token.
        device: where queries and keys are.
        dtype: theirs.
    """
    return by_layer(cache, lambda allocator: _plan_decode(allocator, request_ids, positions, device, dtype))


def plan_mixed(cache: Any, requests: Sequence[tuple[int, int]], device: torch.device) -> Step:
    """Work out a step with prompts in it.

    Args:
        requests: of each request, the tokens in the cache before the step, and the new ones.
    """
    return by_layer(cache, lambda allocator: tuple(_pack(allocator, requests, device)))


def by_layer(cache: Any, plan: Callable[[Any], DecodePlan | MixedPlan]) -> Step:
    plans = {name: plan(allocator) for name, allocator in cache.cache_allocators.items()}
    return {layer: plans[allocator.layer_type] for layer, allocator in cache.layer_to_allocator.items()}


def _plan_decode(
    allocator: Any, request_ids: Sequence[str], positions: Sequence[int], device: torch.device, dtype: torch.dtype
) -> DecodePlan:
    page_size, stride = allocator.tokens_per_page, allocator.block_physical_stride // allocator.tokens_per_page
    tables = [allocator.block_table[request_id] for request_id in request_ids]
    window = window_of(allocator)  # a ring: the new token takes the place of the one that leaves the window
    slots = [position % window for position in positions] if window else positions
    lasts = [min(position, window - 1) for position in positions] if window else positions
    write_index = [
        table[slot // page_size] * stride * page_size + slot % page_size
        for table, slot in zip(tables, slots, strict=True)
    ]
    buckets: dict[int, list[int]] = {}
    for row, last in enumerate(lasts):
        buckets.setdefault(max(last // page_size, _SHORT_PAGES).bit_length(), []).append(row)

    def group(rows: list[int]) -> DecodeGroup:
        longest = max(lasts[row] for row in rows) // page_size + 1  # in pages
        # What fills up a row is masked, so any page will do.
        blocks = [tables[row][:longest] + tables[row][:1] * (longest - len(tables[row])) for row in rows]
        ends = to_device([lasts[row] for row in rows], device)
        beyond = torch.arange(longest * page_size, device=device) > ends[:, None]
        mask = torch.zeros(beyond.shape, dtype=dtype, device=device).masked_fill_(beyond, float("-inf"))
        pages = to_device(blocks, device).flatten() * stride
        return DecodeGroup(to_device(rows, device), pages, mask[:, None, None, :])

    return DecodePlan(to_device(write_index, device), tuple(map(group, buckets.values())))


def _pack(allocator: Any, requests: Sequence[tuple[int, int]], device: torch.device) -> Iterator[PackedRequest]:
    window, query, key = window_of(allocator), 0, 0
    for past, new in requests:
        seen = int(allocator.get_seqlen_k(past, new))
        mask = None
        if new > 1 and (new < seen or (window and seen > window)):
            # A later part of a prompt: the diagonal ends in the lower right corner, and so does the window's.
            mask = torch.ones(new, seen, dtype=torch.bool, device=device).tril_(seen - new)
            if window:
                mask.triu_(seen - new - window + 1)
        causal = new > 1 and mask is None
        yield PackedRequest(slice(query, query + new), slice(key, key + seen), mask, causal)
        query, key = query + new, key + seen


def window_of(allocator: Any) -> int | None:
    """Tokens that the layers of an allocator look back on, their own included; None for all."""
    return getattr(allocator, "sliding_window", None)


def paged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    cache: Any = None,
    step: Step | None = None,
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
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if not in_cache:
        key, value = cache.update(key, value, layer, kwargs)
    plan = step[layer]
    if isinstance(plan, DecodePlan):
        return _decode(query, key, value, kwargs["k_cache"], kwargs["v_cache"], plan, scaling), None
    return _prefill(query, key, value, plan, scaling), None


def _decode(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    plan: DecodePlan,
    scaling: float | None,
) -> torch.Tensor:
    _, heads, requests, head_size = query.shape
    kv_heads = key.shape[1]
    for pages, new in ((k_cache, key), (v_cache, value)):
        pages.view(-1, kv_heads, head_size).index_copy_(0, plan.write_index, new[0].transpose(0, 1))
    # The query heads that share a key-value head become its query rows: no key is repeated.
    grouped = query[0].transpose(0, 1).reshape(requests, kv_heads, heads // kv_heads, head_size)

    def attend(group: DecodeGroup) -> torch.Tensor:
        q = grouped if len(plan.groups) == 1 else grouped.index_select(0, group.rows)
        k, v = (
            pages.index_select(0, group.pages).view(len(q), -1, kv_heads, head_size).transpose(1, 2)
            for pages in (k_cache, v_cache)
        )
        return scaled_dot_product_attention(q, k, v, attn_mask=group.mask, scale=scaling)

    if len(plan.groups) == 1:
        return attend(plan.groups[0]).reshape(1, requests, heads, head_size)
    out = torch.empty_like(grouped)
    for group in plan.groups:
        out.index_copy_(0, group.rows, attend(group))
    return out.view(1, requests, heads, head_size)


def _prefill(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: MixedPlan, scaling: float | None
) -> torch.Tensor:
    groups = query.shape[1] // key.shape[1]
    out = torch.empty_like(query)
    for each in plan:
        q, k, v = query[:, :, each.queries], key[:, :, each.keys], value[:, :, each.keys]
        if groups > 1:
            k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
        out[:, :, each.queries] = scaled_dot_product_attention(
            q, k, v, attn_mask=each.mask, is_causal=each.causal, scale=scaling
        )
    return out.transpose(1, 2).contiguous()


def to_device(numbers: Sequence[Any], device: torch.device) -> torch.Tensor:
    """Whole numbers to the device, without waiting for it."""
    made = torch.tensor(numbers)
    return made if device.type == "cpu" else made.pin_memory().to(device, non_blocking=True)
