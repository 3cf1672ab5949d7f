"""A program that stands in for vLLM or SGLang: it takes their flags, writes their log, and answers with `FakeOpenAI`.

What it does comes from a JSON object in FAKE_SERVER: `die` names the step at which it fails (see `STEPS`), `say` is
what it writes then, `once` a file whose existence makes it well, `pace` the seconds between pieces of a long answer,
`arguments` a file for its command line, `worker` one for its pid and that of a process of its own, which notices
nothing when the rest is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STEPS = ("import", "weights", "cache", "graphs", "listen", "running")
LOG = {
    "import": "(APIServer pid=7) INFO 11-27 20:25:25 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config",
    "weights": "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00]\r"
    "Loading safetensors checkpoint shards: 100% Completed | 2/2 [00:00<00:00]\n"
    "(Worker pid=9) INFO 11-27 20:28:07 [default_loader.py:501] Loading weights took 0.99 seconds",
    "cache": "(EngineCore pid=8) INFO 11-27 20:28:14 [kv_cache_utils.py:2327] GPU KV cache size: 524,288 tokens",
    "graphs": "(Worker pid=9) INFO 11-27 20:28:20 [gpu_model_runner.py:1] Graph capturing finished in 3 secs",
}


def flag(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def step(name: str, plan: dict[str, str]) -> None:
    if name in LOG:
        print(LOG[name], flush=True)
    if plan.get("die") != name or ("once" in plan and Path(plan["once"]).exists()):
        return
    if "once" in plan:
        Path(plan["once"]).touch()
    if plan.get("say") == "nothing":
        time.sleep(600)
    print(plan.get("say", f"ValueError: broken at {name}"), flush=True)
    sys.exit(1)


async def serve(plan: dict[str, str]) -> None:
    from suffice.testing.fake_openai import FakeOpenAI, Reply  # takes a while, and most do not come so far

    name = flag("--served-model-name")
    adapters = [each.partition("=")[0] for each in sys.argv if "=/" in each]
    models = [{"id": each, "owned_by": "vllm", "max_model_len": 4096} for each in (name, *adapters)]
    key = os.environ.get("VLLM_API_KEY") if "--config" not in sys.argv else _key_in(flag("--config"))
    async with FakeOpenAI(models=models, key=key, tokenize=5, port=int(flag("--port"))) as server:
        if "pace" in plan:
            pieces = [f"{i} " for i in range(400)]
            server.script(Reply(pieces=pieces, piece_delay=float(plan["pace"]), usage=(5, 400)))

        def sicken() -> None:
            server.health = 503
            server.script(Reply.refusal(500, "EngineCore encountered an issue"))

        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, sicken)
        step("running", plan)
        await asyncio.Event().wait()


def _key_in(config: str) -> str:
    assert os.stat(config).st_mode & 0o077 == 0
    return Path(config).read_text().partition("api-key: ")[2].strip()


def main() -> None:
    plan = json.loads(os.environ.get("FAKE_SERVER", "{}"))
    if "arguments" in plan:
        Path(plan["arguments"]).write_text(json.dumps(sys.argv))
    if "worker" in plan:
        stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        worker = subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)
        Path(plan["worker"]).write_text(f"{os.getpid()} {worker.pid}")
    for name in STEPS[:-1]:
        step(name, plan)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    asyncio.run(serve(plan))


if __name__ == "__main__":
    main()
