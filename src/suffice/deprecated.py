"""Old names that still work: modules that moved, and names that packages no longer use. Each use warns in one line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["renamed", "warn_deprecated", "watch_for_old_modules"]

_MOVED = {
    "budget budget": "profile=length_profile forecast=learned_length model=length_model",
    "budget ": "prompt ratios=token_ratios",
    "budget budget.length_constraints": "wishes=find wishes_english=english wishes_chinese=chinese numbers",
    "budget.model budget.length_model": "text=features evaluate calibration distribution history length_model=model "
    "linear prompt_model state trees",
    "data ": "lengths=profiling",
    "data.lengths profiling": "text=terminal plot html advice histogram intervals layout=columns profile=accumulators "
    "records report source words",
    "engines ": "wire_json=json_codec",
    "engines checkpoints": "source=model_source hub loading=load_model chat_tokenizer quiet=library_warnings",
    "engines engines.local": "manager=batching growing=growing_request sampling paged=paged_attention "
    "stream=token_stream recovery=oom_recovery likely=logprobs fused=fused_norms prompting=model_text",
    "engines engines.openai": "remote=engine openai_client=client openai_api=requests openai_stream=answer_reader "
    "openai_going_on=continuation openai_logprobs=logprobs sse",
    "memory memory": "traffic=concurrency",
    "schedule engines": "pool",
    "schedule serve.limits": "admission",
    "serve serve.auth": "keys=api_keys callers=permissions tiers",
    "serve serve.limits": "quotas",
    "serve serve.request_log": "store tables ledger=writer usage=usage_report",
    "session session": "written=answer_so_far legs=segments caps=thinking_budget loops=runaway_watch meter=progress "
    "side_by_side=merge_streams reader=chunk_reader likely=logprobs",
    "train train": "ending=time_limit stops=end_check masks=loss_mask folders=checkpoint_folders base=base_model "
    "batches=length_groups",
    "watch watch": "asked=repetition_wanted repeats=repetition_score remaining=remaining_length",
}
"""Where modules were and are, below `suffice`: their packages, then their names (`old=new`, or one name for both)."""
_DISSOLVED = {
    "suffice.schedule": {
        "Pool": "suffice.engines.pool:Pool",
        "Upstream": "suffice.engines.pool:Upstream",
        "Trace": "suffice.engines.base:Attempt",
        "Admission": "suffice.serve.limits.admission:Admission",
        "QueueFullError": "suffice.serve.limits.admission:QueueFullError",
        "Slot": "suffice.serve.limits.admission:Slot",
        "Throughput": "suffice.serve.limits.admission:Throughput",
    },
    "suffice.watch.text": {
        "IncrementalDecoder": "suffice.watch.streaming_text:IncrementalDecoder",
        "StopMatch": "suffice.watch.stop_words:StopMatch",
        "StopWords": "suffice.watch.stop_words:StopWords",
        "TextSeam": "suffice.watch.streaming_text:TextJoiner",
    },
}
"""Packages and modules that were divided, and where each of their names is."""


def warn_deprecated(old: str, new: str, *, frames: int = 1) -> None:
    """Say once per place that `old` is now `new`; `frames` are those between here and the code that used it."""
    warnings.warn(f"{old} is deprecated: use {new}", DeprecationWarning, stacklevel=frames + 2)


def renamed(package: str, names: dict[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package, for its old names: each with its new one, or `module:name` where it moved."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, new = names[name].rpartition(":")
        warn_deprecated(f"{package}.{name}", f"{module or package}.{new}")
        return getattr(import_module(module or package), new)

    return find


def _moved_modules() -> dict[str, str]:
    moved = {}
    for packages, names in _MOVED.items():
        old, _, new = packages.partition(" ")
        for pair in names.split():
            before, _, after = pair.partition("=")
            moved[f"suffice.{old}.{before}"] = ".".join(filter(None, ("suffice", new, after or before)))
    return moved


class _OldModules:
    """Finds modules under their old paths: importing one gives the very module that is at the new path."""

    def __init__(self) -> None:
        self._moved = _moved_modules()
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name in self._moved or name in _DISSOLVED:
            return ModuleSpec(name, self, is_package=name in _DISSOLVED)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        if spec.name in _DISSOLVED:
            return None
        warn_deprecated(spec.name, self._moved[spec.name])
        module = import_module(self._moved[spec.name])
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        name = module.__spec__.name if module.__spec__ else ""
        if name in _DISSOLVED:
            module.__getattr__ = renamed(name, _DISSOLVED[name])  # type: ignore[method-assign]
        else:
            module.__spec__ = self._specs.pop(name)  # the import system has put the old path's there


def watch_for_old_modules() -> None:
    """Let old module paths be imported. First in line: the parent of an old path may be a new package."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OldModules())
