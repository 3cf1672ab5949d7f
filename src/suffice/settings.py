"""Settings as dataclass fields: each is declared once, with type, default, range, choices, help and flag, and is read
from a TOML file, from environment variables and from flags. Knows no setting, and nothing of click.

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        port: int = setting(8000, "Address", "Port to listen on.", minimum=0, maximum=65535)
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import Field, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from suffice.errors import UsageError
from suffice.numerals import COUNT_EXAMPLES, token_count

__all__ = [
    "check_values",
    "data_folder",
    "flag_of",
    "kinds_of",
    "load_settings",
    "range_in_words",
    "read_toml",
    "setting",
    "tokens_of",
    "typed",
]

_T = TypeVar("_T")
_SCALARS = (int, float, bool, str)


def setting(default: Any, group: str = "", text: str = "", **limits: Any) -> Any:
    """A field of a settings class.

    Args:
        default: its value where nothing is said.
        group: the section of `--help`.
        text: its line in `--help`, and in the documentation.
        limits: `minimum` and `maximum` (allowed themselves), `above` (not allowed itself), `choices`; `metavar`;
            `unit="tokens"`, for a number that may also be written as 32k; `flag`, the name of its flag where that is
            not the field's, or None where it has no flag.
    """
    return field(default=default, metadata={"group": group, "help": text, **limits})


def data_folder() -> Path:
    """Where what is kept between runs goes when nothing else is said: the user's data folder, by XDG's convention."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "suffice"


def kinds_of(cls: type[Any]) -> dict[str, type]:
    """The type of each field, without `None`: `int` for `int | None`, `tuple` for `tuple[str, ...]`."""
    kinds = {}
    for name, kind in get_type_hints(cls).items():
        one = next(each for each in get_args(kind) if each is not type(None)) if isinstance(kind, UnionType) else kind
        kinds[name] = one if one in _SCALARS else tuple
    return kinds


def flag_of(each: Field[Any]) -> str | None:
    """The flag of a field, such as `--max-running`; None where it has none."""
    name = each.metadata.get("flag", each.name)
    return None if name is None else "--" + name.replace("_", "-")


def load_settings(
    cls: type[_T],
    *,
    path: str | None = None,
    prefix: str = "",
    environment: Mapping[str, str] = os.environ,
    flags: Mapping[str, Any] | None = None,
) -> tuple[_T, dict[str, str]]:
    """Settings: the defaults, a file over them, environment variables over that, flags on top.

    Args:
        cls: a dataclass of settings.
        path: a TOML file with its fields; none when None.
        prefix: of variables: `SUFFICE_SERVE_` for SUFFICE_SERVE_PORT. Several values are separated by commas.
        environment: where variables are looked up.
        flags: fields by name; `None` and `()` mean "not given".

    Returns:
        The settings; and for each field that was given the file, the variable or the flag that counts.

    Raises:
        UsageError: a file that cannot be read, an unknown key, or a value of the wrong type or out of range.
    """
    kinds, known = kinds_of(cls), {each.name: each for each in fields(cls)}  # type: ignore[arg-type]
    table = read_toml(Path(path).expanduser()) if path else {}
    if unknown := sorted(set(table) - set(known)):
        raise UsageError(f"{path}: unknown key {', '.join(unknown)}; known: {', '.join(known)}")
    units = {name: each.metadata.get("unit") for name, each in known.items()}
    values = {name: typed(f"{path}: {name}", kinds[name], value, units[name]) for name, value in table.items()}
    origins = dict.fromkeys(values, str(path))
    for name in known:
        if prefix and (variable := prefix + name.upper()) in environment:
            values[name] = _parsed(variable, kinds[name], environment[variable], units[name])
            origins[name] = variable
    given = {name: value for name, value in (flags or {}).items() if value not in (None, ())}
    origins |= {name: flag_of(known[name]) or name for name in given}
    values |= given
    check_values(cls, values, origins)
    return cls(**values), origins


def read_toml(path: Path, what: str = "settings file") -> dict[str, Any]:
    """The tables and keys of a TOML file. Raises `UsageError` where it cannot be read, or is not TOML."""
    import tomllib  # only where a file is read: it costs as much as the rest of this module

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the {what} {path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the {what} {path} is not valid TOML: {error}") from None


def check_values(cls: type[Any], values: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> None:
    """Refuse (`UsageError`) values of fields that are out of range, or not among the choices.

    Args:
        cls: the settings class.
        values: some of its fields.
        origins: what they were read from, for the message.
    """
    for each in fields(cls):
        value = values.get(each.name)
        if value is not None and not _allowed(each.metadata, value):
            where = f"{origins[each.name]}: " if origins and each.name in origins else ""
            raise UsageError(f"{where}{each.name} is {value!r}: it must be {_range(each.metadata)}")


def _allowed(limits: Mapping[str, Any], value: Any) -> bool:
    if "choices" in limits:
        return value in limits["choices"]
    if not {"minimum", "maximum", "above"} & limits.keys():
        return True
    low, high = limits.get("minimum", -math.inf), limits.get("maximum", sys.float_info.max)  # infinity is not a time
    return low <= value <= high and value > limits.get("above", -math.inf)


def _range(limits: Mapping[str, Any]) -> str:
    if "choices" in limits:
        return "one of " + ", ".join(map(str, limits["choices"]))
    if "above" in limits:
        return "a number " + range_in_words(limits["above"], limits.get("maximum"), above=True)
    return range_in_words(limits.get("minimum"), limits.get("maximum"))


def range_in_words(low: float | None, high: float | None, *, above: bool = False) -> str:
    """`1 or more`, `above 0`, `from 0 to 1`; with `above`, `low` itself is not allowed."""
    if low is None:
        return "" if high is None else f"at most {high}"
    if above:
        return f"above {low}" + (f", at most {high}" if high is not None else "")
    return f"{low} or more" if high is None else f"from {low} to {high}"


def typed(where: str, kind: type, value: Any, unit: str | None = None) -> Any:
    """A value of a TOML file as a field of this type has it.

    Args:
        where: the file and the key, for the message.
        kind: the type of the field.
        value: what the file says.
        unit: `tokens` for a number that may also be a text such as "32k".

    Raises:
        UsageError: it is of another type.
    """
    if unit == "tokens" and isinstance(value, str):
        return tokens_of(value, where)
    if kind is tuple:
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return tuple(value)
        raise UsageError(f"{where} must be a list of texts, not {value!r}")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{where} must be {kind.__name__}, not {value!r}")
    return value


def tokens_of(text: str, where: str = "") -> int:
    """The number of tokens that a text such as `2048` or `32k` says, as `suffice.numerals.token_count` reads it.

    Raises:
        UsageError: it says none; the message begins with `where`.
    """
    tokens = token_count(text)
    if tokens is None:
        said = f"{where}: {text!r}" if where else repr(text)
        raise UsageError(f"{said} is not a number of tokens: write {COUNT_EXAMPLES}")
    return tokens


def _parsed(variable: str, kind: type, text: str, unit: str | None) -> Any:
    if unit == "tokens":
        return tokens_of(text, variable)
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise UsageError(f"{variable} must be true or false, not {text!r}")
        return text.lower() in ("true", "1")
    if kind is tuple:
        return tuple(each.strip() for each in text.split(",") if each.strip())
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{variable} must be a number, not {text!r}") from None
