"""`suffice plan`: what fits on a card, for answering and for training; no model is loaded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from suffice.cli.command import Command, Option
from suffice.errors import ModelError

if TYPE_CHECKING:
    from suffice.memory import TrainingForecast
    from suffice.memory.cards import Card, KnownModel
    from suffice.memory.concurrency import TrafficLengths
    from suffice.memory.plan import ServingQuestion

__all__ = ["command"]

_EXAMPLES = """
suffice plan --model Qwen2.5-7B-Instruct --gpu 4090 --max_length 32k --concurrency 20
suffice plan --model Qwen2.5-7B-Instruct --gpu 4090 --used 22GiB --max_new_tokens 2048
suffice plan --model Qwen2.5-7B-Instruct --gpu 4090 --lengths trace.csv.gz --max_new_tokens 2048 --price 0.4
suffice plan --model Qwen3-30B-A3B --memory 24GiB --weight_bits 4 --kv_bits 8 --plot plan.png
suffice plan --model Qwen2.5-7B-Instruct --gpu 4090 --train lora --max_length 2048
"""


def _run(**flags: Any) -> int:
    """Say what fits into memory before anything is loaded, and what to change if it does not.

    Knows over a hundred models without a network, and any other by its config.json, in a folder or on the hub.
    """
    from suffice.memory.cards import card, card_here
    from suffice.memory.device import parse_bytes

    model = _model(flags["model"])
    device = card(flags["gpu"]) if flags["gpu"] else card_here() if flags["memory"] is None else None
    if flags["memory"] is not None:
        from suffice.memory.cards import Card

        memory = parse_bytes(flags["memory"])
        device = Card(
            device.name if device else "the card", memory, *((device.bandwidth, device.flops) if device else ())
        )
    assert device is not None
    used = parse_bytes(flags["used"]) if flags["used"] else 0
    if flags["train"]:
        return _train(model, device, used, flags)
    return _serve(model, device, used, flags)


def _serve(model: KnownModel, device: Card, used: int, flags: dict[str, Any]) -> int:
    from suffice.cli.plan.terminal import plan_lines
    from suffice.memory.plan import make_plan

    plan = make_plan(_question(model, device, used, flags))
    if flags["as_json"]:
        record = plan.to_dict()
        if flags["price"] is not None and plan.speed is not None:
            record["price_per_1000_answers"] = plan.speed.cost(flags["price"])
        print(json.dumps(record, ensure_ascii=False))
    else:
        print("\n".join(plan_lines(plan, flags["price"])))
    if flags["plot"] is not None:
        from suffice.cli.plan.plot import plot_plan

        plot_plan(plan, flags["plot"])
        print(f"picture: {flags['plot']}", file=sys.stderr)
    return 0


def _question(model: KnownModel, device: Card, used: int, flags: dict[str, Any]) -> ServingQuestion:
    from suffice.memory.inference import Serving
    from suffice.memory.plan import ServingQuestion, tokens_of

    quantised = (model.config.get("quantization_config") or {}).get("bits")
    if quantised is None and (model.config.get("quantization_config") or {}).get("quant_method") == "fp8":
        quantised = 8
    serving = Serving(weight_bits=flags["weight_bits"] or quantised or 16, kv_bits=flags["kv_bits"])
    chosen: dict[str, Any] = {
        name: tuple(tokens_of(text) for text in flags[flag])
        for name, flag in (("prompts", "prompt_tokens"), ("answers", "max_new_tokens"))
        if flags[flag]
    }
    return ServingQuestion(
        model,
        device,
        serving,
        used=used,
        utilization=flags["utilization"],
        concurrency=flags["concurrency"],
        max_length=tokens_of(flags["max_length"]) if flags["max_length"] else None,
        lengths=None if flags["lengths"] is None else _lengths(flags["lengths"], chosen.get("prompts", (512,))[0]),
        **chosen,
    )


def _lengths(path: Path, prompt_tokens: int) -> TrafficLengths:
    from suffice.cli.plan.lengths import is_profile, profile_lengths, read_lengths

    if is_profile(path):
        return profile_lengths(path, prompt_tokens)
    return read_lengths(path)


def _train(model: KnownModel, device: Card, used: int, flags: dict[str, Any]) -> int:
    """The forecast of `sft`, against this card."""
    from suffice.memory import forecast_training, human_bytes, what_would_fit
    from suffice.memory.plan import tokens_of

    kind, free = flags["train"], device.memory - used

    def forecast_of(kind: str) -> TrainingForecast:
        return forecast_training(
            model.config,
            batch_size=flags["batch_size"],
            max_length=tokens_of(flags["max_length"]) if flags["max_length"] else 2048,
            lora_rank=None if kind == "full" else flags["lora_rank"],
            gradient_checkpointing=flags["gradient_checkpointing"],
            weight_bits=4 if kind == "qlora" else 16,
            compute_bytes=2,
            lora_dropout=0.0 if kind == "full" else 0.05,
        )

    forecast = forecast_of(kind)
    fits = forecast.total <= free
    changes = [each.change for each in what_would_fit(model.config, forecast.setup, free)]
    if kind == "full" and not fits:
        changes += [f"--train {other}" for other in ("lora", "qlora") if forecast_of(other).total <= free]
    if flags["as_json"]:
        record = {"model": model.name, "card": device.name, "free_bytes": free, "fits": fits, "changes": changes}
        names = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "overhead", "total")
        print(json.dumps(record | {"bytes": {name: getattr(forecast, name) for name in names}}, ensure_ascii=False))
    else:
        verdict = "fits" if fits else "does not fit"
        print(f"{kind} training of {model.name} on {device.name}")
        print("\n".join(forecast.lines()))
        print(f"{verdict}: {human_bytes(forecast.total)} of {human_bytes(free)}")
        if not fits:
            print("\n".join(f"would fit: {change}" for change in changes) or "nothing would make it fit there")
    if flags["plot"] is not None:
        from suffice.cli.plan.plot import plot_training

        plot_training(model.name, device.name, forecast, free, flags["plot"])
        print(f"picture: {flags['plot']}", file=sys.stderr)
    return 0


def _model(name: str) -> KnownModel:
    """A folder, the bundled table, or the hub, in this order.

    Raises:
        ModelError: it is in none of them.
    """
    from suffice.memory.cards import KnownModel, known_model, model_in_folder, similar_names

    folder = Path(name).expanduser()
    if folder.is_dir():
        return model_in_folder(folder)
    found = known_model(name)
    if found is not None:
        return found
    alike = similar_names(name)
    hint = f"; in the table is {', '.join(alike)}" if alike else ""
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


def _options() -> list[click.Parameter]:
    model, card, ask = {"group": "Model"}, {"group": "Card"}, {"group": "Question"}
    training, output = {"group": "Training"}, {"group": "Output"}
    positive = click.IntRange(min=1)
    bits = click.Choice(["32", "16", "8", "4"])
    return [
        Option(["--model"], required=True, **model, help="A name such as Qwen2.5-7B-Instruct, a folder, or a hub id."),
        Option(
            ["--weight-bits"],
            type=bits,
            callback=_whole,
            **model,
            help="Bits per weight. [default: as the model says, else 16]",
        ),
        Option(
            ["--kv-bits"], type=bits, default="16", show_default=True, callback=_whole, **model, help="Of the cache."
        ),
        Option(["--gpu"], **card, help="A card's name: 4090, a100, h100 ... [default: the one that is here]"),
        Option(["--memory"], metavar="SIZE", **card, help="Memory instead of a card's name, such as 24GiB."),
        Option(["--used"], metavar="SIZE", **card, help="What other programs take of it, such as 22GiB."),
        Option(
            ["--utilization"],
            type=click.FloatRange(0, 1, min_open=True),
            default=0.9,
            show_default=True,
            **card,
            help="Share of the card to use; all of what is left where --used is given.",
        ),
        Option(["--concurrency"], type=positive, **ask, help="Requests that should run at once."),
        Option(["--max-length"], metavar="TOKENS", **ask, help="Prompt and answer together, such as 32k."),
        Option(["--max-new-tokens"], multiple=True, metavar="TOKENS", **ask, help="Limits of answers, one or several."),
        Option(["--prompt-tokens"], multiple=True, metavar="TOKENS", **ask, help="Lengths of prompts, one or several."),
        Option(
            ["--lengths"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            **ask,
            help="Real lengths: CSV or JSONL (.gz) with prompt_tokens and output_tokens, or an adapter's folder.",
        ),
        Option(
            ["--price"], type=click.FloatRange(min=0), **ask, help="Of the card per hour: gives cost per 1,000 answers."
        ),
        Option(["--train"], type=click.Choice(["lora", "qlora", "full"]), **training, help="Plan training instead."),
        Option(
            ["--batch-size"], type=positive, default=1, show_default=True, **training, help="Rows per forward pass."
        ),
        Option(["--lora-rank"], type=positive, default=8, show_default=True, **training, help="Of the adapter."),
        Option(
            ["--gradient-checkpointing/--no-gradient-checkpointing"],
            default=True,
            show_default=True,
            **training,
            help="Compute activations twice instead of keeping them.",
        ),
        Option(["--json", "as_json"], is_flag=True, **output, help="Print one JSON object."),
        Option(
            ["--plot"], type=click.Path(path_type=Path), metavar="FILE", **output, help="A picture: .png, .svg or .pdf."
        ),
    ]


def _whole(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    return None if value is None else int(value)


command = Command("plan", callback=_run, params=_options(), help=_run.__doc__, examples=_EXAMPLES)
