"""The flags of `suffice profile`: what they are called and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from suffice.settings import setting

__all__ = ["ProfileOptions"]

_COUNTING, _ADVICE, _OUTPUT = "Reading and counting", "Advice", "Output"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileOptions:
    """The flags of `suffice profile`."""

    source: tuple[str, ...] = setting((), flag=None)
    model: str | None = setting(None, _COUNTING, "The model whose tokenizer counts. [default: the bundled model]")
    hub: str = setting("hf", _COUNTING, "Where hub ids are fetched from.", choices=("hf", "modelscope"))
    columns: tuple[str, ...] = setting((), _COUNTING, "Names of your columns, such as ask=query.", metavar="NAME=OURS")
    seed: int = setting(0, _COUNTING, "Chooses the rows of FILE#N.")
    by: tuple[str, ...] = setting(
        (),
        _COUNTING,
        "Tell groups apart by a column, or by a path such as budget.limited_by. "
        "[default: file, model, category, language, tier, type, where there are several]",
        metavar="COLUMN",
    )
    max_new_tokens: int = setting(2048, _ADVICE, "The cap that is set now, which savings are compared with.", minimum=1)
    tokens_per_second: float | None = setting(None, _ADVICE, "Speed of an answer, for worst cases in seconds.", above=0)
    rules: Path | None = setting(None, _ADVICE, "A TOML file with your own tiers.")
    training: bool = setting(
        False, _ADVICE, "Say what each max_length would drop or cut, and how much memory it needs.", switch=True
    )
    lora_rank: int = setting(8, _ADVICE, "For the memory of --training.", minimum=1)
    batch_size: int = setting(1, _ADVICE, "Rows per device, for the memory of --training.", minimum=1)
    plot: Path | None = setting(None, _OUTPUT, "Draw the lengths as .png or .svg.", metavar="FILE")
    html: Path | None = setting(None, _OUTPUT, "Write a report as HTML, in English and Chinese.", metavar="FILE")
    json: bool = setting(False, _OUTPUT, "Print everything as one JSON object, exact counts included.", switch=True)
