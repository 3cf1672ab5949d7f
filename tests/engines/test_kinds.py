"""Kinds of engines as data, and parameters of sampling as data."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from suffice.engines import ENGINES, Sampling, open_engine
from suffice.engines.base import GenerationRequest
from suffice.engines.openai.engine import RemoteEngine
from suffice.engines.openai.requests import Dialect
from suffice.errors import UsageError
from suffice.prompt import Prompt
from suffice.session import Request, Session
from suffice.testing.scripted_engine import ScriptedEngine


class Parrot(ScriptedEngine):
    """Somebody else's engine."""

    def __init__(self, model: str | None = None, *, base_url: str = "", loud: bool = False) -> None:
        super().__init__(f"{model}, {base_url}, {loud}")


@pytest.fixture
def parrot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that adds the kind `parrot`."""
    module = ModuleType("parrots")
    module.Parrot = Parrot  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "parrots", module)
    info = tmp_path / "parrots-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parrots\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[suffice.engines]\nparrot = parrots:Parrot\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("parrot")
def test_an_engine_of_another_package_is_opened_by_its_kind() -> None:
    # what a command line passes when nobody has set its flags is not asked of an engine that does not have them
    flags: dict[str, Any] = {"adapters": (), "hub": "hf", "dtype": "auto", "tokenizer": None}
    engine = open_engine("grey", engine="parrot", upstream="http://x", loud=True, **flags)
    assert asyncio.run(Session(engine).answer(Request("x"))).text == "grey, http://x, True"


@pytest.mark.usefixtures("parrot")
def test_what_cannot_be_opened_is_said() -> None:
    with pytest.raises(UsageError, match=r"'cat'; there are: auto, transformers, vllm, sglang, openai, parrot$"):
        open_engine(engine="cat")
    with pytest.raises(UsageError, match="the engine parrot does not have: adapters, dtype"):
        open_engine(engine="parrot", adapters=["a"], dtype="fp16", device="auto")


@pytest.mark.usefixtures("parrot")
def test_the_server_opens_an_engine_of_any_kind() -> None:
    pytest.importorskip("uvicorn")
    from suffice.serve.app import engines_of
    from suffice.serve.config import ServeSettings

    [alone] = engines_of(ServeSettings(engine="parrot"))
    several = engines_of(ServeSettings(engine="parrot", upstreams=("http://x", "http://y")))
    assert [type(each) for each in (alone, *several)] == [Parrot] * 3
    with pytest.raises(UsageError, match=r"^the engine openai needs an upstream, its server's URL$"):
        engines_of(ServeSettings(engine="openai"))


def test_an_upstream_is_openai_and_all_kinds_can_be_found() -> None:
    assert isinstance(open_engine(upstream="http://localhost:1"), RemoteEngine)
    assert set(ENGINES) == {"local", "transformers", "vllm", "sglang", "openai"}


def test_every_parameter_of_sampling_says_what_it_may_be() -> None:
    assert [each.name for each in Sampling.fields()] == [each.name for each in fields(Sampling)]
    for each in Sampling.fields():
        assert each.help.endswith(".")
        assert each.api_range[0] < each.api_range[1]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", -1, "temperature is -1: give a number from 0$"),
        ("top_p", 0, "top_p is 0: give a number above 0 to 1$"),
        ("top_p", 1.5, "top_p is 1.5"),
        ("repetition_penalty", 0, "above 0$"),
        ("temperature", float("nan"), "temperature is nan"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: float, message: str) -> None:
    [parameter] = [each for each in Sampling.fields() if each.name == name]
    with pytest.raises(UsageError, match=message):
        parameter.check(value)
    parameter.check(1)


def test_all_that_is_set_is_sent_to_a_server() -> None:
    sampling = Sampling(**{each.name: 1 for each in Sampling.fields()})
    body = Dialect().body(GenerationRequest("1", Prompt(raw="x"), 5, sampling=sampling), "m")
    assert all(body[each.name] == 1 for each in Sampling.fields())
    assert (
        not {each.name for each in Sampling.fields()}
        & Dialect().body(GenerationRequest("1", Prompt(raw="x"), 5), "m").keys()
    )
