"""For the tests of your own programs: an engine that answers from a script, and a fake OpenAI server on loopback.

    import asyncio
    from suffice import Request, Session
    from suffice.testing import FakeOpenAI, Reply, ScriptedEngine

    answer = asyncio.run(Session(ScriptedEngine("Paris.")).answer(Request("The capital of France is")))
    assert answer.text == "Paris."

Neither needs pytest or a model. `FakeOpenAI` is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from suffice.testing.scripted_engine import ScriptedEngine

if TYPE_CHECKING:
    from suffice.testing.fake_openai import FakeOpenAI, Received, Reply

__all__ = ["FakeOpenAI", "Received", "Reply", "ScriptedEngine"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from suffice.testing import fake_openai  # aiohttp takes a tenth of a second

    return getattr(fake_openai, name)
