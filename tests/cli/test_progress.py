"""Bars: how much is done of how much, at every width; plain lines where there is no terminal."""

from __future__ import annotations

import sys

import pytest

from emulator import Emulator, TerminalStream
from suffice.cli.progress import ProgressBar, fitting

NOTE = "1234 tokens/s, 2 failed, memory 21.3 of 24.0 GB"
PARTS = {"time": "1:05 left", "rate": "12.3 rows/s", "what": "answering", "bar": "-" * 16}


def shown_at(columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The only line of a bar at 31 of 80."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Emulator(columns)
    monkeypatch.setattr(sys, "stderr", TerminalStream(terminal))
    with ProgressBar("answering", 80) as progress:
        progress.update(31, NOTE)
    lines = [row for row in terminal.rows() if row]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("columns", range(30, 121, 6))
def test_a_bar_keeps_what_is_done_and_stays_on_one_row(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    line = shown_at(columns, monkeypatch)
    assert "31/80" in line
    assert "rows/s" in line
    assert "answering" in line or columns < 48
    assert NOTE in line or columns < 114
    assert NOTE not in line or columns > 84


def test_what_matters_least_goes_first_where_room_is_short() -> None:
    names = [sorted(fitting(width, "31/80", PARTS, NOTE)) for width in (110, 60, 59, 45, 41, 30, 20, 5)]
    assert names[0] == ["bar", "counts", "note", "rate", "time", "what"]
    assert names[1:4] == [["bar", "counts", "rate", "time", "what"]] * 2 + [["counts", "rate", "time", "what"]]
    assert names[4:] == [["counts", "rate", "time", "what"], ["counts", "rate", "time"], ["counts", "time"], ["counts"]]
    assert fitting(75, "31/80", PARTS, NOTE)["note"] == "1234 tokens/s"


def test_without_a_terminal_there_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("answering", 80) as progress:
        progress.update(31, NOTE)
    line = capsys.readouterr().err
    assert line.startswith("answering: 31/80 rows, ")
    assert line.endswith(f"  {NOTE}\n")
