"""`suffice serve`: the HTTP server."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from suffice.cli.command import Command, Option, hub_option
from suffice.errors import UsageError

__all__ = ["command"]

_EXAMPLES = """
suffice serve                                                 the bundled model on http://127.0.0.1:8000
suffice serve --model Qwen2.5-7B-Instruct --port 9000
suffice serve --upstream http://gpu1:8000 --upstream http://gpu2:8000
suffice serve --config serve.toml --check                     show the settings, try what they name, and exit
"""


def _run(config: str | None, check: bool, **flags: Any) -> int:
    """Serve a model, or other servers, over HTTP: OpenAI's API and the tiers.

    Every setting can also stand in the --config file, or in the environment as SUFFICE_SERVE_NAME.
    """
    try:
        from suffice.serve.config import ignored_variables, settings_and_origins
        from suffice.serve.observe.logging_setup import set_up_logging
        from suffice.serve.server import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("suffice"):
            raise
        raise UsageError(f"`suffice serve` needs the package {error.name}: pip install 'suffice[serve]'") from None
    settings, origins = settings_and_origins(config, flags)
    if check:
        from suffice.serve.preflight import show_check

        for line in ignored_variables():
            print(f"warning: {line}", file=sys.stderr)
        return show_check(settings, origins)
    set_up_logging(settings.log_level, settings.log_format)
    for line in ignored_variables():
        logging.getLogger("suffice.serve.config").warning(line)
    run(settings)
    return 0


def _options() -> list[click.Parameter]:
    model, address, pressure = {"group": "Model"}, {"group": "Address and access"}, {"group": "Pressure"}
    positive, seconds = click.IntRange(min=1), click.FloatRange(min=0, min_open=True)
    return [
        Option(["--model"], **model, help="A folder, a hub id or a short id. [default: the bundled model]"),
        Option(["--adapters"], multiple=True, **model, help="LoRA adapter folders, merged at load."),
        hub_option(**model, default=None),
        Option(["--dtype"], **model, help="auto, bfloat16, float16 or float32."),
        Option(["--device"], **model, help="cuda, cuda:1, cpu; auto takes a GPU when there is one."),
        Option(
            ["--upstream", "upstreams"],
            multiple=True,
            metavar="URL",
            **model,
            help="An OpenAI-compatible server; several share the load. Their key is read from SUFFICE_API_KEY alone.",
        ),
        Option(["--host"], **address, help="Address to listen on. [default: 127.0.0.1]"),
        Option(["--port"], type=click.IntRange(0, 65535), **address, help="[default: 8000]"),
        Option(
            ["--no-auth"],
            is_flag=True,
            default=None,
            **address,
            help="Serve without keys, whoever reaches the address.",
        ),
        Option(["--database"], metavar="URL", **address, help="SQLite or PostgreSQL. [default: a file of the user's]"),
        Option(
            ["--length-state"],
            metavar="DIR",
            **address,
            help="Where what traffic teaches of lengths is kept, or none. [default: beside the database]",
        ),
        Option(["--quota-storage"], metavar="URL", **address, help="memory, database or redis://... [default: memory]"),
        Option(["--budget-file"], metavar="FILE", **address, help="TOML with your own tiers and keywords."),
        Option(["--max-running"], type=positive, **pressure, help="Requests that generate at once."),
        Option(
            ["--max-waiting"], type=click.IntRange(min=0), **pressure, help="Requests that may wait. [default: 512]"
        ),
        Option(
            ["--max-choices"], type=positive, **pressure, help="Answers that one request may ask for. [default: 16]"
        ),
        Option(["--queue-timeout"], type=seconds, **pressure, help="Longest wait, in seconds. [default: 60]"),
        Option(["--request-timeout"], type=seconds, **pressure, help="Longest answer, in seconds. [default: 600]"),
        Option(["--upstream-timeout"], type=seconds, **pressure, help="Longest silence of an upstream. [default: 300]"),
        Option(["--drain-timeout"], type=seconds, **pressure, help="Seconds to finish in at SIGTERM. [default: 30]"),
        Option(["--log-level"], group="Logs", type=click.Choice(["debug", "info", "warning", "error"])),
        Option(["--log-format"], group="Logs", type=click.Choice(["text", "json"])),
        Option(["--config"], metavar="FILE", help="TOML with any of the settings."),
        Option(
            ["--check"], is_flag=True, help="Show every setting and where it comes from, try what they name, and exit."
        ),
    ]


command = Command("serve", callback=_run, params=_options(), help=_run.__doc__, examples=_EXAMPLES)
