"""The command line and the environment with which a server is started, from the plan. Starts nothing."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from suffice.engines.managed.launch_plan import LaunchPlan
from suffice.engines.managed.model_files import ModelFiles, NamedAdapter
from suffice.engines.managed.programs import Installed
from suffice.errors import UsageError

__all__ = ["LaunchCommand", "Wishes", "launch_command", "split_engine_args"]

_GUARD = Path(__file__).with_name("child")
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has kernels for
_MOST_LORAS = 8  # adapters in one batch, each of which takes memory; more take turns
_OURS = ("host", "port", "api-key", "served-model-name", "uds", "root-path", "config", "model", "model-path")
"""Flags without which the server could not be reached, so that `--engine-args` may not have them."""
_NO_PAGE_BYTES = (0, 10, 2)  # vLLM before it has no --kv-cache-memory-bytes
_BLOCK = 16  # tokens in a block of vLLM's cache on CUDA
_LOGS_REQUESTS = (0, 10, 1)  # vLLM before it logs every request
_HAS_SERVE = (
    0,
    33,
)  # vLLM from which on its older module may be gone
_GIB = 2**30
_CPU_CACHE_GIB = 4
_KEEP_ALIVE = "60"  # seconds: with 5, a busy machine sends requests on connections that are being closed
_KEYS = ("SUFFICE_API_KEY", "OPENAI_API_KEY")  # for other servers than this one
_OF_THIS_ENVIRONMENT = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the caller asks of the server, beside memory."""

    dtype: str = "auto"
    trust_remote_code: bool = False
    extra: tuple[str, ...] = ()
    """Flags as the server has them; they win over those of the plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchCommand:
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    overridden: tuple[str, ...] = ()
    """Flags of the plan that the caller's took the place of."""
    secret_files: Mapping[str, str] | None = None
    """Files that only this user may read, by the argument that stands for each."""


def split_engine_args(text: str) -> tuple[str, ...]:
    """The flags in a text, split as a shell does.

    Raises:
        UsageError: a quote is not closed, or a flag is among them that Suffice sets itself.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"--engine-args {text!r} cannot be split into flags: {error}") from None
    if words and not words[0].startswith("-"):
        raise UsageError(f"--engine-args {text!r}: give the server's own flags, such as --max-num-seqs 64")
    if taken := [each for each in map(_flag, words) if each in _OURS]:
        raise UsageError(f"--engine-args: --{taken[0]} is set by Suffice, which speaks to the server; leave it out")
    return words


def launch_command(
    installed: Installed,
    files: ModelFiles,
    adapters: Sequence[NamedAdapter],
    plan: LaunchPlan,
    wishes: Wishes,
    *,
    port: int,
    key: str,
) -> LaunchCommand:
    """How to start the server on a port of loopback, with a key of its own."""
    is_vllm = installed.program.name == "vllm"
    flags = (_vllm if is_vllm else _sglang)(installed, files, adapters, plan, wishes)
    given = {name.removeprefix("no-") for name in map(_flag, wishes.extra) if name}
    kept = [flag for flag in flags if _flag(flag[0]) not in given]
    overridden = tuple(" ".join(flag) for flag in flags if flag not in kept)
    reach = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", files.source.name]
    return LaunchCommand(
        arguments=(
            installed.python,
            "-m",
            *_module_and_model(installed, files.source.location),
            *reach,
            *(word for flag in kept for word in flag),
            *wishes.extra,
        ),
        environment=_environment(installed, files, plan, key),
        overridden=overridden,
        secret_files=None if is_vllm else {"KEY.yaml": f"api-key: {key}\n"},
    )


def _module_and_model(installed: Installed, location: str) -> tuple[str, ...]:
    if installed.program.name == "sglang":
        return ("sglang.launch_server", "--model-path", location, "--config", "KEY.yaml")
    if installed.numbers >= _HAS_SERVE:
        return ("vllm.entrypoints.cli.main", "serve", location)
    return ("vllm.entrypoints.openai.api_server", "--model", location)


def _vllm(
    installed: Installed, files: ModelFiles, adapters: Sequence[NamedAdapter], plan: LaunchPlan, wishes: Wishes
) -> list[list[str]]:
    flags = [["--scheduling-policy", "priority"], ["--uvicorn-log-level", "warning"]]
    flags.append(["--middleware", "suffice_key_guard.KeyGuard"])
    if dtype := _dtype(wishes.dtype, files, plan):
        flags.append(["--dtype", dtype])
    if plan.context_tokens is not None:
        flags.append(["--max-model-len", str(plan.context_tokens)])
    if plan.tensor_parallel_size > 1:
        flags.append(["--tensor-parallel-size", str(plan.tensor_parallel_size)])
    if plan.memory_share is not None:
        flags.append(["--gpu-memory-utilization", f"{plan.memory_share:g}"])
    if plan.kv_tokens is not None and not plan.on_cpu:  # there the environment says so
        if plan.kv_bytes is not None and installed.numbers >= _NO_PAGE_BYTES:
            flags.append(["--kv-cache-memory-bytes", str(plan.kv_bytes)])
        else:
            flags.append(["--num-gpu-blocks-override", str(-(-plan.kv_tokens // _BLOCK))])
    if files.max_new_tokens is not None:  # a default for requests without a limit, which some versions make a ceiling
        flags.append(["--override-generation-config", json.dumps({"max_new_tokens": None})])
    if adapters:
        rank = max(each.rank for each in adapters)
        flags.append(["--enable-lora"])
        flags.append(["--max-lora-rank", str(next((each for each in _RANKS if each >= rank), rank))])
        flags.append(["--max-loras", str(min(len(adapters), _MOST_LORAS))])
        flags.append(["--lora-modules", *(f"{each.name}={each.folder}" for each in adapters)])
    if wishes.trust_remote_code:
        flags.append(["--trust-remote-code"])
    if installed.numbers < _LOGS_REQUESTS:
        flags.append(["--disable-log-requests"])
    return flags


def _sglang(
    installed: Installed, files: ModelFiles, adapters: Sequence[NamedAdapter], plan: LaunchPlan, wishes: Wishes
) -> list[list[str]]:
    flags = [
        ["--enable-priority-scheduling"],
        ["--schedule-low-priority-values-first"],
        ["--log-level-http", "warning"],
    ]
    if dtype := _dtype(wishes.dtype, files, plan):
        flags.append(["--dtype", dtype])
    if plan.on_cpu:
        flags.append(["--device", "cpu"])
    if plan.context_tokens is not None:
        flags.append(["--context-length", str(plan.context_tokens)])
    if plan.tensor_parallel_size > 1:
        flags.append(["--tp-size", str(plan.tensor_parallel_size)])
    if plan.static_share is not None:
        flags.append(["--mem-fraction-static", f"{plan.static_share:g}"])
    if plan.kv_tokens is not None:
        flags.append(["--max-total-tokens", str(plan.kv_tokens)])
    if adapters:
        flags.append(["--enable-lora"])
        flags.append(["--max-lora-rank", str(max(each.rank for each in adapters))])
        flags.append(["--max-loras-per-batch", str(min(len(adapters), _MOST_LORAS) + 1)])  # and the base
        flags.append(["--lora-paths", *(f"{each.name}={each.folder}" for each in adapters)])
    if wishes.trust_remote_code:
        flags.append(["--trust-remote-code"])
    return flags


def _dtype(asked: str, files: ModelFiles, plan: LaunchPlan) -> str | None:
    """As the engine of transformers chooses it; None leaves it to the server, as for quantised models."""
    if asked != "auto":
        return _DTYPES.get(asked, asked)
    return "float32" if plan.on_cpu and not files.config.get("quantization_config") else None


def _environment(installed: Installed, files: ModelFiles, plan: LaunchPlan, key: str) -> dict[str, str]:
    """This process's, with what the server reads from there. What the user has set stays, but for devices and key."""
    usual = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
    usual["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] = _KEEP_ALIVE
    if files.source.only_here:
        usual["HF_HUB_OFFLINE"] = "1"
    ours = {"VLLM_API_KEY": key}
    if plan.gpus:
        ours["CUDA_VISIBLE_DEVICES"] = ",".join(each.id for each in plan.gpus)
    if plan.on_cpu:
        usual |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": str(_CPU_CACHE_GIB)}
        if plan.kv_bytes is not None:
            ours["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, -(-plan.kv_bytes // _GIB)))
    inherited = {name: value for name, value in os.environ.items() if name not in _KEYS}
    if installed.python != sys.executable:  # what leads to these packages must not lead another interpreter here
        inherited = {name: value for name, value in inherited.items() if name not in _OF_THIS_ENVIRONMENT}
    ours["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_GUARD), inherited.get("PYTHONPATH"))))
    return usual | inherited | ours


def _flag(word: str) -> str:
    """`--max_model_len=5` as `max-model-len`; '' for what is no flag."""
    return word.partition("=")[0][2:].replace("_", "-") if word.startswith("--") else ""
