"""What all tests share: no hub, no keys, no user's settings."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from suffice.testing.fake_openai import FakeOpenAI

if TYPE_CHECKING:
    from serving import Server


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A test sees no key, no budget file and no hub, whatever the machine has."""
    ours = ("API_KEY", "BUDGET_FILE", "LENGTH_MODEL", "ENGINE_PYTHON")
    for name in ("OPENAI_API_KEY", *(f"SUFFICE_{each}" for each in ours)):
        monkeypatch.delenv(name, raising=False)
    for name in [each for each in os.environ if each.startswith(("OTEL_", "SUFFICE_SERVE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    """A fake OpenAI-compatible server on loopback, in a thread of its own, for tests of whole commands."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    fake = FakeOpenAI()
    asyncio.run_coroutine_threadsafe(fake.__aenter__(), loop).result()
    yield fake
    asyncio.run_coroutine_threadsafe(fake.__aexit__(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def gateway(server: FakeOpenAI) -> Iterator[Server]:
    """Suffice in front of the fake server."""
    from serving import serving
    from suffice.engines.openai.engine import RemoteEngine

    with serving(RemoteEngine(server.url), upstreams=(server.url,)) as gateway:
        yield gateway
