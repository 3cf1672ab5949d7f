"""What a request can be made of, and the fields that earlier versions had."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from suffice import engines
from suffice.errors import UsageError
from suffice.prompt import Prompt
from suffice.session import Request

HI = ({"role": "user", "content": "hi"},)
TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize("given", [HI, [*HI], Prompt(HI)])
def test_a_conversation_is_a_prompt(given: Any) -> None:
    assert Request(given).prompt == Request(prompt=given).prompt == Prompt(HI)


def test_text_is_raw_and_nothing_is_empty() -> None:
    assert Request("go on").prompt == Prompt(raw="go on")
    assert Request().prompt == Prompt()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"messages": HI}, Request(HI)),
        ({"messages": HI, "tools": (TOOL,)}, Request(Prompt(HI, tools=(TOOL,)))),
        ({"prompt": "", "prompt_ids": (1, 2)}, Request(Prompt(ids=(1, 2)))),
        ({"messages": HI, "on_length": "stop"}, Request(HI, reservation="full")),
        ({"messages": HI, "first_reservation": 7}, Request(HI, reservation=7)),
        ({"messages": HI, "first_reservation": "auto", "on_length": "continue"}, Request(HI)),
    ],
)
def test_fields_of_earlier_versions_mean_what_they_did(old: dict[str, Any], new: Request) -> None:
    with pytest.warns(DeprecationWarning, match="deprecated"):
        request = Request(**old, id="1")
    assert request == replace(new, id="1")


def test_old_fields_that_contradict_each_other_are_refused() -> None:
    with pytest.warns(match="deprecated"), pytest.raises(UsageError, match="not both"):
        Request(messages=HI, prompt="x")


def test_capacity_is_the_old_name_of_capabilities() -> None:
    with pytest.warns(DeprecationWarning, match="Capabilities"):
        assert engines.Capacity is engines.Capabilities
