"""The chat in terminals: a pseudo-terminal, and tmux as a person has it."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = """\
import sys
from suffice.cli.infer.options import InferOptions
from suffice.cli.main import main
from suffice.testing import ScriptedEngine

answer, context, slow = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "slow"
InferOptions.open_engine = lambda self: ScriptedEngine(answer, context=context, slow=slow)
main(["infer", *sys.argv[4:]])
"""
DEADLINE = 60.0  # seconds, only so that a broken chat does not hang


def conversation(file: Path) -> list[str]:
    return [turn["content"] for turn in json.loads(file.read_text(encoding="utf-8"))["messages"]]


def program(folder: Path, answer: str, *flags: str, context: int = 1000, slow: bool = True) -> list[str]:
    """A chat whose engine writes a character every ten milliseconds, or all at once."""
    script = folder / "chat.py"
    script.write_text(PROGRAM, encoding="utf-8")
    return [sys.executable, str(script), answer, str(context), "slow" if slow else "fast", *flags]


class Pty:
    """The chat on a pseudo-terminal; what it has written is in `shown`."""

    def __init__(self, command: list[str]) -> None:
        self.master, self.slave = pty.openpty()
        self.mode_before = termios.tcgetattr(self.slave)
        environment = os.environ | {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm-256color"}
        self.process = subprocess.Popen(command, env=environment, preexec_fn=lambda: os.login_tty(self.slave))
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait_for(self, text: str, times: int = 1) -> None:
        ends = time.monotonic() + DEADLINE
        while self.shown.count(text) < times:
            assert time.monotonic() < ends, f"{text!r} did not come {times} times:\n{self.shown}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.shown += os.read(self.master, 65536).decode("utf-8", "replace")

    def wait(self) -> int:
        """Until the program has ended. Returns its exit status."""
        status = self.process.wait(DEADLINE)
        while select.select([self.master], [], [], 0)[0]:
            self.shown += os.read(self.master, 65536).decode("utf-8", "replace")
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def on_pty() -> Iterator[Callable[[list[str]], Pty]]:
    opened: list[Pty] = []

    def open_one(command: list[str]) -> Pty:
        opened.append(Pty(command))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def test_what_is_typed_during_an_answer_is_kept_and_ctrl_c_stops_it(
    on_pty: Callable[[list[str]], Pty], tmp_path: Path
) -> None:
    file = tmp_path / "talk.jsonl"
    chat = on_pty(program(tmp_path, "All about the sea. " * 100, "--temperature", "0"))
    chat.wait_for("Ctrl-D leaves")
    chat.type("tell me\r")
    chat.wait_for("All about the sea. All")
    chat.type("\x1b[200~one\ntwo\nthree\x1b[201~\rand ha")
    chat.type("\x03")
    chat.wait_for("what was written is kept")
    chat.wait_for("All about the sea. All", 2)  # the paste has been sent
    chat.type("\x03")
    chat.wait_for("what was written is kept", 2)
    chat.type("lf\r")
    chat.wait_for("All about the sea. All", 3)
    chat.type(f"\x03/save {file}\r")
    chat.wait_for("saved as row 1")
    chat.type("\x04")
    assert chat.wait() == 0
    messages = conversation(file)
    assert messages[0] == "tell me"
    assert messages[1].startswith("All about the sea. All")
    assert messages[2] == "one\ntwo\nthree"
    assert messages[4] == "and half"
    assert termios.tcgetattr(chat.slave) == chat.mode_before, "the terminal is as it was"
    assert chat.shown.rfind("\x1b[?2004l") > chat.shown.rfind("\x1b[?2004h")


def test_a_terminated_chat_leaves_the_terminal_as_it_was(on_pty: Callable[[list[str]], Pty], tmp_path: Path) -> None:
    chat = on_pty(program(tmp_path, "never ends " * 500))
    chat.wait_for("Ctrl-D leaves")
    chat.type("tell me\r")
    chat.wait_for("never ends")
    chat.process.terminate()
    assert chat.wait() == 143
    assert termios.tcgetattr(chat.slave) == chat.mode_before


def test_a_dumb_terminal_gets_plain_lines(
    on_pty: Callable[[list[str]], Pty], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["env", "TERM=dumb", *program(tmp_path, "fine", slow=False)]
    chat = on_pty(command)
    chat.wait_for("Ctrl-D leaves")
    chat.type("hello\n")
    chat.wait_for("fine")
    chat.type("exit\n")
    assert chat.wait() == 0
    assert "\x1b[?2004h" not in chat.shown.partition("hello")[2]


class Tmux:
    """A real terminal: tmux, on a socket of its own."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._socket = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        exported = [
            f"{name}={os.environ[name]}" for name in ("PATH", "PYTHONPATH", "XDG_DATA_HOME") if name in os.environ
        ]
        self._call("new-session", "-d", "-x", "80", "-y", "40", "env", "LANG=C.UTF-8", *exported, *command)

    def keys(self, *keys: str) -> None:
        self._call("send-keys", *keys)

    def line(self, text: str) -> None:
        self._call("send-keys", "-l", text)
        self.keys("Enter")

    def paste(self, text: str) -> None:
        self._call("set-buffer", text)
        self._call("paste-buffer", "-p", "-r")

    @property
    def screen(self) -> str:
        return self._call("capture-pane", "-p", "-J")

    def wait_for(self, text: str) -> None:
        ends = time.monotonic() + DEADLINE
        while text not in (screen := self.screen):
            assert time.monotonic() < ends, f"{text!r} did not come:\n{screen}"
            time.sleep(0.05)

    def close(self) -> None:
        self._call("kill-server")

    def _call(self, *arguments: str) -> str:
        return subprocess.run([*self._socket, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def on_tmux(tmp_path: Path) -> Iterator[Callable[[list[str]], Tmux]]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    opened: list[Tmux] = []

    def open_one(command: list[str]) -> Tmux:
        opened.append(Tmux(command, tmp_path))
        opened[-1].wait_for("Ctrl-D leaves")
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.mark.slow
def test_in_tmux_a_paste_of_three_lines_is_one_message(on_tmux: Callable[[list[str]], Tmux], tmp_path: Path) -> None:
    chat = on_tmux(program(tmp_path, "fine", slow=False))
    chat.paste("def f(x):\n    return x\nprint(f(1))")
    chat.wait_for("> def f(x):\n…     return x\n… print(f(1))")
    chat.keys("Enter")
    chat.wait_for("4 tokens")
    chat.line(f"/save {tmp_path / 'talk.jsonl'}")
    chat.wait_for("saved as row 1")
    assert conversation(tmp_path / "talk.jsonl") == ["def f(x):\n    return x\nprint(f(1))", "fine"]


@pytest.mark.slow
def test_in_tmux_a_question_at_continue_is_the_next_message(
    on_tmux: Callable[[list[str]], Tmux], tmp_path: Path
) -> None:
    chat = on_tmux(program(tmp_path, "The sea is wide.", "--max-new-tokens", "7", slow=False))
    chat.line("Tell me about the sea.")
    chat.wait_for("continue? [y/N]")
    chat.line("And what about lakes?")
    chat.wait_for("continue? [y/N] And what about lakes?\nThe sea")
    chat.line("n")
    chat.line(f"/save {tmp_path / 'talk.jsonl'}")
    chat.wait_for("saved as row 1")
    assert conversation(tmp_path / "talk.jsonl")[2] == "And what about lakes?"


@pytest.mark.slow
def test_in_tmux_a_full_context_offers_to_drop_the_oldest_turns(
    on_tmux: Callable[[list[str]], Tmux], tmp_path: Path
) -> None:
    chat = on_tmux(program(tmp_path, "fine", context=80, slow=False))
    for letter in "abcd":
        chat.line(letter * 20)
        chat.wait_for(f"> {letter * 20}\n")
    chat.wait_for("drop the oldest 2 turns (48 tokens) and answer? [y/N]")
    chat.wait_for("/clear forgets all of it")
    chat.line("y")
    chat.wait_for("answer? [y/N] y\nfine")


@pytest.mark.slow
def test_in_tmux_ctrl_c_stops_an_answer_and_clears_a_line(on_tmux: Callable[[list[str]], Tmux], tmp_path: Path) -> None:
    chat = on_tmux(program(tmp_path, "All about the sea. " * 100))
    chat.line("tell me")
    chat.wait_for("All about the sea. All")
    chat.keys("C-c")
    chat.wait_for("(stopped; what was written is kept")
    chat.keys("h", "a", "l", "f", "C-c")
    chat.line("/help")
    chat.wait_for("> /help\n/help")
    chat.keys("C-d")
