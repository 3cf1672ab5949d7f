"""The flags of `suffice infer`: what they are called, what they mean, and which of them go together."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from suffice.checkpoints.model_source import DTYPES
from suffice.cli.command import OneOf, Option, TokenLimit, number_type, options_of
from suffice.cli.notes import tell
from suffice.engines.base import Sampling, SamplingField
from suffice.engines.settings import (
    ENGINE,
    ENGINE_ARGS,
    ENGINE_PYTHON,
    ENGINE_SETTINGS,
    KV_TOKENS,
    MEMORY_UTILIZATION,
    TENSOR_PARALLEL_SIZE,
)
from suffice.errors import UsageError
from suffice.nearest import did_you_mean
from suffice.settings import setting

if TYPE_CHECKING:
    from suffice.budget.types import Preset
    from suffice.engines.base import Engine
    from suffice.engines.patience import PatientEngine
    from suffice.prompt import Message
    from suffice.session import Request, Session

__all__ = ["InferOptions", "infer_options", "options_from"]

_MODEL, _WHAT, _LENGTH = "Model", "What to answer (nothing: chat)", "Length"
_SAMPLING, _OUTPUT = "Sampling", "Output"
_ENGINE_FLAGS = ("upstream", "tokenizer", "trust_remote_code", *ENGINE_SETTINGS)
"""Flags that engines get, those of them that have such a setting."""
_ON_LENGTH: dict[str, tuple[str, dict[str, Any]]] = {
    "continue": ("--no-ask-on-length", {"ask_on_length": False}),
    "ask": ("--ask-on-length", {"ask_on_length": True}),
    "stop": ("--reservation full", {"ask_on_length": False, "reservation": "full"}),
}
"""What the values of the old flag `--on-length` are called now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InferOptions:
    """The flags of `suffice infer`; `answers=False` marks those that change no answer."""

    model: str | None = setting(None, _MODEL, "A folder, or an id such as Qwen2.5-7B-Instruct. [default: bundled]")
    adapters: tuple[str, ...] = setting((), _MODEL, "LoRA folders, merged at load; they name the base model.")
    hub: str = setting("hf", _MODEL, "Where hub ids are fetched from.", choices=("hf", "modelscope"))
    dtype: str = setting("auto", _MODEL, "Precision of the weights; auto suits the device.", choices=DTYPES)
    device: str = setting("auto", _MODEL, "cuda, cuda:1 or cpu; auto takes a GPU when there is one.")
    trust_remote_code: bool = setting(False, _MODEL, "Run Python code that comes with the model.")
    upstream: str | None = setting(
        None, _MODEL, "An OpenAI-compatible server; SUFFICE_API_KEY or OPENAI_API_KEY is its key.", metavar="URL"
    )
    tokenizer: str | None = setting(
        None, _MODEL, "The server's tokenizer, to count prompts and continue exactly.", metavar="MODEL", answers=False
    )
    engine: str | None = setting(**ENGINE)
    engine_python: str | None = setting(**ENGINE_PYTHON, answers=False)
    engine_args: str = setting(**ENGINE_ARGS)
    tensor_parallel_size: int = setting(**TENSOR_PARALLEL_SIZE)
    memory_utilization: float | None = setting(**MEMORY_UTILIZATION, answers=False)
    kv_tokens: int | None = setting(
        **KV_TOKENS, text="Size of the KV cache. [default: what the work needs]", answers=False
    )
    prompt: str | None = setting(None, _WHAT, "Answer this and exit; - reads standard input.", answers=False)
    dataset: tuple[str, ...] = setting(
        (), _WHAT, "Files: json, jsonl, csv, parquet or txt; #N takes N rows.", metavar="FILE[#N]", answers=False
    )
    columns: tuple[str, ...] = setting(
        (), _WHAT, "Names of your columns, for example ask=query reply=response.", metavar="NAME=OURS", answers=False
    )
    system: str | None = setting(None, _WHAT, "System prompt for conversations that have none.")
    max_new_tokens: int | Literal["auto"] = setting(
        "auto",
        _LENGTH,
        "The most tokens that an answer may have, or auto: decided for each prompt, and explained.",
        type=TokenLimit("auto"),
    )
    max_length: int | None = setting(
        None,
        _LENGTH,
        "The most tokens that prompt and answer may have together. [default: the model's context]",
        aliases=("--max-model-len",),
        unit="tokens",
    )
    tier: str | None = setting(None, _LENGTH, "A named cap: short 128, standard 512, long 1024, unlimited 2048.")
    length_model: str | None = setting(
        None, _LENGTH, "A folder that `suffice fit` wrote, from your own answers. [default: packaged]", metavar="DIR"
    )
    preset: str | None = setting(  # what it stands for is among the others
        None,
        _LENGTH,
        "short, medium or long: limits, and the temperature and top_p that go with them.",
        metavar="NAME",
        answers=False,
    )
    reservation: int | Literal["auto", "full"] = setting(
        "auto",
        _LENGTH,
        "Tokens to set aside at first; an answer that needs more is continued, unnoticed, up to its cap. auto: what "
        "9 of 10 such answers take, where the engine charges for it; full: the whole cap at once.",
        type=TokenLimit("auto", "full"),
        answers=False,
    )
    ask_on_length: bool = setting(
        True, _LENGTH, "In the chat, ask whether to continue an answer that its cap has cut.", answers=False
    )
    on_runaway: Literal["stop", "warn", "off"] = setting(
        "stop",
        _LENGTH,
        "When an answer repeats itself to the letter: stop it, only warn, or do not look for loops.",
        choices=("stop", "warn", "off"),
    )
    max_thinking_tokens: int | None = setting(
        None,
        _LENGTH,
        "The most tokens of thinking, added to the answer's. [default: 3/4 of the answer's]",
        minimum=0,
        unit="tokens",
    )
    stop_words: tuple[str, ...] = setting((), _LENGTH, "End the answer before any of these strings.")
    keep_stop_words: bool = setting(False, _LENGTH, "Leave the stop word in the answer.")
    sampling: Sampling = setting(Sampling(), flag=None)
    """Its flags are made of what `Sampling` says of each parameter."""
    stream: bool = setting(True, _OUTPUT, "Show the answer as it is written.", answers=False)
    raw: bool = setting(
        False,
        _OUTPUT,
        "Let control characters in an answer act on the terminal; without it, they are written out.",
        switch=True,
        answers=False,
    )
    history: bool = setting(
        True, _OUTPUT, "In the chat, remember what was typed for the arrow keys of the next run.", answers=False
    )
    json: bool = setting(False, _OUTPUT, "Print a JSON object instead of text.", switch=True, answers=False)
    output: str | None = setting(
        None,
        _OUTPUT,
        "JSON Lines with the answers to --dataset, written as they come. [default: output/infer-DATASET-TIME.jsonl]",
        metavar="FILE",
        answers=False,
    )
    resume: bool = setting(
        False,
        _OUTPUT,
        "Continue an output file (without --output the latest one of this dataset); rows that failed are tried again.",
        switch=True,
        answers=False,
    )
    overwrite: bool = setting(False, _OUTPUT, "Replace an output file that exists.", switch=True, answers=False)
    output_format: Literal["auto", "suffice", "openai"] = setting(
        "auto",
        _OUTPUT,
        "Lines of the output file: our own, or OpenAI's batch format; auto: that of the dataset.",
        choices=("auto", "suffice", "openai"),
        answers=False,
    )
    metric: Literal["acc", "rouge"] | None = setting(
        None,
        _OUTPUT,
        "Score answers by the references in their rows: acc, the same text; rouge, ROUGE-1, -2 and -L.",
        choices=("acc", "rouge"),
        answers=False,
    )
    concurrency: int | None = setting(
        None, _OUTPUT, "Rows answered at once. [default: 64, on a server 16]", minimum=1, answers=False
    )
    max_wait: float | None = setting(
        None,
        _OUTPUT,
        "Seconds that a row waits in all for a server that is busy (429 or 503, as long as it says or longer each "
        "time). [default: 600, with --prompt 30]",
        minimum=0,
        answers=False,
    )
    sort: bool = setting(True, _OUTPUT, "Start with the rows whose answers are expected to be longest.", answers=False)

    def check(self) -> None:
        """Raises a UsageError for flags that contradict each other, with what to do."""
        for flag, text in (("--prompt", self.prompt), ("--system", self.system)):
            if text is not None and not text.isascii():
                _check_encoding(flag, text)
        if self.prompt is not None and self.dataset:
            raise UsageError("--prompt and --dataset exclude each other: give one of them")
        if not self.dataset and (self.output or self.resume or self.overwrite):
            raise UsageError("--output, --resume and --overwrite need --dataset")
        if self.overwrite and not self.output:
            raise UsageError("--overwrite needs --output FILE: without it, every run writes a file of its own")
        if not self.dataset and (self.metric or self.output_format != "auto"):
            raise UsageError("--metric and --output-format need --dataset")
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite exclude each other: give one of them")
        if self.upstream and self.adapters:
            raise UsageError(
                "--adapters cannot be loaded into a remote server: load the adapter there, or leave out --upstream"
            )
        if self.dataset and self.json:
            raise UsageError("--json is for --prompt; with --dataset the output file is JSON Lines anyway")
        if self.tokenizer and not self.upstream:
            raise UsageError("--tokenizer needs --upstream: a model that is loaded here has its own")

    def with_preset(self, given: Collection[str] = ()) -> InferOptions:
        """The flags with those that `--preset` stands for; `given`, the names of those that the user gave, win.

        A cap of the user's own, by number or by tier, takes the place of the preset's.

        Raises:
            UsageError: there is no such preset.
        """
        if self.preset is None:
            return self
        preset, sampling = _preset(self.preset), self.sampling
        own_cap = self.tier is not None or self.max_new_tokens != "auto" or "max_new_tokens" in given
        names = ("max_length",) if own_cap else ("max_new_tokens", "tier", "max_length")
        limits = {name: getattr(preset, name) for name in names if getattr(preset, name) is not None}
        if self.max_length is not None:
            limits.pop("max_length", None)
        temperature = preset.temperature if sampling.temperature is None else sampling.temperature
        top_p = preset.top_p if sampling.top_p is None else sampling.top_p
        return replace(self, **limits, sampling=replace(sampling, temperature=temperature, top_p=top_p))

    def open_engine(self) -> Engine:
        """The engine that the flags name, not yet entered. Raises as `suffice.engines.open_engine`."""
        from suffice.engines import MANAGED, open_engine

        if self.upstream and self.engine in (None, "auto"):
            return open_engine(self.model, upstream=self.upstream, tokenizer=self.tokenizer)
        kind = self._engine_kind()
        if self.model is None and not self.adapters and kind in ("transformers", "local"):
            tell("notice: no --model given, so this is the bundled toy model, suffice-tiny")
        settings = {
            name: getattr(self, name) for name in (*ENGINE_SETTINGS, "upstream", "tokenizer", "trust_remote_code")
        }
        if kind in MANAGED:
            settings |= {"context_tokens": self.max_length, "tell": partial(_say, kind)}
        chats = not self.dataset and self.prompt is None and sys.stdin.isatty()
        settings |= {"cache_for_work": not chats, "concurrency": 1 if chats else None, "notify": tell}
        return open_engine(self.model, engine=kind, **settings)

    def _engine_kind(self) -> str:
        """The engine that was asked for, or the one that is chosen, which is said where there is a choice."""
        from suffice.engines import settle_engine

        kind, reason = settle_engine(
            self.engine, self.model, adapters=self.adapters, device=self.device, engine_python=self.engine_python
        )
        if reason:
            tell(f"notice: {reason}")
        return kind

    def open_patient_engine(self, usual_wait: float, on_wait: Callable[[], None]) -> PatientEngine:
        """The same, which waits for a server that is busy: `--max-wait` seconds, or what is usual."""
        from suffice.engines.patience import PatientEngine

        max_wait = usual_wait if self.max_wait is None else self.max_wait
        return PatientEngine(self.open_engine(), max_wait=max_wait, on_wait=on_wait)

    def session(self, engine: Engine) -> Session:
        """A session on `engine`; an adapter's length profile, where it has one, takes part in *auto* budgets."""
        from suffice.budget import Budgeter
        from suffice.session import Session

        budgeter = Budgeter.load(length_model=Path(self.length_model) if self.length_model else None)
        return Session(engine, budgeter.with_profiles(self.adapters))

    def request(self, messages: tuple[Message, ...]) -> Request:
        """The request for one conversation; `--system` counts where it has no system prompt of its own."""
        from suffice.prompt import Prompt
        from suffice.session import Request

        if self.system and not any(message["role"] == "system" for message in messages):
            messages = ({"role": "system", "content": self.system}, *messages)
        return Request(
            Prompt(messages),
            max_new_tokens=self.max_new_tokens,
            max_length=self.max_length,
            tier=self.tier,
            sampling=self.sampling,
            stop_words=self.stop_words,
            keep_stop_words=self.keep_stop_words,
            reservation=self.reservation,
            on_runaway=self.on_runaway,
            max_thinking_tokens=self.max_thinking_tokens,
        )


def _preset(name: str) -> Preset:
    from suffice.budget.settings import load_settings

    presets = load_settings().presets
    if name == "standard" and name not in presets:
        tell("notice: --preset standard is called medium now")
        name = "medium"
    if name not in presets:
        raise UsageError(f"--preset is {name!r}; there are: {', '.join(presets)}{did_you_mean(name, presets)}")
    return presets[name]


def _check_encoding(flag: str, text: str) -> None:
    """Refuse what the shell has handed over in another encoding, which Python keeps as halves of characters."""
    from suffice.data.encodings import decode_text

    decode_text(os.fsencode(text), flag)


def _say(engine: str, step: str) -> None:
    """One step of a server's start."""
    tell(f"{engine}: {step}")


def infer_options() -> list[click.Parameter]:
    """The flags in the order of the help page, and those that have other names now."""
    own = options_of(InferOptions)
    place = next(place for place, option in enumerate(own) if isinstance(option, Option) and option.group == _OUTPUT)
    old: dict[str, Any] = {"group": _LENGTH, "hidden": True}
    return [
        *own[:place],
        *map(_sampling_option, Sampling.fields()),
        *own[place:],
        Option(["--on-length"], type=OneOf(list(_ON_LENGTH)), **old, help="--ask-on-length"),
        Option(["--first-reservation"], type=TokenLimit("auto"), **old, help="--reservation"),
    ]


def _sampling_option(each: SamplingField) -> Option:
    kind = number_type(each.type, each.low, each.high, above=each.open_low)
    default = "" if each.low is None else " [default: the model's own]"
    text = each.help + (" Chooses the rows of FILE#N, too." if each.name == "seed" else default)
    return Option([f"--{each.name.replace('_', '-')}"], type=kind, group=_SAMPLING, help=text)


def options_from(flags: dict[str, Any]) -> InferOptions:
    """What click has read, with a notice for each flag that has another name now."""
    sampling = Sampling(**{each.name: flags.pop(each.name) for each in Sampling.fields()})
    return InferOptions(**_with_new_names(flags), sampling=sampling)


def _with_new_names(flags: dict[str, Any]) -> dict[str, Any]:
    on_length, first = flags.pop("on_length"), flags.pop("first_reservation")
    if on_length == "stop" and first not in (None, "auto"):
        raise UsageError(
            f"--first-reservation is {first} and --on-length is stop: a prediction never cuts an answer, so give "
            "--max-new-tokens to end it there, or leave out --on-length"
        )
    given = []
    if first is not None:
        given.append((f"--first-reservation {first}", f"--reservation {first}", {"reservation": first}))
    if on_length is not None:
        given.append((f"--on-length {on_length}", *_ON_LENGTH[on_length]))
    for old, new, values in given:
        tell(f"notice: {old} is deprecated: use {new}")
        flags |= values
    return flags
