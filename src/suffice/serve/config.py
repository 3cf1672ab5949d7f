"""Every setting of the server: defaults, a TOML file over them, environment variables over that, flags on top."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from suffice.engines import MANAGED
from suffice.engines.settings import (
    ENGINE,
    ENGINE_ARGS,
    ENGINE_PYTHON,
    KV_TOKENS,
    MEMORY_UTILIZATION,
    TENSOR_PARALLEL_SIZE,
)
from suffice.errors import UsageError
from suffice.serve.logging_setup import FORMATS, LEVELS
from suffice.settings import data_folder, load_settings, setting

__all__ = ["ServeSettings", "check_exposure", "ignored_variables", "load_serve_settings", "without_password"]

_PREFIX = "SUFFICE_SERVE_"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_MODEL, _ADDRESS, _PRESSURE, _LOGS = "Model", "Address and access", "Pressure", "Logs"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSettings:
    """What the server does, in seconds, bytes and tokens. A `None` is decided at start, as its line says.

    A setting is added here and nowhere else: its flag, its variable, its key in TOML and its line in `--check` follow.
    """

    model: str | None = setting(None, _MODEL, "A folder, a hub id or a short id. [default: the bundled model]")
    """With upstreams: the model's name there."""
    adapters: tuple[str, ...] = setting((), _MODEL, "LoRA adapter folders, merged at load.")
    hub: str = setting("hf", _MODEL, "Where hub ids are fetched from.", choices=("hf", "modelscope"))
    dtype: str = setting("auto", _MODEL, "auto, bfloat16, float16 or float32.")
    device: str = setting("auto", _MODEL, "cuda, cuda:1, cpu; auto takes a GPU when there is one.")
    upstreams: tuple[str, ...] = setting(
        (),
        _MODEL,
        "An OpenAI-compatible server; several share the load. Their key is read from SUFFICE_API_KEY alone.",
        flag="upstream",
        metavar="URL",
    )
    """They serve the same model; none runs the local engine."""
    engine: str | None = setting(**ENGINE)
    engine_python: str | None = setting(**ENGINE_PYTHON)
    engine_args: str = setting(**ENGINE_ARGS)
    tensor_parallel_size: int = setting(**TENSOR_PARALLEL_SIZE)
    memory_utilization: float | None = setting(**MEMORY_UTILIZATION)
    kv_tokens: int | None = setting(**KV_TOKENS, text="Size of the KV cache. [default: what fits]")
    on_runaway: str | None = setting(
        None,
        _MODEL,
        "When an answer repeats itself: stop it, only warn, or do not look. [default: as requests say, else stop]",
        choices=("stop", "warn", "off"),
    )
    """Where it is given, requests may ask for the same or for something stricter. Keys and tiers can have their own."""
    host: str = setting("127.0.0.1", _ADDRESS, "Address to listen on.")
    port: int = setting(8000, _ADDRESS, "Port to listen on; 0 takes a free one.", minimum=0, maximum=65535)
    no_auth: bool = setting(False, _ADDRESS, "Serve without keys, on any address.")
    """Tiers that need a key still need one."""
    database: str | None = setting(
        None, _ADDRESS, "SQLite or PostgreSQL. [default: a file in the user's data folder]", metavar="URL"
    )
    length_state: str | None = setting(
        None,
        _ADDRESS,
        "Folder for what traffic teaches about lengths, or none. [default: beside the database]",
        metavar="DIR",
    )
    """`none` keeps it in memory only. Beside PostgreSQL: in the user's data folder."""
    quota_storage: str = setting("memory", _ADDRESS, "memory, database or redis://...", metavar="URL")
    """Where rate limits are counted. Replicas share those in `database` (PostgreSQL) and in Redis."""
    budget_file: str | None = setting(None, _ADDRESS, "TOML with your own tiers and keywords.", metavar="FILE")
    """Goes over the tiers, keywords and defaults of the package."""
    max_running: int | None = setting(None, _PRESSURE, "Requests that generate at once.", above=0)
    """64 on transformers, 256 on vLLM and SGLang, and 1024 on upstreams when None."""
    max_waiting: int = setting(512, _PRESSURE, "Requests that may wait.", minimum=0)
    """The next gets 429."""
    max_choices: int = setting(16, _PRESSURE, "Answers that one request may ask for.", above=0)
    """`n` times its prompts. They take one place among the running requests."""
    queue_timeout: float = setting(60.0, _PRESSURE, "Longest wait, in seconds.", above=0)
    request_timeout: float = setting(600.0, _PRESSURE, "Longest answer, in seconds.", above=0)
    """From a request's turn to its answer's end."""
    upstream_timeout: float = setting(300.0, _PRESSURE, "Longest silence of an upstream, in seconds.", above=0)
    """Before an answer's first piece, and between two."""
    drain_delay: float = setting(0.0, flag=None, minimum=0)
    """Seconds after SIGTERM in which `/ready` says 503 and requests are still taken, for balancers that ask it."""
    drain_timeout: float = setting(30.0, _PRESSURE, "Seconds that running answers get at SIGTERM.", above=0)
    max_body_bytes: int = setting(4 << 20, flag=None, above=0)
    log_level: str = setting("info", _LOGS, "Least severe messages to write.", choices=LEVELS)
    """`debug` shows those of uvicorn too."""
    log_format: str = setting("text", _LOGS, "For people, or an object on each line for collectors.", choices=FORMATS)
    access_log: bool = setting(True, flag=None)
    """One line of JSON per request on standard output; never text of prompts or answers."""
    otlp_endpoint: str | None = setting(None, flag=None)
    """URL of an OpenTelemetry collector for spans (OTLP over HTTP); OTEL_EXPORTER_OTLP_ENDPOINT when None."""
    log_prompts: bool = setting(False, flag=None)
    """Keep the texts of prompts and answers in the database. They may hold anything that people tell a model."""
    log_prompts_days: float = setting(30.0, flag=None, above=0)
    """Days after which kept texts are deleted."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in _LOOPBACK

    @property
    def running_limit(self) -> int:
        """`max_running`, decided."""
        usual = 1024 if self.upstreams else 256 if self.engine in MANAGED else 64
        return self.max_running or usual

    @property
    def database_url(self) -> str:
        """`database`, decided."""
        return self.database or f"sqlite:///{data_folder() / 'serve.db'}"

    @property
    def length_folder(self) -> Path | None:
        """`length_state`, decided; None keeps nothing."""
        if self.length_state is not None:
            return None if self.length_state == "none" else Path(self.length_state).expanduser()
        kind, _, file = self.database_url.partition("?")[0].partition(":///")
        beside = kind.startswith("sqlite") and file not in ("", ":memory:")
        database = Path(file.removeprefix("file:")).expanduser() if beside else data_folder() / "serve"
        return database.with_name(f"{database.stem}-length")

    def check(self) -> None:
        """Refuse (`UsageError`) values that make no sense, or not together."""
        if self.otlp_endpoint is not None and not self.otlp_endpoint.startswith(("http://", "https://")):
            raise UsageError(f"otlp_endpoint is {self.otlp_endpoint!r}: give a URL such as http://127.0.0.1:4318")
        if self.upstreams and self.adapters:
            raise UsageError("adapters cannot be loaded into a remote server: give them there, or leave out --upstream")


def load_serve_settings(
    path: str | None = None, flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] = os.environ
) -> ServeSettings:
    """The settings from a TOML file, the environment (SUFFICE_SERVE_PORT=9000) and flags, as `suffice.settings` says.

    Raises:
        UsageError: a file that cannot be read, an unknown key, or a value of the wrong type or out of range.
    """
    return settings_and_origins(path, flags, environment)[0]


def settings_and_origins(
    path: str | None, flags: Mapping[str, Any] | None, environment: Mapping[str, str] = os.environ
) -> tuple[ServeSettings, dict[str, str]]:
    """As `load_serve_settings`, and for each field that was given: the file, the variable or the flag that counts."""
    settings, origins = load_settings(ServeSettings, path=path, prefix=_PREFIX, environment=environment, flags=flags)
    settings.check()
    return settings, origins


def ignored_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A line for each variable that looks like a setting and is not one: mistyped, or of another program.

    That is not an error, because Kubernetes sets such variables for a service named suffice-serve.
    """
    known = {_PREFIX + each.name.upper() for each in fields(ServeSettings)}
    said = []
    for name in sorted(name for name in environment if name.startswith(_PREFIX) and name not in known):
        alike = difflib.get_close_matches(name, known, n=1)
        said.append(f"{name} is not a setting and does nothing" + "".join(f": did you mean {each}?" for each in alike))
    return said


def check_exposure(settings: ServeSettings, *, has_keys: bool) -> str | None:
    """Who will be able to reach the server, in a line for the operator; None when keys guard it.

    Raises:
        UsageError: other machines could reach it, and there is neither a key nor --no-auth.
    """
    if settings.no_auth:
        return "--no-auth: every client that reaches this address is served, without a key"
    if has_keys:
        return None
    if settings.loopback:
        return f"no key is configured, so only this machine is served ({settings.host}); make one: suffice keys create"
    raise UsageError(
        f"on the address {settings.host} every client would be served, and no key is configured: make one with "
        "`suffice keys create NAME`, or say --no-auth if you mean it"
    )


def without_password(url: str) -> str:
    """A URL, or a sentence with one, that can be shown."""
    # also in a mistyped URL: `user:password@host`, `scheme:/user:password@host`
    shown = re.sub(r"""(?<![^\s/"'])([^:/@\s]*):(?!//)\S*(?=@)""", r"\1:***", url)
    return re.sub(r"(?i)([?&][^=&\s]*(?:pass|pwd|secret|token|key|auth|cred|sig)[^=&\s]*=)[^&#\s]*", r"\1***", shown)
