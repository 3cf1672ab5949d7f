"""Every setting of the server: its default, one TOML file over it, environment variables over that, flags on top."""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from suffice.errors import UsageError

__all__ = [
    "ENVIRONMENT_PREFIX",
    "ServeSettings",
    "check_exposure",
    "default_database",
    "ignored_variables",
    "load_serve_settings",
    "without_password",
]

ENVIRONMENT_PREFIX = "SUFFICE_SERVE_"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def data_folder() -> Path:
    """The user's data folder for Suffice, as XDG_DATA_HOME says."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "suffice"


def default_database() -> str:
    """A SQLite file in the user's data folder."""
    return f"sqlite:///{data_folder() / 'serve.db'}"


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What the server does. Seconds, bytes, tokens; a `None` is decided at start, as its line says."""

    host: str = "127.0.0.1"
    port: int = 8000
    model: str | None = None
    """Folder, hub id or short id; the bundled model when None. With upstreams: the model's name there."""
    adapters: tuple[str, ...] = ()
    hub: str = "hf"
    dtype: str = "auto"
    device: str = "auto"
    upstreams: tuple[str, ...] = ()
    """URLs of OpenAI-compatible servers that serve the same model; none runs the local engine."""
    budget_file: str | None = None
    """TOML with tiers, keywords and defaults, over those of the package."""
    database: str | None = None
    """URL of SQLite or PostgreSQL; a file in the user's data folder when None."""
    length_state: str | None = None
    """Folder where what traffic has taught the length model is kept; beside the SQLite database, else in the user's
    data folder, when None. `none` keeps it in memory only."""
    quota_storage: str = "memory"
    """Where rate limits are counted: `memory`; or, shared by replicas, `database` (PostgreSQL) or a redis:// URL."""
    no_auth: bool = False
    """Serve callers without a key, on any address; tiers that need a key still need one."""
    max_running: int | None = None
    """Requests that generate at once; 64 on the local engine, 1024 on upstreams when None."""
    max_choices: int = 16
    """Answers that one request may ask for, `n` times its prompts. They take one place among the running requests."""
    max_waiting: int = 512
    """Requests that may wait for their turn; the next gets 429."""
    queue_timeout: float = 60.0
    """Longest wait for a turn, in seconds."""
    request_timeout: float = 600.0
    """Longest time from a request's turn to its answer's end, in seconds."""
    upstream_timeout: float = 300.0
    """Longest silence of an upstream, before an answer's first piece and between two, in seconds."""
    drain_delay: float = 0.0
    """Seconds after SIGTERM in which `/ready` says 503 and requests are still taken, for balancers that ask it."""
    drain_timeout: float = 30.0
    """Seconds that running answers then get to end in."""
    max_body_bytes: int = 4 << 20
    log_prompts: bool = False
    """Keep the texts of prompts and answers in the database. They may hold anything that people tell a model."""
    log_prompts_days: float = 30.0
    """Days after which kept texts are deleted."""
    otlp_endpoint: str | None = None
    """URL of an OpenTelemetry collector for spans (OTLP over HTTP); OTEL_EXPORTER_OTLP_ENDPOINT when None."""
    access_log: bool = True
    """One line of JSON per request on standard output; never text of prompts or answers."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in _LOOPBACK

    @property
    def running_limit(self) -> int:
        """`max_running`, decided."""
        return self.max_running or (1024 if self.upstreams else 64)

    @property
    def database_url(self) -> str:
        """`database`, decided."""
        return self.database or default_database()

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
        """Refuse numbers that make no sense.

        Raises:
            UsageError: with the setting's name and value.
        """
        timeouts = ("queue_timeout", "request_timeout", "upstream_timeout", "drain_timeout")
        for name in ("max_running", "max_choices", "max_body_bytes", "log_prompts_days", *timeouts):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} is {value}: it must be a number above 0")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"port is {self.port}: it must be from 0 to 65535")
        for name in ("max_waiting", "drain_delay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be 0 or more")
        if self.otlp_endpoint is not None and not self.otlp_endpoint.startswith(("http://", "https://")):
            raise UsageError(f"otlp_endpoint is {self.otlp_endpoint!r}: give a URL such as http://127.0.0.1:4318")
        if self.upstreams and self.adapters:
            raise UsageError("adapters cannot be loaded into a remote server: give them there, or leave out --upstream")


def load_serve_settings(
    path: str | None = None, flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] = os.environ
) -> ServeSettings:
    """The settings from a file, the environment and flags.

    Args:
        path: a TOML file with the fields of `ServeSettings`; none when None.
        flags: fields by name; `None` and `()` mean "not given".
        environment: SUFFICE_SERVE_PORT=9000 and so on; several values are separated by commas.

    Raises:
        UsageError: a file that cannot be read, an unknown key, or a value of the wrong type.
    """
    return settings_and_origins(path, flags, environment)[0]


def settings_and_origins(
    path: str | None, flags: Mapping[str, Any] | None, environment: Mapping[str, str] = os.environ
) -> tuple[ServeSettings, dict[str, str]]:
    """As `load_serve_settings`, and for each field that was given: the file, the variable or the flag that counts."""
    values = _read(path) if path else {}
    kinds = get_type_hints(ServeSettings)
    names = [each.name for each in fields(ServeSettings)]
    if unknown := sorted(set(values) - set(names)):
        raise UsageError(f"{path}: unknown key {', '.join(unknown)}; known: {', '.join(names)}")
    checked = {name: _typed(f"{path}: {name}", kinds[name], value) for name, value in values.items()}
    origins = {name: str(path) for name in values}
    for name in names:
        variable = ENVIRONMENT_PREFIX + name.upper()
        if variable in environment:
            checked[name] = _parsed(variable, kinds[name], environment[variable])
            origins[name] = variable
    given = {name: value for name, value in (flags or {}).items() if value not in (None, ())}
    settings = replace(ServeSettings(), **checked | given)
    settings.check()
    return settings, origins | {name: _flag(name) for name in given}


def ignored_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A line for each variable that looks like a setting and is none: mistyped, or of another program.

    It is no error, because Kubernetes sets such ones for a service of the name suffice-serve.
    """
    known = {ENVIRONMENT_PREFIX + each.name.upper() for each in fields(ServeSettings)}
    strangers = sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known)
    alike = {name: difflib.get_close_matches(name, known, n=1) for name in strangers}
    return [
        f"{name} is no setting and does nothing" + "".join(f": did you mean {each}?" for each in alike[name])
        for name in strangers
    ]


def _flag(name: str) -> str:
    return "--upstream" if name == "upstreams" else "--" + name.replace("_", "-")


def check_exposure(settings: ServeSettings, *, has_keys: bool) -> str | None:
    """Who will be able to reach the server, in a line for the operator; None when keys guard it.

    Raises:
        UsageError: others could reach it, and there is no key and no --no-auth.
    """
    if settings.no_auth:
        return "--no-auth: whoever reaches this address is served, without a key"
    if has_keys:
        return None
    if settings.loopback:
        return f"no key is configured, so only this machine is served ({settings.host}); make one: suffice keys create"
    raise UsageError(
        f"on the address {settings.host} everybody would be served, and no key is configured: make one with `suffice "
        "keys create NAME`, or say --no-auth if you mean it"
    )


def without_password(url: str) -> str:
    """A URL, or a sentence with one, that can be shown."""
    # also in what is no URL because somebody mistyped it: `user:password@host`, `scheme:/user:password@host`
    shown = re.sub(r"""(?<![^\s/"'])([^:/@\s]*):(?!//)\S*(?=@)""", r"\1:***", url)
    return re.sub(r"(?i)([?&][^=&\s]*(?:pass|pwd|secret|token|key|auth|cred|sig)[^=&\s]*=)[^&#\s]*", r"\1***", shown)


def _read(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the settings file {path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the settings file {path} is not valid TOML: {error}") from None


def _single(kind: Any) -> Any:
    """`int` of `int | None`."""
    return next(each for each in get_args(kind) if each is not type(None)) if isinstance(kind, UnionType) else kind


def _typed(where: str, kind: Any, value: Any) -> Any:
    kind = _single(kind)
    if kind not in (str, int, float, bool):
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return tuple(value)
        raise UsageError(f"{where} must be a list of texts, not {value!r}")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{where} must be {kind.__name__}, not {value!r}")
    return value


def _parsed(where: str, kind: Any, text: str) -> Any:
    kind = _single(kind)
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise UsageError(f"{where} must be true or false, not {text!r}")
        return text.lower() in ("true", "1")
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise UsageError(f"{where} must be a number, not {text!r}") from None
    return text if kind is str else tuple(each.strip() for each in text.split(",") if each.strip())
