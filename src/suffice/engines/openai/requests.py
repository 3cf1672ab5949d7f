"""How requests to OpenAI-compatible servers are put, and how their refusals are read. No network here."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from suffice.engines.base import GenerationRequest, Sampling
from suffice.errors import UsageError
from suffice.json_codec import load
from suffice.prompt import Message, content_text

__all__ = [
    "Dialect",
    "addresses",
    "api_key",
    "error_message",
    "is_chat",
    "is_permanent",
    "json_object",
    "one_line",
    "retry_after",
]

_KEY_VARIABLES = ("SUFFICE_API_KEY", "OPENAI_API_KEY")
_PERMANENT = frozenset({"insufficient_quota", "billing_hard_limit_reached"})  # OpenAI's codes, sent with 429
_FOREVER = 1e9  # seconds; more than this is not a time to wait
_MAX_MESSAGE = 500  # characters of a server's error that are shown


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server understands of the parameters that not all of them know."""

    usage_in_stream: bool = True
    """`stream_options`, which older servers refuse."""
    cap: str = "max_tokens"
    """The cap's name in chat; OpenAI's reasoning models take only `max_completion_tokens`."""
    token_ids: bool = False
    """`return_token_ids`, with which vLLM sends the ids of all tokens."""
    on_runaway: bool = False
    """`on_runaway`, by which another Suffice knows what to do about loops."""

    def body(self, request: GenerationRequest, model: str | None) -> dict[str, Any]:
        """The request as JSON. What the caller left open is left open.

        A conversation that ends with the assistant is continued: vLLM and SGLang need to be told, llama.cpp does so
        by itself, and a server that cannot says so.
        """
        body: dict[str, Any] = {**request.extra, "model": request.model or model, "stream": True}
        if is_chat(request):
            messages = _messages(request)
            body |= {"messages": messages, self.cap: request.first_cap}
            if messages[-1]["role"] == "assistant":
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        else:
            body |= {"prompt": _raw_prompt(request), "max_tokens": request.first_cap}
        if request.prompt.tools:
            body["tools"] = list(request.prompt.tools)
        if request.logprobs is not None:
            asked = {"logprobs": True, "top_logprobs": request.logprobs}
            body |= asked if "messages" in body else {"logprobs": request.logprobs}
        if self.token_ids:
            body["return_token_ids"] = True
        if self.on_runaway and request.on_runaway is not None:
            body["on_runaway"] = request.on_runaway
        if self.usage_in_stream:
            body["stream_options"] = {"include_usage": True}
        given = {each.name: getattr(request.sampling, each.name) for each in Sampling.fields()}
        return body | {name: value for name, value in given.items() if value is not None}

    def without_what_is_refused(self, status: int, text: str) -> Dialect:
        """The dialect that a refusal asks for; the same one if it is about something else."""
        if status not in (400, 422):
            return self
        if self.token_ids and "return_token_ids" in text:
            return replace(self, token_ids=False)
        if self.usage_in_stream and "stream_options" in text:
            return replace(self, usage_in_stream=False)
        if self.cap == "max_tokens" and "max_completion_tokens" in text:
            return replace(self, cap="max_completion_tokens")
        return self


def is_chat(request: GenerationRequest) -> bool:
    """Whether a request goes to chat/completions: a conversation does, unless it is continued token by token."""
    return request.prompt.is_chat and not (request.prefix is not None and request.prefix.prompt_ids)


def _messages(request: GenerationRequest) -> list[Message]:
    """The conversation, with what there is of the answer at its end."""
    messages, prefix = list(request.prompt.messages), request.prefix
    if prefix is None:
        return messages
    if messages and messages[-1]["role"] == "assistant":
        return [*messages[:-1], {**messages[-1], "content": content_text(messages[-1]["content"]) + prefix.text}]
    return [*messages, {"role": "assistant", "content": prefix.text}]


def _raw_prompt(request: GenerationRequest) -> str | list[int]:
    """Text to complete; or tokens, with which nothing is tokenized a second time and perhaps otherwise."""
    prompt, prefix = request.prompt, request.prefix
    if prefix is None:
        return list(prompt.ids) or prompt.raw or ""
    return [*prefix.prompt_ids, *prefix.token_ids] if prefix.prompt_ids else (prompt.raw or "") + prefix.text


def addresses(base_url: str) -> tuple[str, str]:
    """The server's root (for /health, /tokenize) and its API (for /models, /chat/completions), from what people write.

    Raises:
        UsageError: it is not an HTTP address, or holds more than an address.
    """
    try:
        parts = urlsplit(base_url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable and not any(mark in base_url for mark in "@?#"):  # behind which secrets stand: those are not shown
        raise UsageError(f"{base_url!r} is not a server's address: give one like http://localhost:8000/v1")
    if not usable or parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(
            "the server's address must hold no user, password, query or fragment; set keys as SUFFICE_API_KEY"
        )
    path = re.sub(r"(/chat)?/completions$", "", parts.path.rstrip("/"))
    server = f"{parts.scheme}://{parts.netloc}"
    versioned = re.search(r"/v\d[^/]*(/|$)", path)  # hosted APIs also have /api/v3 or /v1beta/openai
    return server + re.sub(r"/v\d[^/]*$", "", path), server + (path if versioned else f"{path}/v1")


def api_key(given: str | None) -> str:
    """The key to send: the one given, else the environment's, else ''.

    Raises:
        UsageError: it cannot be sent in a header.
    """
    if given is None:
        given = next(filter(None, map(os.environ.get, _KEY_VARIABLES)), "")
    key = given.strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError("the API key holds characters that no header can carry: check how it was copied")
    return key


def error_message(body: str) -> str:
    """The server's own words out of the body of an error: OpenAI's shape, FastAPI's, plain text or HTML; one line."""
    try:
        found = load(body)
    except ValueError:
        found = _html_text(body) if "<html" in body.lower() else body
    while isinstance(found, dict):
        found = next((found[key] for key in ("error", "message", "detail", "msg") if found.get(key)), json.dumps(found))
    if isinstance(found, list):
        found = "; ".join(_validation_errors(found))
    return one_line(str(found)) or "no reason given"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks its clients to wait: a number or a date (RFC 9110), or milliseconds, as OpenAI adds
    them; None where it says nothing that can be read."""
    if (exact := _number(headers.get("retry-after-ms"))) is not None:
        return exact / 1000
    said = headers.get("Retry-After")
    if said is None or (seconds := _number(said)) is not None:
        return None if said is None else seconds
    try:
        when = parsedate_to_datetime(said)
    except ValueError:
        return None
    return max(0.0, when.timestamp() - time.time())


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < _FOREVER else None


def is_permanent(text: str, headers: Mapping[str, str]) -> bool:
    """Whether a refusal says that waiting does not help: by its header, or by the code in its body."""
    if headers.get("x-should-retry", "").lower() == "false":
        return True
    error = json_object(text).get("error")
    return isinstance(error, dict) and not _PERMANENT.isdisjoint((str(error.get("code")), str(error.get("type"))))


def _validation_errors(errors: list[Any]) -> Iterator[str]:
    for error in errors:
        if isinstance(error, dict) and "msg" in error:
            yield f"{'.'.join(map(str, error.get('loc', ())))}: {error['msg']}"
        else:
            yield str(error)


def _html_text(page: str) -> str:
    title = re.search(r"<title[^>]*>(.*?)</title>", page, re.IGNORECASE | re.DOTALL)
    return title[1] if title and title[1].strip() else re.sub(r"<[^>]*>", " ", page)


def one_line(text: str) -> str:
    """`text` as it may stand in an error: one printable line of bounded length."""
    line = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return line if len(line) <= _MAX_MESSAGE else line[: _MAX_MESSAGE - 1] + "…"


def json_object(text: str) -> dict[str, Any]:
    try:
        found = load(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
