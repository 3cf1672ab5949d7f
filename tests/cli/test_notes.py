"""What a command says on a terminal beside its answers: rows that end between words, and no escape sequences."""

from __future__ import annotations

import io
import sys

import pytest

from emulator import Emulator, TerminalStream
from suffice.cli.infer.chat.prompt_input import _on_rows
from suffice.cli.main import main
from suffice.cli.notes import tell


@pytest.mark.parametrize("columns", [40, 61, 80])
def test_errors_wrap_at_words(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Emulator(columns)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", TerminalStream(terminal))
    with pytest.raises(SystemExit):
        main(["infer", "--prompt", "hi", "--preset", "shrt"])
    said = "error: --preset is 'shrt'; there are: short, medium, long; did you mean short?"
    assert " ".join(" ".join(terminal.rows()).split()) == said
    tell("a\x1b[2Jb " * 30)
    assert set(" ".join(terminal.rows()).removeprefix(said).split()) >= {r"a\x1b[2Jb"}


def test_where_it_is_no_terminal_a_line_stays_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    tell("word " * 60)
    assert capsys.readouterr().err == "word " * 60 + "\n"


def test_a_question_longer_than_a_row_is_broken_at_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert _on_rows("> ") == "> "
    assert _on_rows("continue? [y/N] ") == "continue? [y/N] "
    long = "drop the oldest 3 turns (117 tokens) and answer? [y/N] "
    assert _on_rows(long) == "drop the oldest 3 turns (117 tokens) and answer?\n[y/N] "


def test_bytes_of_another_encoding_on_standard_input_cost_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("你好世界".encode("gbk")), encoding="utf-8"))
    with pytest.raises(SystemExit):
        main(["budget", "-"])
    assert "standard input is not UTF-8 (byte 0xc4 at position 1), it looks like GBK" in capsys.readouterr().err
