"""What the local engine uses of transformers' continuous batching and promises nobody: all of it is there, and listed.

`.ci/run` tries this on the oldest and the newest version that `pyproject.toml` allows. When a version fails here, look
at what changed in transformers, and adapt `suffice.engines.local` or narrow the range.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from suffice.engines.local import engine

_BATCHING = "transformers.generation.continuous_batching"
NAMES = {
    f"{_BATCHING}.continuous_api:ContinuousBatchingManager": (
        "background_thread_status batch_processor cancel_request continuous_batching_config input_queue "
        "logit_processor model output_router start stop switch_to_cb_friendly_attn warmup "
        "_create_batch_processor _generation_step _generation_thread _handle_critical_error _wake_up_loop"
    ),
    f"{_BATCHING}.continuous_api:BackgroundThreadStatus": "can_accept_new_requests",
    f"{_BATCHING}.continuous_api:OutputRouter": "deliver deliver_batch fail_and_deliver",
    f"{_BATCHING}.continuous_api:ContinuousBatchProcessor": (
        "cache inputs_and_outputs max_batch_tokens model_device model_runner output_router scheduler"
    ),
    f"{_BATCHING}.scheduler:Scheduler": (
        "active_requests block_new_requests finish_request max_requests_per_batch waiting_requests "
        "waiting_requests_order"
    ),
    f"{_BATCHING}.requests:RequestState": (
        "create_equivalent_initial_request generated_len generated_tokens get_request_config initial_tokens "
        "logit_processor_kwargs logprobs max_new_tokens position_offset request_id update_and_check_completion "
        "_new_tokens_limit _true_initial_tokens"
    ),
    f"{_BATCHING}.requests:FutureRequestState": "has_new_token query_length state",
    f"{_BATCHING}.requests:GenerationOutput": "error generated_tokens is_finished request_id",
    f"{_BATCHING}.input_outputs:ContinuousBatchingIOs": (
        "compute_stream num_q_tokens num_request_in_batch output_ids requests_in_batch use_block_table _get_graph_key"
    ),
    f"{_BATCHING}.input_outputs:PagedAttentionArgs": "block_table cache cu_seq_lens_k",
    f"{_BATCHING}.cache:PagedAttentionCache": (
        "bytes_per_sector cache_allocators compute_free_capacity fill_block_table layer_to_allocator "
        "max_decode_fast_path_length max_tokens_read num_blocks num_sectors read_cache_limit update"
    ),
    f"{_BATCHING}:cache": "get_device_and_memory_breakdown",
    f"{_BATCHING}.distributed:DistributedHelper": "",
    f"{_BATCHING}.cache_allocators.cache_allocator:CacheAllocator": (
        "block_physical_stride block_table blocks_per_sector bytes_per_block get_cache_for_block_table get_seqlen_k "
        "layer_type ledger num_blocks tokens_per_page"
    ),
    f"{_BATCHING}.cache_allocators.full_attention:FullAttentionCacheAllocator": "_kv_page_views",
    f"{_BATCHING}.cache_allocators.sliding_attention:SlidingAttentionCacheAllocator": "sliding_window",
    f"{_BATCHING}.cache_allocators.cache_allocator:BlockLedger": "cached_blocks",
    f"{_BATCHING}.cb_logits_processors:ContinuousBatchingLogitsProcessorList": (
        "__call__ check_kwargs do_processing fill_defaults prepare_tensor_args tensors_required"
    ),
    f"{_BATCHING}.model_runner:infer_max_single_request_tokens": "",
    f"{_BATCHING}.model_runner:ModelRunner": "compute_batch",
    f"{_BATCHING}.utils:stream_context": "",
    "transformers:ContinuousBatchingConfig": (
        "max_batch_tokens max_blocks_per_request max_memory_percent max_requests_per_batch num_blocks page_size "
        "safety_margin use_async_batching use_cuda_graph"
    ),
    "transformers.modeling_utils:PreTrainedModel": (
        "_supports_attention_backend _supports_flash_attn register_forward_pre_hook set_attn_implementation"
    ),
    "transformers:GenerationMixin": "_supports_logits_to_keep",
    "transformers.modeling_utils:ALL_ATTENTION_FUNCTIONS": "register",
    "transformers:PreTrainedConfig": "_attn_implementation",
    "transformers.utils.import_utils:is_flash_attn_2_available": "",
    "transformers.utils.import_utils:is_flash_attn_3_available": "",
}
"""Class or function, and the attributes, methods and fields of it that are used."""

LISTED = {name for names in NAMES.values() for name in names.split()}
OURS = Path(inspect.getfile(engine)).parent


def said_by(found: object) -> str:
    """The source of a class and its bases, or of an instance's class."""
    kind = found if inspect.isclass(found) else type(found)
    sources = [
        inspect.getsource(each) for each in kind.__mro__ if each.__module__.startswith(("transformers", "torch"))
    ]
    return "\n".join(sources)


@pytest.mark.parametrize("path", NAMES)
def test_what_is_used_is_there(path: str) -> None:
    module, _, name = path.partition(":")
    found = getattr(import_module(module), name)
    if not NAMES[path]:
        return
    source = said_by(found)
    missing = [
        each
        for each in NAMES[path].split()
        if not hasattr(found, each) and not re.search(rf"(\bself\.|^    |\bdef ){each}\b\s*[=:,(]", source, re.M)
    ]
    assert not missing, f"transformers {version('transformers')}: {name} has no {', '.join(missing)}"


def private_names(tree: ast.AST) -> Iterator[str]:
    """Private names that are used in a module, and those that it defines, which come with a minus."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield f"-{node.name}"
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            own = isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"
            yield f"-{node.attr}" if own else node.attr


def overridden(tree: ast.AST) -> set[str]:
    """Private methods that are called on `super()`."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call))
    names = {node.attr for node in calls if isinstance(node.value.func, ast.Name) and node.value.func.id == "super"}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_every_private_name_that_is_used_is_listed() -> None:
    trees = [ast.parse(path.read_text("utf-8")) for path in OURS.glob("*.py")]
    found = {name for tree in trees for name in private_names(tree)}
    ours = {name[1:] for name in found if name.startswith("-")}
    foreign = {name for name in found if not name.startswith("-")} - ours
    foreign |= {name for tree in trees for name in overridden(tree)}
    foreign -= {name for name in foreign if name.endswith("_in_place")}
    assert foreign <= LISTED, f"used and not listed: {sorted(foreign - LISTED)}"
    text = "\n".join(path.read_text("utf-8") for path in OURS.glob("*.py"))
    unused = {name for name in LISTED if not name.startswith("__") and not re.search(rf"\b{name}\b", text)}
    assert not unused, f"listed and not used: {sorted(unused)}"


def test_what_is_imported_from_inside_transformers_is_listed() -> None:
    for path in OURS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("transformers."):
                listed = {entry.partition(":")[2] for entry in NAMES if entry.startswith(str(node.module))}
                assert {each.name for each in node.names} <= listed, f"{path.name}: {node.module}"


def test_the_range_is_that_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    project = OURS.parents[3] / "pyproject.toml"
    if project.is_file():
        low, high = re.search(r'"transformers>=([\d.]+),<([\d.]+)"', project.read_text()).groups()  # type: ignore[union-attr]
        assert (low, high) == (engine.OLDEST_TRANSFORMERS, engine.FIRST_UNKNOWN_TRANSFORMERS)
    assert engine.unknown_transformers() is None
    monkeypatch.setattr(engine, "FIRST_UNKNOWN_TRANSFORMERS", "5.3")
    assert re.search(r"^transformers [\d.]+ is installed, and .* with >=.*,<5\.3$", engine.unknown_transformers() or "")
