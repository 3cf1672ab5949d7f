"""`suffice serve`: the HTTP server."""

from __future__ import annotations

import logging
from typing import Any

import click

from suffice.cli.command import Command, Option, options_of
from suffice.cli.notes import tell
from suffice.errors import packages_of
from suffice.serve.config import ServeSettings, ignored_variables, settings_and_origins
from suffice.serve.logging_setup import set_up_logging

__all__ = ["command"]

_EXAMPLES = """
suffice serve                                                 the bundled model on http://127.0.0.1:8000
suffice serve --model Qwen2.5-7B-Instruct --port 9000
suffice serve --upstream http://gpu1:8000 --upstream http://gpu2:8000
suffice serve --config serve.toml --check                     show the settings, try what they name, and exit
"""


def _run(config: str | None, check: bool, **flags: Any) -> int:
    """Serve a model, or other servers, over HTTP: OpenAI's API and the tiers.

    Every setting can also be given in the --config file, or in the environment as SUFFICE_SERVE_NAME.
    """
    with packages_of("serve", "`suffice serve` needs"):
        from suffice.serve.server import run
    settings, origins = settings_and_origins(config, flags)
    if check:
        from suffice.serve.preflight import show_check

        for line in ignored_variables():
            tell(f"warning: {line}")
        return show_check(settings, origins)
    set_up_logging(settings.log_level, settings.log_format)
    for line in ignored_variables():
        logging.getLogger("suffice.serve.config").warning(line)
    run(settings)
    return 0


_CHECK = "Show every setting and where it comes from, try what they name, and exit."
_OPTIONS: list[click.Parameter] = [
    *options_of(ServeSettings, defaults=False),
    Option(["--config"], metavar="FILE", help="TOML with any of the settings."),
    Option(["--check"], is_flag=True, help=_CHECK),
]
command = Command("serve", callback=_run, params=_OPTIONS, help=_run.__doc__, examples=_EXAMPLES, bare="--model")
