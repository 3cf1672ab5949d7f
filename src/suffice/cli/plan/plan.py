"""`suffice plan`: what fits on a card, for answering and for training; no model is loaded."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from suffice.cli.command import Command, options_of
from suffice.cli.notes import tell
from suffice.errors import ModelError, UsageError
from suffice.settings import setting

if TYPE_CHECKING:
    from suffice.memory import TrainingForecast
    from suffice.memory.cards import Card, KnownModel
    from suffice.memory.plan import ServingQuestion

__all__ = ["command"]

_EXAMPLES = """
suffice plan --model Qwen2.5-7B-Instruct --gpu 4090 --max_length 32k --concurrency 20
suffice plan --model Qwen2.5-7B-Instruct --gpu 4090 --used 22GiB --max_new_tokens 2048
suffice plan --model Qwen2.5-7B-Instruct --gpu 4090 --lengths trace.csv.gz --max_new_tokens 2048 --price 0.4
suffice plan --model Qwen3-30B-A3B --memory 24GiB --weight_bits 4 --kv_bits 8 --plot plan.png
suffice plan --model Llama-3.1-70B-Instruct --gpu 4090 x8 --max_length 8k --concurrency 16
suffice plan --model Qwen2.5-7B-Instruct --gpu 4090 --train lora --max_length 2048
"""
_MODEL, _CARD, _QUESTION, _TRAINING, _OUTPUT = "Model", "Card", "Question", "Training", "Output"
_BITS = (32, 16, 8, 4)
_PART_OF_A_CARD = re.compile(
    r"[x×*]?\d+[x×*]?|[x×*]|d|ti|super|ada|sxm|pcie|\d+gb?|(geforce|rtx|[ahlbt]\d+|\d{4}).*", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanOptions:
    model: str = setting("", _MODEL, "A name such as Qwen2.5-7B-Instruct, a folder, or a hub id.", required=True)
    weight_bits: int | None = setting(
        None, _MODEL, "Bits per weight. [default: the model's own, else 16]", choices=_BITS
    )
    kv_bits: int = setting(16, _MODEL, "Bits per value of the KV cache.", choices=_BITS)
    gpu: str | None = setting(
        None, _CARD, "A card, or several: 4090, '4090 x2', 8xh200 ... [default: the one that is here]"
    )
    tp: int | None = setting(
        None,
        _CARD,
        "Cards that share the model (tensor parallelism). [default: all that --gpu names]",
        minimum=1,
        maximum=64,
        aliases=("--tensor-parallel-size",),
    )
    memory: str | None = setting(None, _CARD, "Memory instead of a card's name, such as 24GiB.", metavar="SIZE")
    used: str | None = setting(None, _CARD, "What other programs take of it, such as 22GiB.", metavar="SIZE")
    utilization: float = setting(
        0.9, _CARD, "Share of the card to use; with --used, all that is left is used.", above=0, maximum=1
    )
    concurrency: int | None = setting(None, _QUESTION, "Requests that should run at once.", minimum=1)
    max_length: int | None = setting(None, _QUESTION, "Prompt and answer together, such as 32k.", unit="tokens")
    max_new_tokens: tuple[int, ...] = setting((), _QUESTION, "Limits of answers, one or several.", unit="tokens")
    prompt_tokens: tuple[int, ...] = setting((), _QUESTION, "Lengths of prompts, one or several.", unit="tokens")
    lengths: Path | None = setting(
        None,
        _QUESTION,
        "Real lengths: CSV or JSONL (.gz) with prompt_tokens and output_tokens, or an adapter's folder.",
        type=click.Path(path_type=Path),
        metavar="FILE",
    )
    price: float | None = setting(None, _QUESTION, "The card's price per hour, for that of 1,000 answers.", minimum=0)
    train: Literal["lora", "qlora", "full"] | None = setting(
        None, _TRAINING, "Plan training instead.", choices=("lora", "qlora", "full")
    )
    batch_size: int = setting(1, _TRAINING, "Rows per forward pass.", minimum=1)
    lora_rank: int = setting(8, _TRAINING, "Rank of the adapter.", minimum=1)
    gradient_checkpointing: bool = setting(True, _TRAINING, "Compute activations twice instead of keeping them.")
    json: bool = setting(False, _OUTPUT, "Print one JSON object.", switch=True)
    plot: Path | None = setting(None, _OUTPUT, "A picture: .png, .svg or .pdf.", metavar="FILE")


def _run(**flags: Any) -> int:
    """Say what fits into memory before anything is loaded, and what to change if it does not.

    Knows over a hundred models without a network, and any other by its config.json, in a folder or on the hub.
    """
    from suffice.memory.device import parse_bytes

    options = PlanOptions(**flags)
    model, (device, count) = _model(options.model), _cards(options)
    used = parse_bytes(options.used) if options.used else 0
    fits = (_plan_training if options.train else _plan_serving)(model, device, count, used, options)
    if options.plot is not None:
        tell(f"picture: {options.plot}")
    return 0 if fits else 1


def _cards(options: PlanOptions) -> tuple[Card, int]:
    """The card, and how many of it share the model."""
    from suffice.memory.cards import Card, card_here, cards_of
    from suffice.memory.device import parse_bytes

    if options.gpu:
        named, there = cards_of(options.gpu)
    else:
        named, there = card_here() if options.memory is None else Card("the card", 0), 1
    if options.memory is not None:
        named = replace(named, memory=parse_bytes(options.memory))
    used = options.tp or there
    if used > there > 1:
        raise UsageError(f"--tp {used} needs {used} cards, and --gpu {options.gpu!r} names {there}")
    if used < there:
        copies = f", and {there} hold {there // used} such copies" if there // used > 1 else ""
        tell(f"note: planned for one copy of the model on {used} of {there} cards{copies}")
    return named, used


def _plan_serving(model: KnownModel, device: Card, count: int, used: int, options: PlanOptions) -> bool:
    """Print the plan, and say whether what was asked for fits."""
    from suffice.cli.plan.terminal import plan_lines
    from suffice.memory.plan import make_plan

    plan = make_plan(_question(model, device, count, used, options))
    if options.json:
        record = plan.to_dict()
        if options.price is not None and plan.speed is not None:
            record["price_per_1000_answers"] = plan.speed.cost(options.price * count)
        print(json.dumps(record, ensure_ascii=False))
    else:
        print("\n".join(plan_lines(plan, options.price)))
    if options.plot is not None:
        from suffice.cli.plan.plot import plot_plan

        plot_plan(plan, options.plot)
    return plan.fits


def _question(model: KnownModel, device: Card, count: int, used: int, options: PlanOptions) -> ServingQuestion:
    from suffice.cli.plan.lengths import lengths_of
    from suffice.memory.inference import Serving
    from suffice.memory.parameters import stored_weight_bits
    from suffice.memory.plan import ServingQuestion

    prompts, answers = options.prompt_tokens, options.max_new_tokens
    bits = options.weight_bits or model.weight_bits or stored_weight_bits(model.config)
    chosen: dict[str, Any] = {name: given for name, given in (("prompts", prompts), ("answers", answers)) if given}
    return ServingQuestion(
        model,
        device,
        Serving(weight_bits=bits, kv_bits=options.kv_bits),
        used=used,
        utilization=options.utilization,
        concurrency=options.concurrency,
        max_length=options.max_length,
        lengths=lengths_of(options.lengths, (*prompts, 512)[0]) if options.lengths else None,
        cards=count,
        **chosen,
    )


def _plan_training(model: KnownModel, device: Card, count: int, used: int, options: PlanOptions) -> bool:
    """Print the forecast, and say whether it fits."""
    from suffice.cli.plan.terminal import training_lines
    from suffice.memory import what_would_fit

    if count > 1:
        raise UsageError(f"--train plans one card, and {count} are given: training splits no model over several")
    free, forecast = device.memory - used, _forecast(model, str(options.train), options)
    fits = forecast.total <= free
    changes = [each.change for each in what_would_fit(model.config, forecast.setup, free)]
    if options.train == "full" and not fits:
        smaller = [kind for kind in ("lora", "qlora") if _forecast(model, kind, options).total <= free]
        changes += [f"--train {kind}" for kind in smaller]
    if options.json:
        record = {"model": model.name, "card": device.name, "free_bytes": free, "fits": fits, "changes": changes}
        names = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "overhead", "total")
        print(json.dumps(record | {"bytes": {name: getattr(forecast, name) for name in names}}, ensure_ascii=False))
    else:
        title = f"{options.train} training of {model.name} on {device.name}"
        print("\n".join(training_lines(title, forecast, free, changes)))
    if options.plot is not None:
        from suffice.cli.plan.plot import plot_training

        plot_training(model.name, device.name, forecast, free, options.plot)
    return fits


def _forecast(model: KnownModel, kind: str, options: PlanOptions) -> TrainingForecast:
    from suffice.memory import forecast_training

    return forecast_training(
        model.config,
        batch_size=options.batch_size,
        max_length=options.max_length or 2048,
        lora_rank=None if kind == "full" else options.lora_rank,
        gradient_checkpointing=options.gradient_checkpointing,
        weight_bits=4 if kind == "qlora" else 16,
        compute_bytes=2,
        lora_dropout=0.0 if kind == "full" else 0.05,
    )


def _model(name: str) -> KnownModel:
    """A folder, the bundled table, or the hub, in this order.

    Raises:
        ModelError: it is in none of them.
    """
    from suffice.memory.cards import KnownModel, known_model, model_in_folder, similar_names

    folder = Path(name).expanduser()
    if folder.is_dir():
        return model_in_folder(folder)
    if found := known_model(name):
        return found
    hint = f"; in the table is {', '.join(alike)}" if (alike := similar_names(name)) else ""
    from suffice.checkpoints.hub import fetch_config, find_on_hub
    from suffice.checkpoints.model_source import resolve_model

    source = resolve_model(name)
    try:
        path = fetch_config(find_on_hub(source))
    except ImportError:
        raise ModelError(f"no model {name!r} in the table, and no huggingface_hub here to ask{hint}") from None
    except ModelError as error:
        raise ModelError(f"no model {name!r} in the table, and {error}{hint}") from None
    return KnownModel(name, json.loads(path.read_text("utf-8")))


class _PlanCommand(Command):
    """Takes `--gpu 4090 x2` and `--gpu RTX 4090 D` without quotation marks."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words: list[str] = []
        for word in args:
            if len(words) > 1 and words[-2] == "--gpu" and _PART_OF_A_CARD.fullmatch(word):
                words[-1] += f" {word}"
            else:
                words.append(word)
        return super().parse_args(ctx, words)


command = _PlanCommand(
    "plan", callback=_run, params=options_of(PlanOptions), help=_run.__doc__, examples=_EXAMPLES, bare="--model"
)
