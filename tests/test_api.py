"""Suffice from plain Python."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

import suffice
from suffice import LoadedEngine, generate, load_engine
from suffice.engines.base import Finish, Usage
from suffice.errors import EngineError, PromptTooLongError, UsageError
from suffice.testing.fake_openai import FakeOpenAI, Reply


@pytest.fixture
def engine(server: FakeOpenAI) -> Iterator[LoadedEngine]:
    loaded = load_engine(upstream=server.url)
    yield loaded
    loaded.close()


def test_generate_returns_the_answer_with_its_budget(engine: LoadedEngine) -> None:
    answer = generate("one two three four", engine=engine, max_new_tokens=3, stop_words=("three",))
    assert (answer.text, answer.finish) == ("one two ", Finish("stop", "stop_word", "three"))
    assert answer.budget.max_new_tokens == 3
    assert answer.budget.limited_by == "caller"


def test_stream_gives_the_text_and_events_give_the_rest(engine: LoadedEngine, server: FakeOpenAI) -> None:
    assert "".join(engine.stream("a b c", temperature=0)) == "a b c"
    assert server.generations[-1].body["temperature"] == 0
    *_, usage, finish = engine.events([{"role": "user", "content": "a b c"}], max_new_tokens=2)
    assert (usage, finish) == (Usage(3, 2), Finish("length", "caller", "2 tokens"))


def test_leaving_the_stream_cancels_the_answer(engine: LoadedEngine, server: FakeOpenAI) -> None:
    server.script(Reply(pieces=("x ",) * 1000, piece_delay=0.005))
    for _ in engine.stream("go"):
        break
    for _ in range(200):
        if server.abandoned.is_set():
            break
        time.sleep(0.02)
    assert server.abandoned.is_set()


def test_errors_come_out_in_the_thread_that_asked(engine: LoadedEngine) -> None:
    with pytest.raises(UsageError, match="medium"):
        engine.generate("x", tier="medium")
    with pytest.raises(PromptTooLongError):
        engine.generate("x", max_length=1)
    with pytest.raises(UsageError):
        next(engine.events("x", max_new_tokens=-1))
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:9"):
        load_engine(upstream="http://127.0.0.1:9")


def test_importing_the_package_loads_nothing_but_the_finder_of_old_paths() -> None:
    code = "import sys, suffice; print([m for m in sys.modules if m.startswith('suffice.')])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert loaded == "['suffice.deprecated']\n"


def test_every_module_imports_and_exports_what_it_says() -> None:
    missing: list[str] = []
    for module in pkgutil.walk_packages(suffice.__path__, "suffice."):
        if module.name.endswith("__main__"):
            continue
        try:
            loaded = importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("suffice"):
                raise
            missing.append(f"{module.name} needs {error.name}")
            continue
        names = getattr(loaded, "__all__", [])
        assert all(hasattr(loaded, name) for name in names), module.name
    assert all(getattr(suffice, name) is not None for name in suffice.__all__)
    if missing:
        pytest.skip("; ".join(missing))
