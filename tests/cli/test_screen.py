"""The screen: the answer on standard output, and a note about its progress beside it."""

from __future__ import annotations

import io
import sys

import pytest

from suffice.cli.infer.screen import Screen
from suffice.session import Progress, Text, Thinking


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_note_stands_behind_the_text_and_goes_when_the_text_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    screen = Screen(stream=True)
    screen.show(Thinking("hm"))
    screen.show(Text("好"))
    screen.show(Progress(16, 350, 29.0))
    assert "about 350 tokens, 12 s left" in err.getvalue()
    screen.show(Text("的" * 20))
    assert err.getvalue().endswith("\x1b[K"), "the note is taken away before the text goes on"
    before = err.getvalue()
    screen.show(Progress(32, 340, 29.0))
    assert err.getvalue() == before, "it would not fit into the line"
    assert out.getvalue() == "好" + "的" * 20
    assert "\x1b[2mhm\x1b[0m" in err.getvalue()


def test_without_a_terminal_nothing_but_the_answer_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(stream=True)
    for event in (Thinking("hm"), Text("42"), Progress(16, 350, 29.0)):
        screen.show(event)
    screen.close()
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("42", "")
