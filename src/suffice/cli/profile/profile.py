"""`suffice profile`: how long are prompts and answers, and which cap, tier and `max_length` follow from that?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from suffice.cli.command import Command, options_of
from suffice.cli.notes import tell
from suffice.errors import UsageError
from suffice.settings import setting

if TYPE_CHECKING:
    from suffice.profiling import LengthReader, MemoryFacts, Profile, Report
    from suffice.profiling.accumulators import GroupLengths
    from suffice.profiling.advice import RowLimit

__all__ = ["command"]

_EXAMPLES = """
suffice profile answers.jsonl                                    which max_new_tokens for this traffic?
suffice profile dataset.jsonl --model Qwen2.5-7B-Instruct        counted with the model's own tokenizer
suffice profile logs/ --by model --by budget.limited_by
suffice profile trace.csv.gz --html report.html --plot lengths.png
suffice profile dataset.jsonl --model ./Qwen2.5-7B-Instruct --training
"""

_COUNTED_FIRST = 1 << 26  # bytes of a file up to which its rows are counted first, only to show how far the reading is
_COUNTING, _ADVICE, _OUTPUT = "Reading and counting", "Advice", "Output"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileOptions:
    source: tuple[str, ...] = setting((), flag=None)
    model: str | None = setting(None, _COUNTING, "Folder or id of the model whose tokenizer counts. [default: bundled]")
    hub: str = setting("hf", _COUNTING, "Where hub ids are fetched from.", choices=("hf", "modelscope"))
    columns: tuple[str, ...] = setting(
        (), _COUNTING, "Names of your columns, for example ask=query n_out=answer_tokens.", metavar="NAME=OURS"
    )
    seed: int = setting(0, _COUNTING, "Chooses the rows of FILE#N.")
    by: tuple[str, ...] = setting(
        (),
        _COUNTING,
        "Tell groups apart by a column, or by a path such as budget.limited_by. "
        "[default: file, model, category, language, tier, type, where there are several]",
        metavar="COLUMN",
    )
    max_new_tokens: int = setting(
        2048, _ADVICE, "The cap that is set now, which savings are compared with.", unit="tokens"
    )
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


def _run(**flags: Any) -> int:
    """Measure the lengths of prompts and answers in SOURCE, and say which max_new_tokens they need.

    SOURCE is a dataset in any format that infer reads (FILE#N takes N rows), a result file of infer, or a folder of
    such files or of API logs. Token counts in the rows are used as they are; texts are counted with the model's
    tokenizer.
    """
    options = ProfileOptions(**flags)
    _check_pictures(options)
    report = _report(options)
    if report.found.rows == report.found.errors.total():
        example = report.found.examples[0] if report.found.examples else "there are no rows"
        raise UsageError(f"no row of {report.name} can be used: {example}")
    if options.json:
        print(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        from suffice.profiling.terminal import report_lines

        print(*report_lines(report), sep="\n")
    _draw_pictures(options, report)
    return 0


def _report(options: ProfileOptions) -> Report:
    from suffice.budget.settings import load_settings
    from suffice.profiling import Report, advise, row_limits

    tiers = [(tier.name, tier.max_new_tokens) for tier in load_settings(options.rules).tiers.values()]
    reader, profile = _measured(options)
    groups = profile.groups()
    for column in options.by:
        if column not in groups:
            reader.summary.notes.append(f"no row has the column {column!r}")
    shown = {column: table for column, table in groups.items() if options.by or _tells_apart(table)}
    limits = row_limits(profile.all) if options.training else ()
    if options.training and not limits:
        raise UsageError("--training needs rows with a prompt and an answer, and there are none here")
    return Report(
        sources=options.source,
        found=reader.summary,
        profile=profile,
        groups=shown,
        words=profile.words.splitting(),
        advice=advise(profile.all, shown, tiers, options.max_new_tokens),
        row_limits=limits,
        memory=_memory(options, limits),
        tokens_per_second=options.tokens_per_second,
    )


def _tells_apart(groups: Mapping[str, GroupLengths]) -> bool:
    """Whether a column that was not asked for deserves a table: several values, and not a name for every row."""
    return len(groups) > 1 and max(group.records for group in groups.values()) > 1


def _measured(options: ProfileOptions) -> tuple[LengthReader, Profile]:
    from suffice.budget.answer_language import answer_language
    from suffice.cli.profile.token_counter import load_counter
    from suffice.cli.progress import ProgressBar
    from suffice.data import count_rows
    from suffice.data.rows import parse_columns
    from suffice.profiling import DEFAULT_GROUPS, LengthReader, find_sources, measure

    reader = LengthReader(
        groups=options.by or DEFAULT_GROUPS,
        columns=parse_columns(options.columns),
        counter=lambda: load_counter(options.model, options.hub),
        language_of=answer_language,
        seed=options.seed,
    )
    files: list[str] = []
    for spec in options.source:
        paths, notes = find_sources(spec)
        files += paths
        reader.summary.notes += notes
    only = Path(files[0]) if len(files) == 1 else None
    counted_first = only is not None and only.is_file() and only.stat().st_size < _COUNTED_FIRST
    total = count_rows(files[0]) if counted_first else None
    with ProgressBar("reading", total) as progress:
        profile = measure(reader.read(files), reader.groups, lambda _: progress.update(reader.summary.rows))
    return reader, profile


def _memory(options: ProfileOptions, limits: Sequence[RowLimit]) -> MemoryFacts:
    """What the model's shape says about tokens, where its config is here and its arithmetic known."""
    from suffice.cli.profile.token_counter import model_config
    from suffice.memory import forecast_training, kv_bytes_per_token
    from suffice.profiling import MemoryFacts

    config = model_config(options.model, options.hub) if options.model else None
    if config is None:
        return MemoryFacts()
    try:
        kv_bytes = kv_bytes_per_token(config)
        forecast = partial(
            forecast_training,
            config,
            batch_size=options.batch_size,
            lora_rank=options.lora_rank,
            gradient_checkpointing=True,
            weight_bits=16,
            compute_bytes=2,
        )
        training = {limit.max_length: forecast(max_length=limit.max_length).total for limit in limits}
    except UsageError as error:
        tell(f"notice: no memory figures: {error}")
        return MemoryFacts()
    setup = f"peak on a CUDA card, batch size {options.batch_size}, LoRA rank {options.lora_rank}, 16-bit weights, "
    return MemoryFacts(str(options.model), kv_bytes, training, setup + "gradient checkpointing (forecast)")


def _check_pictures(options: ProfileOptions) -> None:
    """What cannot be drawn or written is an error before hours of reading, not after."""
    pictures = (("--plot", options.plot, (".png", ".svg")), ("--html", options.html, (".html", ".htm")))
    for flag, path, endings in pictures:
        if path is None:
            continue
        if path.suffix.lower() not in endings:
            raise UsageError(f"{flag} {path}: the name must end in {' or '.join(endings)}")
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{flag} {path}: there is no folder {path.absolute().parent}")
    if options.plot is not None:
        try:
            import matplotlib  # noqa: F401 - whether it is there
        except ImportError:
            hint = "pip install matplotlib (or take --html, which does not)"
            raise UsageError(f"--plot needs matplotlib: {hint}") from None


def _draw_pictures(options: ProfileOptions, report: Report) -> None:
    try:
        if options.plot is not None:
            from suffice.profiling.plot import draw

            for notice in draw(report, options.plot):
                tell(f"notice: {notice}")
        if options.html is not None:
            from suffice.profiling.html import report_page

            options.html.write_text(report_page(report), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written: {error.strerror}") from None
    for path in filter(None, (options.plot, options.html)):
        tell(f"written: {path}")


_PARAMETERS = [click.Argument(["source"], nargs=-1, required=True, type=click.Path()), *options_of(ProfileOptions)]
command = Command("profile", callback=_run, params=_PARAMETERS, help=_run.__doc__, examples=_EXAMPLES)
