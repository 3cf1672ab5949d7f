"""Settings from a file, from variables and from flags: which counts, and what is said of one that cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from suffice.budget import Budgeter
from suffice.errors import UsageError
from suffice.settings import flag_of, load_settings, setting


@dataclass(frozen=True, kw_only=True)
class Example:
    """One field of each kind."""

    port: int = setting(8000, "Address", "Port.", minimum=0, maximum=65535)
    seconds: float = setting(1.0, above=0)
    most: int | None = setting(None, minimum=1)
    quiet: bool = False
    level: str = setting("info", choices=("info", "error"))
    names: tuple[str, ...] = setting((), flag="name")
    hidden: str = setting("", flag=None)


def load(tmp_path: Path, text: str = "", environment: dict[str, str] | None = None, **flags: Any) -> Example:
    path = tmp_path / "it.toml"
    path.write_text(text)
    variables = {f"X_{name.upper()}": value for name, value in (environment or {}).items()}
    return load_settings(Example, path=str(path), prefix="X_", environment=variables, flags=flags)[0]


def test_a_flag_counts_above_a_variable_above_the_file_above_the_default(tmp_path: Path) -> None:
    assert load(tmp_path) == Example()
    text = 'port = 1\nseconds = 2\nquiet = true\nnames = ["a"]\nmost = 3\nlevel = "error"'
    found = load(tmp_path, text, {"port": "4", "quiet": "0", "names": "b, c", "seconds": "0.5"}, port=5, most=None)
    assert found == Example(port=5, seconds=0.5, most=3, quiet=False, level="error", names=("b", "c"))
    path = str(tmp_path / "it.toml")
    _, origins = load_settings(Example, path=path, prefix="X_", environment={"X_PORT": "4"}, flags={"names": ("d",)})
    assert origins == dict.fromkeys(("seconds", "quiet", "most", "level"), path) | {"port": "X_PORT", "names": "--name"}
    known = {name: flag_of(each) for name, each in Example.__dataclass_fields__.items()}
    assert (known["names"], known["hidden"], known["port"]) == ("--name", None, "--port")


@pytest.mark.parametrize(
    ("text", "environment", "flags", "words"),
    [
        ("prot = 1", {}, {}, "it.toml: unknown key prot; known: port, seconds"),
        ("port = 'x'", {}, {}, "it.toml: port must be int, not 'x'"),
        ("port = true", {}, {}, "it.toml: port must be int, not True"),
        ("names = [1]", {}, {}, "it.toml: names must be a list of texts, not [1]"),
        ("port = 70000", {}, {}, "it.toml: port is 70000: it must be from 0 to 65535"),
        ("seconds = inf", {}, {}, "it.toml: seconds is inf: it must be a number above 0"),
        ("seconds = nan", {}, {}, "it.toml: seconds is nan: it must be a number above 0"),
        ("port = ", {}, {}, "it.toml is not valid TOML: "),
        ("", {"port": "many"}, {}, "X_PORT must be a number, not 'many'"),
        ("", {"quiet": "maybe"}, {}, "X_QUIET must be true or false, not 'maybe'"),
        ("", {"seconds": "0"}, {}, "X_SECONDS: seconds is 0.0: it must be a number above 0"),
        ("", {"level": "loud"}, {}, "X_LEVEL: level is 'loud': it must be one of info, error"),
        ("", {}, {"most": 0}, "--most: most is 0: it must be 1 or more"),
    ],
)
def test_what_cannot_be_is_said_with_where_it_is(
    tmp_path: Path, text: str, environment: dict[str, str], flags: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as refused:
        load(tmp_path, text, environment, **flags)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml cannot be read: No such file"):
        load_settings(Example, path=str(tmp_path / "none.toml"))


# --- numbers of tokens


@dataclass(frozen=True, kw_only=True)
class Lengths:
    longest: int = setting(2048, minimum=8, unit="tokens")
    rows: int = setting(10)


@pytest.mark.parametrize(("text", "variable", "tokens"), [('longest = "32k"', None, 32_768), ("", "1.5k", 1536)])
def test_a_number_of_tokens_may_be_written_as_people_do(
    text: str, variable: str | None, tokens: int, tmp_path: Path
) -> None:
    path = tmp_path / "it.toml"
    path.write_text(text)
    environment = {"X_LONGEST": variable} if variable else {}
    assert load_settings(Lengths, path=str(path), prefix="X_", environment=environment)[0].longest == tokens


@pytest.mark.parametrize(
    ("text", "variables", "words"),
    [
        ('longest = "many"', {}, "it.toml: longest: 'many' is not a number of tokens: write 2048, 32k"),
        ("", {"X_LONGEST": "32kb"}, "X_LONGEST: '32kb' is not a number of tokens"),
        ("", {"X_LONGEST": "4"}, "X_LONGEST: longest is 4: it must be 8 or more"),
        ('rows = "32k"', {}, "it.toml: rows must be int, not '32k'"),
    ],
)
def test_what_is_no_number_of_tokens_is_refused(
    text: str, variables: dict[str, str], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "it.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        load_settings(Lengths, path=str(path), prefix="X_", environment=variables)
    assert words in str(refused.value)


def test_a_budget_file_takes_them_too(tmp_path: Path) -> None:
    path = tmp_path / "budget.toml"
    path.write_text('[tiers.huge]\nmax_new_tokens = "32k"\n')
    assert Budgeter.load(path).tiers["huge"].max_new_tokens == 32_768
    path.write_text('[tiers.huge]\nmax_new_tokens = "lots"\n')
    with pytest.raises(UsageError, match=r"tiers\.huge\.max_new_tokens: 'lots' is not a number of tokens"):
        Budgeter.load(path)
