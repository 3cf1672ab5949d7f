"""Records of answers as what the length model works on. The one place that knows the names of a record's fields."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from suffice.budget.expectation import LengthQuery
from suffice.budget.types import EngineInfo, RequestInfo
from suffice.errors import DataError
from suffice.immutable import immutable
from suffice.prompt import Prompt

__all__ = ["LengthSample", "Record"]

Record = Mapping[str, Any]
"""A mapping with any of `messages` or `prompt` (raw text), `tools`, `system` (where the messages do not hold it),
`model`, `client`, `route`, `response_format` and `sampling`; and for learning `output_tokens`, the answer's length, and
`finish`, which is `length` where a limit ended the answer. Other fields are ignored."""


@immutable
class LengthSample:
    query: LengthQuery
    length: object
    """As the record has it."""
    cut: bool
    """Something ended the answer, so that its own length is at least this."""

    @classmethod
    def of(cls, record: Record) -> LengthSample:
        content = record.get("messages") or record.get("prompt") or ""
        sampling, tools = record.get("sampling"), record.get("tools") or ()
        info = RequestInfo(
            client=_name(record.get("client")),
            route=_name(record.get("route")),
            response_format=record.get("response_format"),
            temperature=sampling.get("temperature") if isinstance(sampling, Mapping) else None,
            system=_name(record.get("system")),
        )
        prompt = Prompt.of(content, tools if isinstance(tools, Sequence) else [tools])
        query = LengthQuery(prompt, info, EngineInfo(model=_name(record.get("model"))))
        return cls(query, record.get("output_tokens"), record.get("finish") == "length")

    @property
    def tokens(self) -> int:
        """The answer's length.

        Raises:
            DataError: it is not a number of tokens.
        """
        tokens = self.length
        if not isinstance(tokens, int | float | np.integer) or isinstance(tokens, bool) or not 0 <= tokens < math.inf:
            raise DataError(f"output_tokens is {tokens!r}: a record to learn from needs its answer's length in tokens")
        return int(tokens)

    @property
    def has_prompt(self) -> bool:
        return bool(self.query.prompt.messages or self.query.prompt.raw)

    @property
    def has_asker(self) -> bool:
        """Whether it says who asked, where, or under which system prompt."""
        info = self.query.info
        return bool(info.client or info.route or info.system)


def _name(value: object) -> str | None:
    return None if value is None or value == "" else str(value)
