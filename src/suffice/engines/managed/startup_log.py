"""Reads a server's log: how far a start has come, how large the cache is, and why it failed. Knows no process."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable

__all__ = ["StartupLog"]

_KEPT_LINES = 400
_SHOWN_LINES = 12  # of the end, in an error
_TELL_EVERY = 5.0  # seconds between two percentages that are told
_WIDEST = 240  # characters of a line that are shown

_STAGES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), words)
    for pattern, words in (
        (r"Initializing a V1 LLM engine|Initializing an LLM engine|server_args=", "the model's configuration is read"),
        (r"(?:Downloading|Fetching)\D*(\d+)%", "downloading, {} %"),
        (r"Loading safetensors checkpoint shards:\s*(\d+)%", "loading weights, {} %"),
        (r"Starting to load model|Load weight begin", "loading weights"),
        (r"Loading weights took ([\d.]+) s", "weights loaded in {} s"),
        (r"Load weight end\..*?elapsed=([\d.]+) s", "weights loaded in {} s"),
        (r"Model loading took ([\d.]+ ?GiB)", "weights take {}"),
        (r"(?:Dynamo bytecode transform|Start compiling|Compiling a graph)", "compiling"),
        (r"KV cache size: (\d[\d,]*\d) tokens", "KV cache of {} tokens"),
        (r"KV Cache is allocated.*?#tokens: (\d[\d,]*\d)", "KV cache of {} tokens"),
        (r"Captur(?:ing|e) (?:CUDA|cuda|cudagraph)\D*?(\d+)%", "capturing CUDA graphs, {} %"),
        (r"Capture (?:cuda )?graph begin", "capturing CUDA graphs"),
        (r"Graph capturing finished in (\d+) s", "CUDA graphs captured in {} s"),
        (r"Capture (?:cuda )?graph end", "CUDA graphs captured"),
    )
)
"""What lines of vLLM (0.10 to 0.32) and SGLang (0.5) say of the start, in a person's words."""

_KV_TOKENS = re.compile(r"(?:KV cache size: |KV Cache is allocated.*?#tokens: )(\d[\d,]*\d)")
_NO_MEMORY = re.compile(
    r"out of memory|OutOfMemory|No available memory for the cache|Free memory on device|is less than desired"
    r"|larger than the (?:available KV cache memory|maximum number of tokens)|Not enough memory|Cannot allocate memory",
    re.IGNORECASE,
)
_LONGEST = re.compile(r"estimated maximum model length is (\d+)|KV cache \((\d+)\)")
_PORT_TAKEN = re.compile(r"address already in use|Errno 98|Port \d+ is already|EADDRINUSE", re.IGNORECASE)
_PREFIX = re.compile(r"^(?:\([^)]*pid=\d+\)\s*)?(?:(?:INFO|WARNING|ERROR)\s+[\d-]+ [\d:.]+ (?:\[[^\]]*\])?\s*)?")
_ERROR = re.compile(r"(?:[\w.]*(?:Error|Exception|Interrupt)\b|error):? \S")
_ABOUT_OTHERS = ("See root cause above", "Engine core initialization failed", "Failed core proc")
"""Parts of errors that only say that there was another error."""


class StartupLog:
    """The end of a server's log, line by line.

    Args:
        tell: gets each step of the start, in words, when it is first reached.
    """

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.count = 0
        """Lines so far: while it grows, something happens."""
        self.kv_tokens: int | None = None
        self.no_memory = self.port_taken = False
        self.longest_context: int | None = None
        """What the server says would fit, where it refuses the model's context."""
        self._tell, self._told, self._told_at = tell, "", 0.0

    def add(self, line: str) -> None:
        """Take the next line."""
        self.count += 1
        if not line.strip():
            return
        self.lines.append(line)
        if found := _KV_TOKENS.search(line):
            self.kv_tokens = int(found[1].replace(",", ""))
        if found := _LONGEST.search(line):
            self.longest_context = int(found[1] or found[2])
        self.no_memory = self.no_memory or _NO_MEMORY.search(line) is not None
        self.port_taken = self.port_taken or _PORT_TAKEN.search(line) is not None
        step = _step(line)
        soon = step.endswith("%") and time.monotonic() - self._told_at < _TELL_EVERY
        if step and step != self._told and not soon and self._tell is not None:
            self._told, self._told_at = step, time.monotonic()
            self._tell(step)

    def cause(self) -> str:
        """The line that says best why the server failed; '' where none does."""
        errors = [_bare(line) for line in self.lines if _ERROR.search(_bare(line))]
        telling = [line for line in errors if not any(words in line for words in _ABOUT_OTHERS)]
        memory = [line for line in telling if _NO_MEMORY.search(line)]
        return (memory or telling or errors or [""])[-1]

    def end(self) -> str:
        """The last lines, indented, for an error."""
        return "\n".join(f"  | {_bare(line)}" for line in [*self.lines][-_SHOWN_LINES:])


def _step(line: str) -> str:
    for pattern, words in _STAGES:
        if found := pattern.search(line):
            return words.format(*found.groups())
    return ""


def _bare(line: str) -> str:
    """A line without the process, the time and the place that loggers put before it, and fit for a terminal."""
    text = _PREFIX.sub("", line.strip())
    text = "".join(each if each.isprintable() else " " for each in text)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
