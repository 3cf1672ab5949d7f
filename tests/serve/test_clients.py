"""Clients that people have already, unchanged: each is a program of its own, and they all must find the same.

LangChain and LiteLLM are looked for in the Python that SUFFICE_TEST_CLIENTS names, OpenAI's JavaScript client in the
folder that SUFFICE_TEST_NODE names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving import serving
from suffice.engines.openai.engine import RemoteEngine
from suffice.testing.fake_openai import FakeOpenAI

PROGRAMS = Path(__file__).with_name("clients")
TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
CALL = ["weather", {"said": "one two three"}, "tool_calls"]
EXPECTED: dict[str, Any] = {
    "text": "one two three",
    "usage": 3,
    "streamed": "one two three",
    "streamed_usage": 3,
    "n": ["one two three"] * 2,
    "streamed_n": ["one two three"] * 2,
    "call": CALL,
    "streamed_call": CALL,
    "answered": "it is sunny",
    "logprobs": ["one", " two", " three"],
    "error": "temperature",
}


def command(client: str) -> tuple[list[str], str | None]:
    """How a client is run, and where; skips where it is not there."""
    if client == "openai_client.py":
        return [sys.executable], None
    if client.endswith(".py"):
        python = os.environ.get("SUFFICE_TEST_CLIENTS")
        if not python:
            pytest.skip("SUFFICE_TEST_CLIENTS names no Python that has langchain-openai and litellm")
        return [python], None
    folder = os.environ.get("SUFFICE_TEST_NODE")
    if not folder or not shutil.which("node"):
        pytest.skip("node is missing, or SUFFICE_TEST_NODE names no folder that has the package openai")
    return ["node"], folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "client", ["openai_client.py", "langchain_client.py", "litellm_client.py", "openai_client.mjs"]
)
def test_clients_work_unchanged(server: FakeOpenAI, client: str) -> None:
    program, folder = command(client)
    with serving(RemoteEngine(server.url), upstreams=(server.url,)) as gateway:
        tools = json.dumps([{"type": "function", "function": TOOL}])
        run = subprocess.run(
            [*program, str(PROGRAMS / client), f"{gateway.url}/v1", "fake-model", tools],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": "", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    expected = {name: value for name, value in EXPECTED.items() if name != "streamed_n" or name in found}
    assert found == expected
