"""The chat, in front of an engine that says what it is told to; what is typed comes through prompt_toolkit's pipe."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from suffice.cli.infer.chat import loop
from suffice.cli.infer.chat.commands import COMMANDS
from suffice.cli.infer.chat.input_history import InputHistory
from suffice.cli.infer.chat.prompt_input import PromptInput
from suffice.cli.infer.chat.texts import command_word, message_text
from suffice.cli.infer.options import InferOptions
from suffice.data import Conversation, read_dataset
from suffice.engines.base import Chunk, GenerationRequest, Sampling
from suffice.errors import EngineError, ModelError, UsageError
from suffice.testing import ScriptedEngine

ENTER, CTRL_C, UP, LEFT = "\r", "\x03", "\x1b[A", "\x1b[D"


def paste(text: str) -> str:
    return f"\x1b[200~{text}\x1b[201~"


class Answers(ScriptedEngine):
    """Gives each of `answers` once, the last one ever again; at a CTRL_C in one, Ctrl-C is pressed, and an error is
    raised."""

    def __init__(self, *answers: str | Exception, **settings: Any) -> None:
        super().__init__(**settings)
        self.answers = [*answers] or ["fine"]
        self.entered = 0
        self.impatient = False
        """Whether Ctrl-C is pressed again while the answer is being stopped."""

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            self.asked.append(request)
            raise answer
        self.answer = answer
        async for chunk in super().submit(request):
            if chunk.text == CTRL_C:
                await self._press()
            yield chunk

    async def _press(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            if self.impatient:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(0.05)

    async def __aenter__(self) -> Answers:
        self.entered += 1
        return self

    async def __aexit__(self, *error: object) -> None:
        self.entered -= 1

    @property
    def conversations(self) -> list[list[str]]:
        """What was sent with each request."""
        return [[message["content"] for message in request.prompt.messages] for request in self.asked]


class Chat:
    """What a chat did: its engine, and what it said."""

    def __init__(self, engine: Answers, said: str) -> None:
        self.engine, self.said = engine, said


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Chat]:
    """At each prompt, type the next of these texts and Enter; at the end, leave. A tuple is typed with pauses."""

    def run(engine: Answers, *texts: str | tuple[str, ...], others: Any = None, **options: Any) -> Chat:
        engines, waiting, prompts = {None: engine, **(others or {})}, [*texts, "/exit"], []

        def opened(self: InferOptions) -> Any:
            found = engines[self.model]
            if isinstance(found, Exception):
                raise found
            return found

        def read(self: PromptInput, prompt: str) -> str:
            prompts.append(prompt)
            text = waiting.pop(0) if waiting else ""
            if isinstance(text, str):
                pipe.send_text(text + ENTER if text else "")
                return one_input(self, prompt)
            parts, timers = [*text], []

            def after_render(app: Any) -> None:
                """When nothing has moved for a moment, as a person types."""
                if timers:
                    timers.pop().cancel()
                if parts:
                    timers.append(app.loop.call_later(0.05, lambda: pipe.send_text(parts.pop(0))))

            self._session.app.after_render += after_render
            try:
                return one_input(self, prompt)
            finally:
                self._session.app.after_render -= after_render

        one_input = PromptInput.read
        with (
            create_pipe_input() as pipe,
            create_app_session(input=pipe, output=DummyOutput()),
            monkeypatch.context() as m,
        ):
            m.setattr(InferOptions, "open_engine", opened)
            m.setattr(PromptInput, "read", read)
            m.setattr(loop, "terminal_can_edit", lambda: True)
            m.setattr(loop, "quiet_terminal", nullcontext)
            assert loop.chat(InferOptions(**options)) == 0
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return Chat(engine, shown.out + shown.err + "\n".join(prompts))

    return run


def test_a_paste_of_several_lines_is_one_message(typed: Callable[..., Chat]) -> None:
    talk = typed(Answers(), paste("def f():\r\n    return 1\r\n\r\nf()"))
    assert talk.engine.conversations == [["def f():\n    return 1\n\nf()"]]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("one\\\rtwo", "one\ntwo"),
        ("one\x1b\rtwo", "one\ntwo"),
        ('"""\rone\r\rtwo \\\r"""', "one\n\ntwo \\"),
        ("   \x1b\r\x1b\rwords", "words"),
        ("    if x:\\\r        y", "    if x:\n        y"),
        (paste('"""Doc."""\nx = 1\\') + LEFT, '"""Doc."""\nx = 1\\'),
        (paste('"""\nDoc.\n"""\nx = 1'), '"""\nDoc.\n"""\nx = 1'),
        (paste("/foo and\nmore lines"), "/foo and\nmore lines"),
        ("你好，😀 e\u0301", "你好，😀 e\u0301"),
        ("say \"quit\" and 'exit'", "say \"quit\" and 'exit'"),
        ("/usr/bin/env is a path", "/usr/bin/env is a path"),
        (" /clear is a command", "/clear is a command"),
        ("// a comment", "// a comment"),
        (paste("x" * 50_000), "x" * 50_000),
    ],
)
def test_what_is_typed_arrives(typed: Callable[..., Chat], keys: str, message: str) -> None:
    assert typed(Answers(context=None), keys).engine.conversations == [[message]]


def test_commands_are_told_from_paths_and_messages() -> None:
    assert command_word("/set top_p 0.9") == "set"
    assert command_word("／Help") == "help"
    for text in ("/usr/bin is full", "//", "/", "set", " /set", "/a/b", "text /set"):
        assert command_word(text) == "", text


def test_bytes_that_are_no_text_are_refused_in_words() -> None:
    with pytest.raises(UsageError, match="what was typed is not UTF-8"):
        message_text("abc" + b"\xc4\xe3".decode("utf-8", "surrogateescape"))


def test_a_question_at_continue_is_the_next_message(typed: Callable[..., Chat]) -> None:
    talk = typed(Answers("abcdef", "ghi"), "tell me", "and what about\\\rcats?", max_new_tokens=3)
    assert talk.engine.conversations == [["tell me"], ["tell me", "abc", "and what about\ncats?"]]


def test_yes_continues_and_no_does_not(typed: Callable[..., Chat]) -> None:
    talk = typed(Answers("abcdef", " ghij", "k"), "tell me", "是", "n", "/continue", "/continue", max_new_tokens=4)
    assert talk.engine.conversations == [["tell me"], ["tell me", "abcd"], ["tell me", "abcd ghi"]]
    assert "/budget N allows more" in talk.said
    assert "ended by itself; /retry asks for another one" in talk.said


def test_what_is_typed_ahead_waits_for_the_next_prompt(typed: Callable[..., Chat]) -> None:
    talk = typed(Answers(f"one {CTRL_C}never", "two"), ("first\rsecond\rthi",), "rd")
    assert [asked[-1] for asked in talk.engine.conversations] == ["first", "second", "third"]


def test_a_stopped_answer_is_kept_and_can_go_on(typed: Callable[..., Chat]) -> None:
    talk = typed(Answers(f"half an ans{CTRL_C}never", "wer"), "q", "/continue", "next")
    assert "stopped; what was written is kept" in talk.said
    assert talk.engine.conversations[1:] == [["q", "half an ans"], ["q", "half an answer", "next"]]
    assert len(talk.engine.cancelled) == 1


def test_two_presses_of_ctrl_c_do_not_cost_the_answer(typed: Callable[..., Chat]) -> None:
    engine = Answers(f"half{CTRL_C}never", "on")
    engine.impatient = True
    talk = typed(engine, "q", "next")
    assert talk.engine.conversations[1] == ["q", "half", "next"]


def test_a_message_that_got_no_answer_waits(typed: Callable[..., Chat]) -> None:
    engine = Answers(CTRL_C + "never", EngineError("the cable is out"), "at last")
    talk = typed(engine, "important", "/continue", "/retry", "/retry", "thanks")
    assert "stopped before the first word; your message waits: /retry" in talk.said
    assert "the cable is out" in talk.said
    assert talk.engine.conversations[:3] == [["important"]] * 3
    assert talk.engine.conversations[3] == ["important", "at last", "thanks"]


def test_a_failure_keeps_what_was_written(typed: Callable[..., Chat]) -> None:
    engine = Answers("so far so good")
    engine.fail_after = 6
    talk = typed(engine, "q", "/continue")
    assert "failed; what was written is kept" in talk.said
    assert "the cable was pulled" in talk.said


def test_retry_asks_for_another_answer_and_undo_brings_the_first_one_back(typed: Callable[..., Chat]) -> None:
    talk = typed(Answers("one", "two", "three"), "q", "/retry", "/undo", "next", "/undo", "/undo", "/undo")
    assert talk.engine.conversations == [["q"], ["q"], ["q", "one", "next"]]
    assert "nothing to undo" in talk.said
    seeded = typed(Answers("one", "two"), "q", "/retry", sampling=Sampling(seed=7))
    assert [request.sampling.seed for request in seeded.engine.asked] == [7, 8]
    assert "the same answer" in typed(Answers("one"), "q", "/retry").said


def test_a_full_context_offers_to_drop_the_oldest_turns(typed: Callable[..., Chat]) -> None:
    messages = [letter * 20 for letter in "abcd"]
    talk = typed(Answers("12345", context=80), *messages, "y", "/undo")
    assert "the conversation has 95 tokens and the context 80; /clear forgets all of it" in talk.said
    assert talk.engine.conversations[-1] == ["c" * 20, "12345", "d" * 20]
    assert "the conversation has 3 turns" in talk.said


def test_at_a_full_context_nothing_typed_is_lost(typed: Callable[..., Chat]) -> None:
    messages = [letter * 20 for letter in "abcd"]
    declined = typed(Answers("12345", context=80), *messages, "n", "/drop 2", "/retry")
    assert "drop the oldest 2 turns (50 tokens) and answer? [y/N]" in declined.said
    assert declined.engine.conversations[-1] == ["c" * 20, "12345", "d" * 20]
    cleared = typed(Answers("12345", context=80), *messages, "n", "/clear", "/retry")
    assert cleared.engine.conversations[-1] == ["d" * 20]
    another = typed(Answers("12345", context=85), *messages, "short")
    assert another.engine.conversations[-1][-2:] == ["12345", "short"]


def test_an_answer_that_fills_the_context_goes_on_without_the_oldest_turns(typed: Callable[..., Chat]) -> None:
    engine = Answers("12345", "67890" * 20, "end", context=100)
    talk = typed(engine, "a" * 40, "b" * 20, "y")
    assert "drop the oldest turn (45 tokens) and continue?" in talk.said
    assert talk.engine.conversations[-1] == ["b" * 20, "67890" * 7]


def test_a_message_that_is_too_long_says_so_and_comes_back(typed: Callable[..., Chat]) -> None:
    talk = typed(Answers("fine", context=50), "hi", "x" * 60, (UP, "\x7f" * 20 + ENTER))
    assert "your message alone has 60 tokens and the context 50" in talk.said
    assert talk.engine.conversations == [["hi"], ["hi", "fine", "x" * 40]]


def test_settings_are_listed_and_changed_and_wrong_ones_explained(typed: Callable[..., Chat]) -> None:
    talk = typed(
        Answers("fine"),
        *("/set", "/set temprature 0.2", "/set temperature 0.2", "/set top-p=0.5", "/set stop_words '</a>' b"),
        *(
            "/set temperature -1",
            "/set tier huge",
            "/set max_length x",
            "/set on_runaway warn",
            "/set max_tokens 2k",
            "/budget 32",
            "q",
        ),
        *("/set temperature default", "/set tier short", "r"),
    )
    first, second = talk.engine.asked
    assert (first.sampling.temperature, first.sampling.top_p, first.max_new_tokens) == (0.2, 0.5, 32)
    assert (second.sampling.temperature, second.sampling.top_p) == (None, 0.5)
    for words in (
        *("no setting temprature; did you mean temperature?", "temperature: -1 is not allowed: it must be 0 or more"),
        *("unknown tier 'huge'; there are", "'x': give a number of tokens, 1 or more", "(stop_words: '</a>' b)"),
        *("Keep the likeliest tokens", "(on_runaway: warn)", "(max_new_tokens: 2048)"),
    ):
        assert words in talk.said


def test_unknown_commands_say_what_was_meant(typed: Callable[..., Chat]) -> None:
    talk = typed(Answers("fine"), "/retyr", "/clear all of it", "/save", "/drop 3", "/drop x", "/load nowhere.jsonl")
    assert talk.engine.asked == []
    for words in (
        *("no command /retyr; did you mean /retry?", "/clear takes nothing behind it", "/save needs FILE"),
        *("the conversation has 0 turns, not 3", "/drop is 'x'", 'no file "nowhere.jsonl"'),
    ):
        assert words in talk.said


def test_a_conversation_is_saved_as_a_row_and_goes_on(typed: Callable[..., Chat], tmp_path: Path) -> None:
    file = tmp_path / "with space.jsonl"
    typed(Answers("one", "two" * 9), "q", "r", f"/save '{file}'", f"/save {file}", system="be brief", max_new_tokens=3)
    rows = [row for row in read_dataset(str(file)) if isinstance(row, Conversation)]
    assert [row.reference for row in rows] == ["two", "two"]
    assert [turn["content"] for turn in rows[0].messages] == ["be brief", "q", "one", "r"]
    talk = typed(Answers("more"), f"/load {file} 1", "/continue", "s", f"/load {file} 9")
    assert talk.engine.conversations[0] == ["be brief", "q", "one", "r", "two"]
    assert talk.engine.conversations[1] == ["be brief", "q", "one", "r", "twomore", "s"]
    assert "row 1 of 2: 2 turns" in talk.said
    assert "has 2 rows, and no row 9" in talk.said


def test_a_row_without_an_answer_waits_for_one(typed: Callable[..., Chat], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"query": "1 + 1?"}))
    talk = typed(Answers("2"), f"/load {tmp_path / 'rows.jsonl'}", "/retry")
    assert talk.engine.conversations == [["1 + 1?"]]


def test_another_model_goes_on_and_a_failure_keeps_the_old_one(typed: Callable[..., Chat]) -> None:
    first, second = Answers("one"), Answers("two")
    others = {"bigger": second, "missing": ModelError("no model folder")}
    talk = typed(first, "q", "/model missing", "r", "/model bigger", "s", "/model", others=others)
    assert talk.engine.conversations == [["q"], ["q", "one", "r"]]
    assert second.conversations == [["q", "one", "r", "one", "s"]]
    assert "no model folder" in talk.said
    assert (first.entered, second.entered) == (0, 0)


def test_a_model_that_does_not_load_leaves_the_old_one_loaded(typed: Callable[..., Chat]) -> None:
    class Broken(Answers):
        async def __aenter__(self) -> Answers:
            raise EngineError("out of memory")

    talk = typed(Answers("one"), "q", "/model broken", "r", others={"broken": Broken()})
    assert talk.engine.conversations[-1] == ["q", "one", "r"]
    assert "out of memory" in talk.said
    assert talk.engine.entered == 0


def test_ctrl_c_clears_what_is_typed_and_the_arrow_brings_it_back(typed: Callable[..., Chat]) -> None:
    talk = typed(Answers("fine"), ("half a thought" + CTRL_C, UP, " more" + ENTER), (CTRL_C,))
    assert talk.engine.conversations == [["half a thought more"]]
    assert "(Ctrl-D or /exit leaves)" in talk.said


@pytest.mark.parametrize("word", ["exit", "quit", "/quit", "/exit", " Exit "])
def test_words_that_leave(typed: Callable[..., Chat], word: str) -> None:
    assert typed(Answers("fine"), word, "not sent").engine.asked == []


def test_the_history_is_kept_between_runs_for_its_owner_alone(typed: Callable[..., Chat]) -> None:
    typed(Answers("fine"), "first thing", paste("two\nlines"))
    file = Path(os.environ["XDG_DATA_HOME"]) / "suffice" / "chat_history"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = typed(Answers("fine"), (UP, UP, UP, ENTER))  # /exit is the newest
    assert again.engine.conversations == [["two\nlines"]]
    before = file.read_bytes()
    typed(Answers("fine"), "secret", history=False)
    assert file.read_bytes() == before


def test_the_history_is_bounded_and_a_folder_that_refuses_costs_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "history"
    history = InputHistory(file)
    for number in range(1100):
        history.append_string(f"input {number}")
    history.append_string("y")
    history.append_string("x" * 900_000)
    kept = [*InputHistory(file).load_history_strings()]
    assert len(kept) == 1000
    assert [kept[0][:1], *kept[1::998]] == ["x", "input 1099", "input 101"]
    InputHistory(file).append_string("y" * 200_000)
    assert [*map(len, InputHistory(file).load_history_strings())] == [200_000]
    refused = InputHistory(tmp_path / "history" / "below")
    refused.append_string("remembered in this run")
    assert "no history is kept" in capsys.readouterr().err
    assert refused.get_strings() == ["remembered in this run"]


def test_help_lists_every_command_in_both_languages(
    typed: Callable[..., Chat], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    chinese = typed(Answers(), "/help").said
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    both = typed(Answers(), "/help", "/帮助").said
    for word, command in COMMANDS.items():
        assert f"/{word}" in chinese
        assert command.chinese in chinese
        assert command.english in both
        assert command.chinese in both


def test_without_a_terminal_lines_are_plain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As under TERM=dumb: prompt_toolkit is not asked at all."""
    monkeypatch.setattr(sys, "stdin", io.StringIO('"""\na\n\nb\n"""\nc \\\nd\n'))
    monkeypatch.setattr(InferOptions, "open_engine", lambda self: engine)
    engine = Answers("fine")
    assert loop.chat(InferOptions()) == 0
    assert engine.conversations == [["a\n\nb"], ["a\n\nb", "fine", "c \nd"]]
    assert "> " in capsys.readouterr().out


def test_bytes_of_another_encoding_cost_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = io.TextIOWrapper(io.BytesIO("你好\n".encode("gbk") + b"hi\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", lines)
    engine = Answers("fine")
    monkeypatch.setattr(InferOptions, "open_engine", lambda self: engine)
    assert loop.chat(InferOptions()) == 0
    assert "what was typed is not UTF-8" in capsys.readouterr().err
