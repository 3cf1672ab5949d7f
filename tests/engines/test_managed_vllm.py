"""A real vLLM, from its start to its end, with an adapter that `suffice sft` made: `suffice serve` starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

import suffice
from suffice import load_engine

SOURCE = Path(suffice.__file__).parents[1]
START = 600.0  # seconds: a cold start on a machine that others use takes minutes
PROMPTS = ["Count from 1 to 5.", "Who made you?", "List three fruits.", "你是谁？", "Explain tea in detail."]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def python() -> str:
    """The interpreter, or the environment, that has vLLM."""
    if not (found := os.environ.get("SUFFICE_TEST_VLLM_PYTHON")):
        pytest.skip("set SUFFICE_TEST_VLLM_PYTHON to the Python of an environment with vLLM")
    return found


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE), "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", **more}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    flags = "--num_train_epochs 1 --learning_rate 3e-3 --per_device_train_batch_size 8 --gradient_accumulation_steps 1"
    command = [sys.executable, "-m", "suffice.cli.main", "sft", "--dataset", "self_cognition#200", *flags.split()]
    command += ["--model_name", "小智", "Bot", "--model_author", "张三", "Jane Doe", "--output_dir", str(folder)]
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    return next(folder.glob("v0-*/last"))


class Served:
    """`suffice serve` as a process of its own."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.log = folder / "log"
        command = [sys.executable, "-m", "suffice.cli.main", "serve", "--port", "0", "--engine", "vllm", *flags]
        with self.log.open("wb") as log:
            data = environment(XDG_DATA_HOME=str(folder))
            self.process = subprocess.Popen(command, env=data, stdout=log, stderr=subprocess.STDOUT)

    def wait_until_ready(self, seconds: float = START) -> None:
        line = self.until(lambda: self.find("on http://127.0.0.1:"), seconds)
        self.port = int(line.partition("on http://127.0.0.1:")[2].split()[0])
        self.until(lambda: self.ask("/ready")[0] == 200, seconds)

    def find(self, text: str) -> str:
        return next((line for line in self.log.read_text().splitlines() if text in line), "")

    def until(self, what: Callable[[], Any], seconds: float = START) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := what()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)
        return found

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=START)
        try:
            connection.request("GET" if body is None else "POST", path, body and json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"{}")
        finally:
            connection.close()

    def chat(self, text: str, **fields: Any) -> tuple[int, Any]:
        try:
            return self.ask("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **fields})
        except (OSError, HTTPException) as error:
            return 0, error


def descendants(pid: int) -> list[int]:
    parents = {}
    for each in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(each.parent.name)] = int(each.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, ours = [], {pid}
    while more := [child for child, parent in parents.items() if parent in ours and child not in ours]:
        found += more
        ours |= set(more)
    return found


def memory(pid: int) -> int:
    """Pages that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def served(python: str, adapter: Path, tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path, "--engine-python", python, "--adapters", str(adapter))
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_a_server_on_vllm_from_start_to_end(served: Served, adapter: Path) -> None:
    tuned = f"{adapter.parent.name}-{adapter.name}"
    assert [each["id"] for each in served.ask("/v1/models")[1]["data"]] == [tuned, "suffice-tiny"]
    expected = {}
    for name, adapters in (("suffice-tiny", ()), (tuned, (adapter,))):
        with load_engine(engine="transformers", adapters=adapters) as engine:
            expected[name] = {prompt: engine.generate(prompt, max_new_tokens=40) for prompt in PROMPTS}
    for name, answers in expected.items():
        for prompt, answer in answers.items():
            status, said = served.chat(prompt, model=name, max_tokens=40, logprobs=True, top_logprobs=2)
            assert (status, said["model"]) == (200, name), said
            [choice] = said["choices"]
            assert choice["message"]["content"] == answer.text
            assert choice["finish_reason"] == answer.finish.reason
            assert said["usage"]["completion_tokens"] == answer.usage.answer_tokens
            assert len(choice["logprobs"]["content"]) > 0
    assert served.chat(PROMPTS[1], max_tokens=40)[1]["model"] == tuned, "the adapter answers where no model is named"
    assert served.chat("x", model="nobody")[0] == 404

    with ThreadPoolExecutor(32) as pool:
        many = list(pool.map(lambda i: served.chat(f"Count from {i} to {i + 4}.", max_tokens=20), range(200)))
    assert [status for status, _ in many] == [200] * 200

    # what holds the model is killed, with requests on their way
    before = descendants(served.process.pid)
    with ThreadPoolExecutor(32) as pool:
        waiting = [pool.submit(served.chat, f"Tell a story about {i}.", max_tokens=400) for i in range(64)]
        time.sleep(2)
        os.kill(max(before, key=memory), signal.SIGKILL)
        outcomes = [each.result() for each in waiting]
    assert all(status in (200, 502, 503) for status, _ in outcomes), outcomes
    for status, said in outcomes:
        assert said["choices"] if status == 200 else said["error"]["message"]
    assert served.find("it is started again in")
    served.until(lambda: served.ask("/ready")[0] == 200)
    assert served.chat("Count from 1 to 5.", max_tokens=20)[0] == 200

    left = descendants(served.process.pid)
    assert len(left) >= 3
    assert not set(left) & set(before)
    served.process.kill()
    served.process.wait()
    deadline = time.monotonic() + 5
    while any(map(alive, left)):
        assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_text() for pid in left if alive(pid)]
        time.sleep(0.1)
