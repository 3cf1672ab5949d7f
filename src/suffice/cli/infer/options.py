"""The flags of `suffice infer`: what they are called, what they mean, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import click

from suffice.cli.command import Option, hub_option
from suffice.errors import UsageError

if TYPE_CHECKING:
    from suffice.engines.base import Message, Sampling
    from suffice.session import Request

__all__ = ["InferOptions", "infer_options", "parse_cap"]


@dataclass(frozen=True, slots=True)
class InferOptions:
    """The flags of `suffice infer`, as click reads them."""

    model: str | None
    adapters: tuple[str, ...]
    hub: str
    dtype: str
    device: str
    trust_remote_code: bool
    upstream: str | None
    tokenizer: str | None
    prompt: str | None
    dataset: tuple[str, ...]
    columns: tuple[str, ...]
    system: str | None
    max_new_tokens: str
    max_length: int | None
    tier: str | None
    length_model: str | None
    preset: str | None
    on_length: str | None
    first_reservation: str
    on_runaway: Literal["stop", "warn", "off"]
    max_thinking_tokens: int | None
    stop_words: tuple[str, ...]
    keep_stop_words: bool
    temperature: float | None
    top_p: float | None
    top_k: int | None
    repetition_penalty: float | None
    seed: int | None
    stream: bool
    output: str | None
    resume: bool
    overwrite: bool
    json: bool
    concurrency: int | None
    sort: bool

    def check(self) -> None:
        """Refuse flags that contradict each other.

        Raises:
            UsageError: with what contradicts and what to do.
        """
        if self.prompt is not None and self.dataset:
            raise UsageError("--prompt and --dataset exclude each other: give one of them")
        if self.dataset and not self.output:
            raise UsageError("--dataset needs --output FILE for the answers, for example --output answers.jsonl")
        if not self.dataset and (self.output or self.resume or self.overwrite):
            raise UsageError("--output, --resume and --overwrite go with --dataset")
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite exclude each other: give one of them")
        if self.upstream and self.adapters:
            raise UsageError(
                "--adapters cannot be loaded into a remote server: give it the adapter there, or leave out --upstream"
            )
        if self.dataset and self.json:
            raise UsageError("--json is for --prompt; with --dataset the output file is JSON Lines anyway")
        if self.tokenizer and not self.upstream:
            raise UsageError("--tokenizer goes with --upstream: a model that is loaded here has its own")
        parse_cap(self.max_new_tokens)
        parse_cap(self.first_reservation, "--first-reservation")

    def with_preset(self) -> InferOptions:
        """The flags with those that `--preset` stands for; a flag that was given wins.

        Raises:
            UsageError: there is no such preset.
        """
        if self.preset is None:
            return self
        from suffice.budget.settings import load_settings

        presets = load_settings().presets
        if self.preset not in presets:
            raise UsageError(f"--preset is {self.preset!r}; there are: {', '.join(presets)}")
        preset = presets[self.preset]
        return replace(
            self,
            tier=self.tier or preset.tier,
            temperature=preset.temperature if self.temperature is None else self.temperature,
            top_p=preset.top_p if self.top_p is None else self.top_p,
        )

    def sampling(self) -> Sampling:
        """The sampling flags; what was left out stays the model's own default."""
        from suffice.engines.base import Sampling

        return Sampling(self.temperature, self.top_p, self.top_k, self.repetition_penalty, self.seed)

    def request(self, messages: tuple[Message, ...]) -> Request:
        """The request for one conversation; `--system` counts where it has no system prompt of its own."""
        from suffice.prompt import Prompt
        from suffice.session import Request

        if self.system and not any(message["role"] == "system" for message in messages):
            messages = ({"role": "system", "content": self.system}, *messages)
        return Request(
            Prompt(messages),
            max_new_tokens=parse_cap(self.max_new_tokens),
            max_length=self.max_length,
            tier=self.tier,
            sampling=self.sampling(),
            stop_words=self.stop_words,
            keep_stop_words=self.keep_stop_words,
            reservation=self.reservation(),
            on_runaway=self.on_runaway,
            max_thinking_tokens=self.max_thinking_tokens,
        )

    def reservation(self) -> int | Literal["auto", "full"]:
        """Tokens to set aside at first.

        Raises:
            UsageError: two flags contradict each other.
        """
        first = parse_cap(self.first_reservation, "--first-reservation")
        if self.on_length != "stop":
            return first
        if first != "auto":
            raise UsageError(
                f"--first-reservation is {first} and --on-length is stop: a prediction never cuts an answer, so give "
                "--max-new-tokens to end it there, or --on-length continue"
            )
        return "full"

    @property
    def asks_on_length(self) -> bool:
        """Whether the chat asks if it should go on with a cut answer: so it does unless told otherwise."""
        return self.on_length in (None, "ask")


def parse_cap(value: str, flag: str = "--max-new-tokens") -> int | Literal["auto"]:
    """A number of tokens, or "auto".

    Raises:
        UsageError: it is neither.
    """
    if value.lower() == "auto":
        return "auto"
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(f"{flag} is {value!r}: give a number of tokens from 1, or auto")
    return int(value)


def infer_options() -> list[click.Parameter]:
    """The flags, group by group, as the help page shows them."""
    model, length, sampling = {"group": "Model"}, {"group": "Length"}, {"group": "Sampling"}
    what, output = {"group": "What to answer (nothing: chat)"}, {"group": "Output"}
    positive = click.IntRange(min=1)
    return [
        Option(
            ["--model"],
            **model,
            help="A folder, a hub id or a short id such as Qwen2.5-7B-Instruct. [default: the bundled model]",
        ),
        Option(
            ["--adapters"],
            multiple=True,
            **model,
            help="LoRA adapter folders, merged at load; they name their base model.",
        ),
        hub_option(**model),
        Option(
            ["--dtype"],
            type=click.Choice(["auto", "bfloat16", "float16", "float32"]),
            default="auto",
            show_default=True,
            **model,
            help="Precision of the weights; auto suits the device.",
        ),
        Option(
            ["--device"],
            default="auto",
            show_default=True,
            **model,
            help="cuda, cuda:1, cpu; auto takes a GPU when there is one.",
        ),
        Option(
            ["--trust-remote-code/--no-trust-remote-code"],
            default=False,
            **model,
            help="Run Python code that comes with the model. [default: no]",
        ),
        Option(
            ["--upstream"],
            metavar="URL",
            **model,
            help="Use an OpenAI-compatible server; its key is read from SUFFICE_API_KEY or OPENAI_API_KEY.",
        ),
        Option(
            ["--tokenizer"],
            metavar="MODEL",
            **model,
            help="The server's tokenizer (a folder or hub id), to count prompts and go on with answers exactly.",
        ),
        Option(["--prompt"], **what, help="Answer this and exit; - reads standard input."),
        Option(
            ["--dataset"],
            multiple=True,
            metavar="FILE[#N]",
            **what,
            help="json, jsonl, csv, parquet or txt; #N takes N rows. Several may be given.",
        ),
        Option(
            ["--columns"],
            multiple=True,
            metavar="NAME=OURS",
            **what,
            help="Names of your columns, for example ask=query reply=response.",
        ),
        Option(["--system"], **what, help="System prompt, where a conversation has none."),
        Option(
            ["--max-new-tokens"],
            default="auto",
            show_default=True,
            **length,
            help="The most tokens an answer may have, or auto: decided for each prompt and explained.",
        ),
        Option(
            ["--max-length", "--max-model-len"],
            type=positive,
            **length,
            help="The most tokens that prompt and answer have together. [default: the model's context]",
        ),
        Option(["--tier"], **length, help="A named cap: short 128, standard 512, long 1024, unlimited 2048."),
        Option(
            ["--length-model"],
            metavar="DIR",
            **length,
            help="What `suffice fit` wrote: expects lengths from your own answers. [default: the packaged model]",
        ),
        Option(
            ["--preset"],
            metavar="NAME",
            **length,
            help="short, standard or long: a tier's cap, and the temperature and top_p that go with it.",
        ),
        Option(
            ["--on-length"],
            type=click.Choice(["continue", "ask", "stop"]),
            **length,
            help="At the end of the first reservation go on, unnoticed, up to the cap; ask also at the cap (in the "
            "chat); or stop reserving less than the cap. [default: ask in the chat, else continue]",
        ),
        Option(
            ["--first-reservation"],
            default="auto",
            show_default=True,
            metavar="auto|N",
            **length,
            help="Tokens to set aside at first; auto: what 9 of 10 such answers take, where the engine charges for it.",
        ),
        Option(
            ["--on-runaway"],
            type=click.Choice(["stop", "warn", "off"]),
            default="stop",
            show_default=True,
            **length,
            help="When an answer becomes a loop: stop it and keep the loop's first turn, warn only, or do not look.",
        ),
        Option(
            ["--max-thinking-tokens"],
            type=click.IntRange(min=0),
            **length,
            help="The most tokens of thinking, on top of the answer's; then the answer is written. "
            "[default: three quarters of the answer's]",
        ),
        Option(
            ["--stop-words"],
            multiple=True,
            **length,
            help="End the answer at any of these strings, which are removed from it.",
        ),
        Option(
            ["--keep-stop-words/--no-keep-stop-words"],
            default=False,
            **length,
            help="Leave the stop word in the answer. [default: no]",
        ),
        Option(
            ["--temperature"],
            type=click.FloatRange(min=0),
            **sampling,
            help="0 always takes the likeliest token. [default: the model's own]",
        ),
        Option(
            ["--top-p"],
            type=click.FloatRange(min=0, max=1, min_open=True),
            **sampling,
            help="Keep the likeliest tokens up to this probability. [default: the model's own]",
        ),
        Option(
            ["--top-k"],
            type=click.IntRange(min=0),
            **sampling,
            help="Keep this many of the likeliest tokens; 0 keeps all. [default: the model's own]",
        ),
        Option(
            ["--repetition-penalty"],
            type=click.FloatRange(min=0, min_open=True),
            **sampling,
            help="Above 1 makes used tokens less likely. [default: the model's own]",
        ),
        Option(["--seed"], type=int, **sampling, help="Makes sampling repeatable, and chooses the rows of FILE#N."),
        Option(
            ["--stream/--no-stream"], default=True, **output, help="Show the answer as it is written. [default: yes]"
        ),
        Option(["--json"], is_flag=True, **output, help="Print one JSON object per answer instead of text."),
        Option(
            ["--output"],
            metavar="FILE",
            **output,
            help="Answers to --dataset, one JSON object a line, written as they come.",
        ),
        Option(
            ["--resume"],
            is_flag=True,
            **output,
            help="Go on with an output file: answered rows are kept, failed ones tried again.",
        ),
        Option(["--overwrite"], is_flag=True, **output, help="Replace an output file that exists."),
        Option(["--concurrency"], type=positive, **output, help="Rows answered at once. [default: 64, on a server 16]"),
        Option(
            ["--sort/--no-sort"],
            default=True,
            **output,
            help="Start with the rows whose answers are expected to be longest. [default: yes]",
        ),
    ]
