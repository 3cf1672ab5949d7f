"""The screen: every letter of an answer, whatever the width, and a note below it that leaves nothing behind."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import suppress

import pytest

from emulator import Emulator, TerminalStream
from suffice.cli.infer.screen import Screen
from suffice.session import Progress, Repetition, Text, Thinking
from suffice.testing.fake_openai import FakeOpenAI, Reply

WIDTHS = range(40, 161)
ENGLISH = (
    "Engineers who built the canals have tamed rivers since antiquity; the locks lift ships, and sluices hold back "
    "floods. Nobody knows who dug the first one, but many of the oldest are still in use, which says a lot.\n\n"
)
CHINESE = "运河把两条河连在一起，船不必绕过海角。最早的是谁挖的，没有人知道；不过很多今天还在使用，这说明了问题。\n"
ANSWERS = {
    "latin": ENGLISH * 2,
    "chinese": CHINESE * 3,
    "mixed": "KV缓存（cache）保存每个token的键和值，长度是max_length，所以“显存”够不够要看context——别忘了！" * 5,
    "typographic": "“No” — he said it twice… and the café’s naïve owner agreed. Как дела сегодня? Καλημέρα σας. " * 5,
    "combining": "Cafe\u0301s, nai\u0308ve: a\u0308o\u0308u\u0308 to\u0303es te\u0302te-a\u0300-te\u0302te. " * 7,
    "emoji": "Done ✅ and 👍🏽 by the 👩\u200d👩\u200d👧 of 🇩🇪 with ❤\ufe0f, 1\ufe0f\u20e3 of 2. Ｗｉｄｅ. " * 9,
    "korean": "운하는 두 강을 이어서 배가 먼 길을 돌아가지 않게 한다. 아직도 많은 운하가 쓰이고 있다. " * 6,
    "long words": f"See https://example.org/{'path/' * 30}index.html and {'x' * 203}! then go on. ",
    "code": 'def f(a):\n\treturn {\n\t\t"one": a,  # a comment that is quite long for a line in an answer\n\t}\n\n' * 2,
    "table": "| name | n |\n|---|---:|\n" + "| a name that is rather long, to reach the margin somewhere | 1 |\n" * 3,
    "spaces": "a    b     c      d       e        f         g          h           i            j " * 4,
    "lines": "\n\n".join("word " * n for n in range(1, 40, 6)),
}


@pytest.fixture
def emulators(monkeypatch: pytest.MonkeyPatch) -> type[Emulator]:
    """Makes emulators that standard output and standard error end on."""

    class Connected(Emulator):
        def __init__(self, columns: int) -> None:
            super().__init__(columns)
            monkeypatch.setenv("COLUMNS", str(columns))
            monkeypatch.setattr(sys, "stdout", TerminalStream(self))
            monkeypatch.setattr(sys, "stderr", TerminalStream(self))

    monkeypatch.setenv("TERM", "xterm-256color")
    return Connected


def pieces(text: str, chance: random.Random) -> Iterator[str]:
    """`text` as a model's tokens cut it."""
    while text:
        size = chance.choice((1, 1, 2, 3, 4, 4, 5, 6, 9))
        yield text[:size]
        text = text[size:]


def stream(answer: str, seed: int, thinking: str = "") -> None:
    """Show an answer as a session streams it, with notes about what is left between its pieces."""
    chance, screen = random.Random(seed), Screen(stream=True)
    events = [Thinking(piece) for piece in pieces(thinking, chance)] + [Text(piece) for piece in pieces(answer, chance)]
    for count, event in enumerate(events):
        screen.show(event)
        if chance.random() < 0.2:
            screen.show(Progress(count, chance.choice((7, 88, 350, 1999)), 29.0))
    screen.close()


def seen(text: str) -> str:
    """What a terminal can show of `text`, without white space: `pyte` has no joiners and no variants."""
    joiners = (each for each in text if unicodedata.category(each) != "Cf" and not "\ufe00" <= each <= "\ufe0f")
    return "".join("".join(joiners).replace("\u20e3", "").split())


def composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_letter_is_lost_and_no_note_is_left_at_any_width(width: int, emulators: type[Emulator]) -> None:
    """Every kind of text at every fourth width, and the commonest at all of them."""
    for place, name in enumerate(ANSWERS):
        if place < 3 or (place + width) % 4 == 0:
            terminal = emulators(width)
            stream(ANSWERS[name], seed=width)
            assert composed(seen(terminal.text())) == composed(seen(ANSWERS[name])), name


@pytest.mark.parametrize("name", ["latin", "typographic", "combining", "korean", "code", "table", "lines"])
def test_words_are_not_broken(name: str, emulators: type[Emulator]) -> None:
    for width in (40, 60, 80, 81, 120):
        terminal = emulators(width)
        stream(ANSWERS[name], seed=width)
        assert " ".join(terminal.rows()).split() == composed(ANSWERS[name]).split(), f"{name} at {width} columns"


def test_the_note_stands_below_the_text_and_goes_with_the_answer(emulators: type[Emulator]) -> None:
    terminal = emulators(60)
    screen = Screen(stream=True)
    screen.show(Progress(0, 400, 29.0))
    assert terminal.rows()[0] == "about 400 tokens, 14 s left"
    screen.show(Thinking("hm "))
    screen.show(Text("好 is the word "))
    assert terminal.rows()[:4] == ["hm", "", "好 is the word", "about 400 tokens, 14 s left"]
    screen.show(Progress(16, 350, 29.0))
    screen.show(Text("for good, and it begins"))
    assert terminal.rows()[2:5] == ["好 is the word for good, and it", "about 350 tokens, 12 s left", ""]
    screen.show(Text(" the sentence, which wraps\n"))
    assert terminal.rows()[2:5] == [
        "好 is the word for good, and it begins the sentence, which",
        "wraps",
        "about 350 tokens, 12 s left",
    ]
    screen.close()
    assert terminal.rows()[4:] == [""] * 8
    assert (terminal.screen.cursor.x, terminal.screen.cursor.y) == (0, 4)


def test_the_note_is_there_for_most_of_the_time(emulators: type[Emulator]) -> None:
    for name, share in (("latin", 0.95), ("chinese", 0.85), ("typographic", 0.95), ("mixed", 0.7)):
        terminal, screen, there = emulators(80), Screen(stream=True), 0
        screen.show(Progress(0, 400, 29.0))
        written = list(pieces(ANSWERS[name], random.Random(0)))
        for piece in written:
            screen.show(Text(piece))
            there += any("about 400 tokens" in row for row in terminal.screen.display)
        screen.close()
        assert there >= share * len(written), name


def test_a_window_that_grows_loses_nothing(emulators: type[Emulator], monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(0)
    terminal, screen = emulators(40), Screen(stream=True)
    screen.show(Progress(0, 400, 29.0))
    for piece in pieces(ENGLISH * 4, chance):
        if chance.random() < 0.1:
            terminal.screen.resize(columns=terminal.screen.columns + 3)  # pyte would cut rows that are to be narrower
            monkeypatch.setenv("COLUMNS", str(terminal.screen.columns))
        screen.show(Text(piece))
    screen.close()
    assert " ".join(terminal.rows()).split() == (ENGLISH * 4).split()


def test_control_characters_of_the_model_are_written_out(emulators: type[Emulator]) -> None:
    terminal = emulators(100)
    screen = Screen(stream=True)
    attack = "\x1b]0;title\x07 \x1b]52;c;aGk=\x1b\\ \x1b[2J\x1b[H \x9b31m \u202eevil\u202c a\rb \x08\x7f \x00 \ud83d"
    for piece in pieces(attack, random.Random(1)):
        screen.show(Thinking(piece))
    for piece in pieces(attack + " end\r\nof it", random.Random(2)):
        screen.show(Text(piece))
    screen.close()
    shown = r"\x1b]0;title\x07 \x1b]52;c;aGk=\x1b\ \x1b[2J\x1b[H \x9b31m \u202eevil\u202c a\x0db \x08\x7f \x00 \ud83d"
    text = " ".join(terminal.rows()).split()
    assert text == [*shown.split(), *shown.split(), "end", "of", "it"]
    assert not terminal.screen.title


def test_raw_gives_a_terminal_what_the_model_wrote(emulators: type[Emulator]) -> None:
    emulators(60)
    screen = Screen(stream=True, raw=True)
    answer = "\x1b[1mbold\x1b[0m " * 20 + "\r\n\tend"
    for piece in pieces(answer, random.Random(0)):
        screen.show(Text(piece))
        screen.show(Progress(16, 350, 29.0))
    screen.close()
    assert sys.stdout.getvalue() == answer  # type: ignore[attr-defined]
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize("term", [None, "", "dumb"])
def test_a_terminal_that_cannot_move_its_cursor_gets_text_only(
    emulators: type[Emulator], monkeypatch: pytest.MonkeyPatch, term: str | None
) -> None:
    monkeypatch.delenv("TERM") if term is None else monkeypatch.setenv("TERM", term)
    terminal = emulators(60)
    stream(ENGLISH + "\x1b[2J", seed=0, thinking="Let me see. ")
    assert terminal.text() == seen("Let me see. " + ENGLISH + r"\x1b[2J")
    assert "\x1b" not in sys.stdout.getvalue() + sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_without_a_terminal_nothing_but_the_answer_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    answer = ENGLISH + "\x1b[2J\ttab\r\n" + "x" * 300
    stream(answer, seed=0, thinking="hm")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (answer, "")


def test_a_loop_that_ends_no_answer_is_told_on_lines_of_its_own(emulators: type[Emulator]) -> None:
    terminal = emulators(60)
    screen = Screen(stream=True)
    for event in (Thinking("It goes on. It goes"), Repetition(0, 3, "tokens", thinking=True), Text("It is round.")):
        screen.show(event)
        screen.show(Progress(3, 400, 29.0))
    screen.close()
    assert terminal.rows()[:7] == [
        "It goes on. It goes",
        "(thinking loops: 3 tokens again and again; it is closed",
        "here, and the answer follows)",
        "",
        "",
        "It is round.",
        "",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pty module")
def test_in_a_real_terminal_the_answer_is_whole_and_control_characters_do_nothing(server: FakeOpenAI) -> None:
    answer = ENGLISH + CHINESE + "\x1b]0;title\x07 ✅ done"
    server.script(Reply(pieces=tuple(pieces(answer, random.Random(0))), usage=(5, 99)))
    terminal, status = run_in_terminal(61, "infer", "--upstream", server.url, "--prompt", "Tell me of canals.")
    assert status == 0
    text = terminal.text()
    assert seen(answer.replace("\x1b", "\\x1b").replace("\x07", "\\x07")) in text
    assert text.count("tokens/s") == 1
    assert "99 tokens" in " ".join(terminal.rows())
    assert not terminal.screen.title
    assert max(map(len, terminal.rows())) <= 61


def run_in_terminal(columns: int, *arguments: str) -> tuple[Emulator, int]:
    """Run `suffice` on a pseudo-terminal, on which standard output and standard error both end; its exit status."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 12, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    environment.pop("COLUMNS", None)
    command = [sys.executable, "-m", "suffice.cli.main", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    with open(ours, "rb", buffering=0) as stream, suppress(OSError):  # Linux says EIO when the other side is closed
        while piece := stream.read(65536):
            written += piece
    terminal = Emulator(columns)
    terminal.feed(written.decode())
    return terminal, process.wait()
