"""Requests that nobody would think of, made from our own OpenAPI document (SUFFICE_TEST_SCHEMATHESIS=its executable).

No 5xx, no hang, no status or content type that the document does not tell of, nothing taken that it forbids and nothing
refused that it allows; in all phases of schemathesis, always the same requests.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving import Server, serving
from suffice.engines import open_engine
from suffice.serve.auth.api_keys import hash_key, make_key
from suffice.serve.request_log.store import Store
from suffice.testing.fake_openai import FakeOpenAI
from suffice.testing.fake_openai import Reply as Scripted

SCHEMATHESIS = os.environ.get("SUFFICE_TEST_SCHEMATHESIS", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not SCHEMATHESIS, reason="SUFFICE_TEST_SCHEMATHESIS is not set"),
]

DEPENDS = (
    *("max_length", "strict", "n", "top_logprobs", "response_format"),
    *("tools", "tool_choice", "parallel_tool_calls", "tool_calls", "tool_call_id"),
)
"""Fields that are refused, or passed on as they are, for what the prompt, other fields, settings or the model is, which
no schema can say: the document for the fuzzer lacks them."""


def fuzz(server: Server, folder: Path, *flags: str, examples: int = 25) -> None:
    """Run schemathesis, and show its report if it finds anything."""
    document = server.ask("GET", "/openapi.json").json
    for schema in document["components"]["schemas"].values():
        for name in DEPENDS:
            schema.get("properties", {}).pop(name, None)
    prompt = document["components"]["schemas"]["Completion"]["properties"]["prompt"]
    prompt["anyOf"] = [each for each in prompt["anyOf"] if each.get("type") == "string"]  # ids end with the vocabulary
    (folder / "openapi.json").write_text(json.dumps(document))
    command: Sequence[str] = (
        *(SCHEMATHESIS, "run", "openapi.json", "--url", server.url, "--phases", "examples,coverage,fuzzing,stateful"),
        *(
            "--max-examples",
            str(examples),
            "--seed",
            "1",
            "--generation-deterministic",
        ),
        *("--request-timeout", "30", "--continue-on-failure", "--no-color", "--workers", "1", "--warnings", "off"),
        *flags,
    )
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert not server.service.requests
    assert not server.service.admission.running
    assert server.ask("GET", "/health").status == 200


@contextmanager
def with_key(folder: Path, engine: Any, **settings: Any) -> Iterator[tuple[Server, str]]:
    """A server, and a key that may use every tier and has limits."""
    url = f"sqlite:///{folder}/serve.db"
    store, (key_id, text) = Store(url), make_key()
    limits = {"requests_per_minute": 10**6, "tokens_per_minute": 10**8, "tokens_per_day": 10**9}
    permits = {"tiers": ["short", "standard", "long", "unlimited"], "models": [], "expires": None, "revoked": None}
    store.add_key({"id": key_id, "name": "fuzz", "hash": hash_key(text), "created": 0.0, **permits, **limits})
    store.close()
    with serving(engine, database=url, **settings) as server:
        server.headers["Authorization"] = f"Bearer {text}"
        yield server, f"Authorization: Bearer {text}"


def test_fuzzing_in_front_of_a_server_with_a_key(server: FakeOpenAI, tmp_path: Path) -> None:
    server.script(Scripted())
    with with_key(tmp_path, open_engine(upstream=server.url), upstreams=(server.url,)) as (ours, bearer):
        fuzz(ours, tmp_path, "-H", bearer)


def test_fuzzing_without_a_key(server: FakeOpenAI, tmp_path: Path) -> None:
    server.script(Scripted())
    with serving(open_engine(upstream=server.url), upstreams=(server.url,)) as ours:
        fuzz(ours, tmp_path)


def test_fuzzing_a_server_that_wants_a_key_and_gets_none(server: FakeOpenAI, tmp_path: Path) -> None:
    server.script(Scripted())
    with with_key(tmp_path, open_engine(upstream=server.url), upstreams=(server.url,)) as (ours, _):
        fuzz(ours, tmp_path, examples=10)


def test_fuzzing_the_local_engine(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    tiers = (f"[tiers.{name}]\nmax_new_tokens = 8\n" for name in ("short", "standard", "long", "unlimited"))
    (tmp_path / "budget.toml").write_text("".join(tiers))
    with with_key(tmp_path, open_engine(), budget_file=str(tmp_path / "budget.toml")) as (ours, bearer):
        fuzz(ours, tmp_path, "-H", bearer, examples=5)
