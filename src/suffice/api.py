"""Suffice from plain Python, without a server and without writing `async`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import replace
from functools import cache
from queue import SimpleQueue
from typing import Any, Literal, TypeVar

from suffice.budget import Budgeter
from suffice.engines import Engine, Message, Sampling, open_engine
from suffice.prompt import Prompt
from suffice.session import Answer, Event, Request, Session, Text

__all__ = ["LoadedEngine", "generate", "load_engine"]

_END_SECONDS = 15.0  # for what runs when an engine is closed
_Result = TypeVar("_Result")


class LoadedEngine:
    """An engine that is ready, with an event loop of its own in a background thread. May be used from any thread.

    Use it as a context manager, or call `close` when it is no longer needed.
    """

    def __init__(self, engine: Engine, budgeter: Budgeter | None = None) -> None:
        self._engine = engine
        self._session = Session(engine, budgeter)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="suffice-engine", daemon=True)
        self._thread.start()
        try:
            self._run(engine.__aenter__())
        except BaseException:
            self._stop()
            raise

    def generate(self, prompt: Prompt | str | Sequence[Message], **wishes: Any) -> Answer:
        """One answer, whole.

        Args:
            prompt: the user's message, a conversation, or a `suffice.prompt.Prompt`.
            wishes: fields of `suffice.Request` (`max_new_tokens`, `max_length`, `tier`, `stop_words`, ...) and of
                `Sampling` (`temperature`, `top_p`, `top_k`, `repetition_penalty`, `seed`).

        Raises:
            PromptTooLongError: the prompt leaves no room for an answer.
            UsageError: a field is wrong.
        """
        return self._run(self._session.answer(_request(prompt, wishes)))

    def stream(self, prompt: Prompt | str | Sequence[Message], **wishes: Any) -> Iterator[str]:
        """The text of one answer, piece by piece; arguments as in `generate`. Leaving the loop cancels the answer."""
        for event in self.events(prompt, **wishes):
            if isinstance(event, Text):
                yield event.text

    def events(self, prompt: Prompt | str | Sequence[Message], **wishes: Any) -> Iterator[Event]:
        """The same with the budget, the usage and the finish."""
        queue: SimpleQueue[Event | BaseException | None] = SimpleQueue()
        task = asyncio.run_coroutine_threadsafe(self._feed(_request(prompt, wishes), queue), self._loop)
        try:
            while (item := queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            task.cancel()

    def close(self) -> None:
        """Release the model or the connections."""
        if self._loop.is_closed():
            return
        self._run(self._engine.__aexit__(None, None, None))
        self._stop()

    def __enter__(self) -> LoadedEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def _feed(self, request: Request, queue: SimpleQueue[Event | BaseException | None]) -> None:
        try:
            async with aclosing(self._session.stream(request)) as events:
                async for event in events:
                    queue.put(event)
        except Exception as error:  # handed to the thread that waits, which raises it
            queue.put(error)
        finally:
            queue.put(None)

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        future: Future[_Result] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C in the waiting thread must not leave the work running
            raise

    def _stop(self) -> None:
        asyncio.run_coroutine_threadsafe(_end_tasks(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _end_tasks() -> None:
    """Let what is still running end: it may hold a process."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for each in tasks:
        each.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_END_SECONDS)


def load_engine(model: str | None = None, *, upstream: str | None = None, **settings: Any) -> LoadedEngine:
    """Load a model, or connect to a server.

    Args:
        model: a folder, a hub id or a short id; the bundled model when None.
        upstream: URL of an OpenAI-compatible server to use instead of loading anything.
        settings: `engine` (`auto`, `transformers`, `vllm`, `sglang` ...), and what the engine takes (`adapters`,
            `dtype`, `device`, `hub` ...). Adapters' length profiles take part in *auto* budgets.

    Raises:
        ModelError: the model cannot be found or loaded.
        DataError: an adapter's length profile is damaged.
        EngineError: the server cannot be reached.
    """
    engine = open_engine(model, upstream=upstream, **settings)
    return LoadedEngine(engine, Budgeter.load().with_profiles(settings.get("adapters", ())))


def generate(
    prompt: Prompt | str | Sequence[Message],
    *,
    engine: LoadedEngine | None = None,
    max_new_tokens: int | Literal["auto"] = "auto",
    **wishes: Any,
) -> Answer:
    """One answer at the length it needs, from `engine` or from the bundled model, which is loaded once and kept.

    Other arguments and errors: as `LoadedEngine.generate`.
    """
    return (engine or _bundled()).generate(prompt, max_new_tokens=max_new_tokens, **wishes)


@cache
def _bundled() -> LoadedEngine:
    return load_engine()


def _request(given: Prompt | str | Sequence[Message], wishes: dict[str, Any]) -> Request:
    prompt = Prompt(({"role": "user", "content": given},)) if isinstance(given, str) else Prompt.of(given)
    if tools := wishes.pop("tools", ()):
        prompt = replace(prompt, tools=tuple(tools))
    sampling = {each.name: wishes.pop(each.name) for each in Sampling.fields() if each.name in wishes}
    return Request(prompt, sampling=Sampling(**sampling), **wishes)
