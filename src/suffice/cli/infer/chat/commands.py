"""What the chat does by command. One entry of `COMMANDS` is a command: its help in both languages comes from there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from suffice.budget import Limits
from suffice.cli.command import TokenLimit
from suffice.cli.infer.chat.answer_settings import changed, listed, settable, shown
from suffice.cli.infer.chat.dialogue import Dialogue
from suffice.cli.infer.chat.saved import load, save
from suffice.cli.infer.chat.talk import Talk
from suffice.cli.infer.chat.texts import unquoted
from suffice.cli.notes import note
from suffice.errors import UsageError
from suffice.nearest import did_you_mean

__all__ = ["COMMANDS", "KNOWN", "choices", "prefers_chinese", "run_command"]


@dataclass(frozen=True, slots=True)
class ChatCommand:
    run: Callable[[Talk, str], None]
    argument: str
    """As help shows it; in brackets where it can be left out, '' where there is none."""
    english: str
    chinese: str


def run_command(talk: Talk, word: str, rest: str) -> None:
    """Raises: UsageError: it needs an argument, or takes none; and what the command raises."""
    command = _CHINESE_HELP if word == "帮助" else COMMANDS[_ALIASES.get(word, word)]
    if rest and not command.argument:
        raise UsageError(f"/{word} takes nothing behind it; a space before it makes it a message")
    if not rest and command.argument and not command.argument.startswith("["):
        raise UsageError(f"/{word} needs {command.argument}")
    command.run(talk, rest)


def choices(talk: Talk, word: str) -> Iterable[str] | None:
    """What may stand behind a command, for completion; None for files."""
    match word:
        case "set":
            return sorted(settable())
        case "budget":
            return ["auto"]
        case "model":
            return talk.listed_models
        case "save" | "load":
            return None
    return ()


def prefers_chinese() -> bool:
    """Whether the environment's language is Chinese."""
    given = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return next(filter(None, given), "").lower().startswith("zh")


def _help(talk: Talk, rest: str) -> None:
    note(_help_text(chinese=prefers_chinese()))


def _help_in_chinese(talk: Talk, rest: str) -> None:
    note(_help_text(chinese=True))


def _help_text(*, chinese: bool) -> str:
    lines = [
        f"{f'/{word} {each.argument}':18} {each.chinese if chinese else each.english}"
        for word, each in COMMANDS.items()
    ]
    return "\n".join([*lines, _KEYS_CHINESE if chinese else _KEYS])


def _leave(talk: Talk, rest: str) -> None:
    raise EOFError


def _clear(talk: Talk, rest: str) -> None:
    talk.change(Dialogue(system=talk.dialogue.system))
    note("(forgotten; /undo brings it back)")


def _system(talk: Talk, rest: str) -> None:
    again = "; the conversation is forgotten, /undo brings it back" if talk.dialogue.messages else ""
    talk.change(Dialogue(system=rest or None))
    note(f"(system prompt: {rest or 'none'}{again})")


def _budget(talk: Talk, rest: str) -> None:
    if rest:
        talk.options = replace(talk.options, max_new_tokens=TokenLimit("auto").convert(rest, None, None))
        note(f"(max_new_tokens: {talk.options.max_new_tokens})")
        return
    asked = talk.dialogue.asking(talk.unanswered) if talk.unanswered else talk.dialogue.without_answer()
    if not asked.messages:
        note("(nothing has been asked yet)")
        return
    budget = talk.runner.run(talk.session.decide(talk.request(asked)))
    note(f"budget {budget.max_new_tokens}, expected {budget.expected_tokens} tokens:")
    for reason in budget.reasons:
        note(f"  - {reason}")


def _set(talk: Talk, rest: str) -> None:
    if not rest:
        note(listed(talk.options))
        return
    name, value, options = changed(talk.options, rest)
    request = options.request(({"role": "user", "content": "hi"},))
    request.check()
    talk.session.budgeter.decide(request.prompt, Limits(max_new_tokens=request.max_new_tokens, tier=request.tier))
    talk.options = options
    note(f"({name}: {shown(value)})")


def _continue(talk: Talk, rest: str) -> None:
    if talk.dialogue.unfinished:
        talk.answer(talk.dialogue)
    elif talk.unanswered:
        note("(there is no answer to continue: /retry sends your last message again)")
    elif talk.dialogue.answered:
        note("(the last answer ended by itself; /retry asks for another one)")
    else:
        note("(there is no answer to continue)")


def _retry(talk: Talk, rest: str) -> None:
    if not talk.unanswered and not talk.dialogue.answered:
        note("(nothing has been asked yet)")
        return
    sampling = talk.options.sampling
    if sampling.seed is not None and not talk.unanswered:  # the same one would draw the same answer
        talk.options = replace(talk.options, sampling=replace(sampling, seed=sampling.seed + 1))
        note(f"(seed: {sampling.seed + 1})")
    waiting = talk.unanswered
    talk.answer(talk.dialogue.asking(waiting) if waiting else talk.dialogue.without_answer())


def _undo(talk: Talk, rest: str) -> None:
    if not talk.past:
        note("(there is nothing to undo)")
        return
    talk.dialogue = talk.past.pop()
    note(f"(undone: the conversation has {_turns(talk.dialogue.turns)})")


def _drop(talk: Talk, rest: str) -> None:
    number = _number("/drop", rest or "1")
    if number > talk.dialogue.turns:
        raise UsageError(f"the conversation has {_turns(talk.dialogue.turns)}, not {number}")
    talk.change(talk.dialogue.without_oldest(number))
    note(f"(dropped: {_turns(talk.dialogue.turns)} left; /undo brings them back)")


def _save(talk: Talk, rest: str) -> None:
    if not talk.dialogue.messages:
        raise UsageError("there is no conversation to save yet")
    path, row = save(Path(unquoted(rest)).expanduser(), talk.dialogue, talk.engine.model_name)
    note(f"(saved as row {row} of {path}; /load {path} brings it back)")


def _load(talk: Talk, rest: str) -> None:
    name, _, number = rest.rpartition(" ")
    if not (name and number.isdecimal()):
        name, number = rest, ""
    dialogue, row, rows = load(unquoted(name), int(number) if number else None)
    talk.load(dialogue)
    waiting = "; its last message has no answer: /retry asks for one" if talk.unanswered else ""
    note(f"(row {row} of {rows}: {_turns(dialogue.turns)}{waiting}; /undo goes back)")


def _model(talk: Talk, rest: str) -> None:
    listed, name = talk.listed_models, unquoted(rest)
    if not name:
        note(f"(model: {talk.engine.model_name})")
        if listed:
            note(f"(the server lists: {', '.join(listed)})")
        return
    if listed and name not in listed:
        note(f"(the server does not list {name}{did_you_mean(name, listed)})")
        if not talk.agrees("use it anyway?"):
            return
    if talk.options.adapters:
        note("(the adapters belong to the model before, and go with it)")
    talk.switch(replace(talk.options, model=name, adapters=(), tokenizer=None))
    note(f"(model: {talk.engine.model_name}; the conversation goes on)")


def _turns(number: int) -> str:
    return "1 turn" if number == 1 else f"{number} turns"


def _number(what: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{what} is {text!r}: give a number from 1")
    return int(text)


COMMANDS = {
    "help": ChatCommand(_help, "", "this list (/帮助 in Chinese)", "本列表"),
    "budget": ChatCommand(
        _budget,
        "[N|auto]",
        "the most tokens of an answer; alone: the budget of the last message, with its reasons",
        "回答最多多少 token；单独使用：上一条消息的预算和理由",
    ),
    "set": ChatCommand(
        _set,
        "[NAME VALUE]",
        "another temperature, tier, stop word ...; alone: all settings",
        "修改 temperature、tier、停止词等；单独使用：列出全部设置",
    ),
    "continue": ChatCommand(_continue, "", "continue an answer that did not end by itself", "继续没有自行结束的回答"),
    "retry": ChatCommand(
        _retry,
        "",
        "answer the last message again, or send one that got no answer",
        "重新回答上一条消息，或重发没有得到回答的消息",
    ),
    "undo": ChatCommand(_undo, "", "take back the last change of the conversation", "撤销对话的上一次改变"),
    "clear": ChatCommand(_clear, "", "forget the conversation", "清空对话"),
    "drop": ChatCommand(_drop, "[N]", "forget the oldest turn, or the N oldest", "忘掉最早的一轮或 N 轮"),
    "system": ChatCommand(
        _system,
        "[TEXT]",
        "set the system prompt (alone: remove it) and forget the conversation",
        "设定系统提示词（单独使用：去掉）并清空对话",
    ),
    "model": ChatCommand(
        _model,
        "[NAME]",
        "another model goes on with the conversation; alone: which one answers",
        "换一个模型继续对话；单独使用：显示当前模型",
    ),
    "save": ChatCommand(
        _save,
        "FILE",
        "add the conversation to a file, a row that sft reads",
        "把对话加进文件，每个对话一行，sft 可以读取",
    ),
    "load": ChatCommand(
        _load, "FILE [ROW]", "go on with a saved conversation (the last row)", "载入保存的对话（默认最后一行）"
    ),
    "exit": ChatCommand(_leave, "", "leave; so do exit, quit and Ctrl-D", "离开；exit、quit 和 Ctrl-D 也可以"),
}
_ALIASES = {"quit": "exit", "?": "help", "退出": "exit"}
_CHINESE_HELP = ChatCommand(_help_in_chinese, "", "", "")
KNOWN = (*COMMANDS, *_ALIASES, "帮助")
_KEYS = """\
Ctrl-C stops an answer, or clears what is typed. Alt-Enter begins a new line, and so do \\ at a line's end and Enter
between two lines of \"\"\". Tab completes commands; the arrow keys bring earlier messages back."""
_KEYS_CHINESE = """\
Ctrl-C 停止回答，或清除已输入的内容。Alt-Enter 换行；行尾的 \\ 之后、两行 \"\"\" 之间，Enter 也是换行。
Tab 补全命令；方向键找回以前的消息。"""
