"""OpenAI's batch files: a row's `body` as a request, and its answer as the line of an output file.

Bodies are read, and completions written, by the code of the server, so that a field means the same in both.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from suffice.batch import Row, place_of
from suffice.budget.types import Tier
from suffice.data import Conversation, UnusableRow
from suffice.data.rows import field_asked
from suffice.data.types import BATCH_FORMAT
from suffice.engines.base import Engine, Sampling
from suffice.errors import EngineError, SufficeError, UsageError
from suffice.serve.api.request_reader import read_chat, read_completion
from suffice.serve.api.responses import ChatFormat, CompletionFormat
from suffice.serve.http.errors import problem_of
from suffice.serve.request.api_request import ApiRequest, RequestOrigin
from suffice.serve.request.choices import Choice, Choices
from suffice.session import Answer, Request, Text, Thinking, ToolCallPiece

if TYPE_CHECKING:
    from suffice.cli.infer.options import InferOptions

__all__ = ["BatchFileLines", "BatchFileRequests"]

"""What `suffice.data` calls rows with a request of OpenAI's API."""
_SYSTEM = ("system", "developer")
_CAPS = ("max_tokens", "max_completion_tokens", "max_new_tokens")


class BatchFileRequests:
    """Makes the request of a row; the flags count for what its body leaves open.

    `notes` counts what is to be told of rows, such as that they ask for another model.
    """

    def __init__(self, options: InferOptions, engine: Engine) -> None:
        self.notes: Counter[str] = Counter()
        self._ids: set[int] = set()  # hashes: a file may have millions of rows
        self._options, self._engine = options, engine

    def __call__(self, row: Conversation) -> Request:
        """
        Raises:
            Problem: a field of the body cannot be honoured.
            UsageError: the body asks for more than one answer.
        """
        body, is_chat = self._with_flags(row.row["body"]), is_chat_row(row)
        origin = cast(RequestOrigin, {"id": uuid.uuid4().hex})
        read = read_chat if is_chat else read_completion
        asked = read(body, origin, forwards=self._engine.capabilities().forwards_unknown_fields)
        if asked.n > 1:
            raise UsageError(f"n is {asked.n}: a row has one answer here; write the row {asked.n} times")
        self._note(asked, row.row.get("custom_id"))
        options = self._options
        return replace(
            asked.request,
            tier=asked.tier,
            reservation=options.reservation,
            on_runaway=asked.on_runaway or options.on_runaway,
            max_thinking_tokens=options.max_thinking_tokens,
        )

    def _with_flags(self, body: Mapping[str, Any]) -> dict[str, Any]:
        options = self._options
        flags: dict[str, Any] = {each.name: getattr(options.sampling, each.name) for each in Sampling.fields()}
        flags |= {"max_length": options.max_length, "tier": options.tier, "stop": list(options.stop_words) or None}
        flags |= {"keep_stop_words": options.keep_stop_words or None}
        if not any(body.get(name) is not None for name in _CAPS):
            flags["max_new_tokens"] = options.max_new_tokens
        given = {name: value for name, value in body.items() if value is not None}
        return {name: value for name, value in flags.items() if value is not None} | given | self._system(given)

    def _system(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The messages behind the system prompt of the flags, where they have none of their own."""
        messages = body.get("messages")
        if not self._options.system or (messages and any(each.get("role") in _SYSTEM for each in messages)):
            return {}
        if messages is None:
            self.notes["--system is not used: text to complete has no system prompt"] += 1
            return {}
        return {"messages": [{"role": "system", "content": self._options.system}, *messages]}

    def _note(self, asked: ApiRequest, custom_id: Any) -> None:
        number = hash(str(custom_id))
        if number in self._ids:
            self.notes["custom_id is there more than once"] += 1
        self._ids.add(number)
        if asked.model not in (None, self._engine.model_name):
            self.notes[f"model {asked.model!r} is asked for, and {self._engine.model_name} answers"] += 1
        self.notes.update(f"{name} is ignored" for name in asked.ignored)


class BatchFileLines:
    """Lines as `{"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error"}`, and a `suffice` with
    the row's place. A row that is no request has its column `id`, or its place, as `custom_id`."""

    def __init__(self, model: str, more: Callable[[Conversation, Answer], Mapping[str, Any]]) -> None:
        self._model, self._more = model, more

    def answer(self, row: Conversation, request: Request, answer: Answer) -> dict[str, Any]:
        if answer.finish.reason == "error":
            return self._failed(
                row, EngineError(answer.finish.what), {"text": answer.text, "thinking": answer.thinking}
            )
        return self._line(row, 200, self._completion(row, request, answer), None, self._more(row, answer))

    def failure(self, row: Row, error: SufficeError) -> dict[str, Any]:
        return self._failed(row, error, {})

    def _failed(self, row: Row, error: SufficeError, more: Mapping[str, Any]) -> dict[str, Any]:
        problem = problem_of(error)
        body = json.loads(problem.body)
        told = {"code": problem.code or body["error"]["type"], "message": str(problem)}
        return self._line(row, problem.status, body, told, more)

    def _line(
        self, row: Row, status: int, body: Any, error: dict[str, str] | None, more: Mapping[str, Any]
    ) -> dict[str, Any]:
        number = uuid.uuid4().hex
        return {
            "id": f"batch_req_{number}",
            "custom_id": _custom_id(row),
            "response": {"status_code": status, "request_id": f"req_{number}", "body": body},
            "error": error,
            "suffice": {**place_of(row), **more},
        }

    def _completion(self, row: Conversation, request: Request, answer: Answer) -> dict[str, Any]:
        """The answer as the server would have sent it."""
        shape = ChatFormat() if is_chat_row(row) else CompletionFormat()
        tier = Tier(request.tier or "", answer.budget.max_new_tokens)
        choices = Choices.of(shape.prefix + request.id, ApiRequest((request,)), self._model, tier, (answer.budget,))
        _replay(answer, choices, choices.answers[0])
        return shape.whole(choices)


def is_chat_row(row: Conversation) -> bool:
    """Whether a row asks for a chat completion, and not for raw text to be continued."""
    if row.format != BATCH_FORMAT:
        return True
    return field_asked(row.row, row.row["body"]) == "messages"


def _replay(answer: Answer, choices: Choices, choice: Choice) -> None:
    """Give `choice` the events that the answer was made of, each kind in one piece."""
    if answer.thinking:
        choices.add(choice, Thinking(answer.thinking))
    choices.add(choice, Text(answer.text, answer.logprobs))
    for index, call in enumerate(answer.tool_calls):
        choices.add(choice, ToolCallPiece({"index": index, **call}))
    if answer.repetition is not None:
        choices.add(choice, answer.repetition)
    if answer.notice is not None:
        choices.add(choice, answer.notice)
    choices.add(choice, answer.usage)
    choices.add(choice, answer.finish)


def _custom_id(row: Row) -> Any:
    given = (row.row or {}) if isinstance(row, UnusableRow) else row.row
    found = next((given[name] for name in ("custom_id", "id") if given.get(name) not in (None, "")), None)
    return f"{row.unit}-{row.line}" if found is None else found
