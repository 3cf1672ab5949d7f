"""`suffice models`: which models are here, fetching one, and taking one out of the cache."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from suffice.cli.command import Command, CommandGroup, OneOf, Option
from suffice.cli.completed_values import fetched_models
from suffice.cli.notes import tell
from suffice.errors import ModelError, UsageError
from suffice.nearest import did_you_mean

if TYPE_CHECKING:
    from suffice.checkpoints.model_cache import CachedModel

__all__ = ["command"]

_HUBS = ("hf", "modelscope")
_COLUMNS = ("name", "size", "parameters", "context", "dtype", "used", "where")
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """What the list says of a model or an adapter."""

    name: str
    bytes: int
    parameters: int | None = None
    context: int | None = None
    dtype: str | None = None
    last_used: float | None = None
    where: str
    """`bundled`, `hf`, `modelscope`, or the folder of an adapter."""
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        from suffice.memory.device import human_bytes

        return (
            self.name,
            human_bytes(self.bytes),
            _count(self.parameters),
            f"{self.context:,}" if self.context else "-",
            self.dtype or "-",
            _ago(self.last_used),
            self.where + (f": {self.note}" if self.note else ""),
        )


def _list(output_dir: str, as_json: bool) -> int:
    """Show the models that are here: the bundled one, those that were fetched from a hub, and your adapters.

    Context is in tokens; "used" is when a file was last read.
    """
    rows = [*_models(), *_adapters(Path(output_dir))]
    if as_json:
        print(json.dumps([asdict(row) for row in rows], ensure_ascii=False))
    else:
        print("\n".join(_table([row.cells() for row in rows])))
    return 0


def _models() -> Iterator[_Row]:
    from suffice.checkpoints.model_cache import cached_models
    from suffice.checkpoints.model_source import BUNDLED_NAME, bundled_model

    folder = bundled_model()
    if (folder / "config.json").is_file():
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        config = json.loads((folder / "config.json").read_text("utf-8"))
        yield _Row(name=BUNDLED_NAME, bytes=size, where="bundled", **_from_config(config))
    for model in cached_models():
        note = "" if model.complete else "no weights that can be loaded; `suffice models pull` fetches them"
        about = _from_config(model.config)
        yield _Row(name=model.name, bytes=model.bytes, last_used=model.last_used, where=model.hub, note=note, **about)


def _from_config(config: Any) -> dict[str, Any]:
    """Parameters, context and dtype, each None where the config does not say."""
    from suffice.memory import Architecture

    text = config.get("text_config") or config
    try:
        parameters = Architecture.from_config(config).parameters if config else None
    except Exception:  # a config of a kind that is not known: the list goes on
        parameters = None
    dtype = config.get("dtype") or config.get("torch_dtype") or text.get("dtype")
    return {"parameters": parameters, "context": text.get("max_position_embeddings"), "dtype": dtype}


def _adapters(output: Path) -> Iterator[_Row]:
    for file in sorted(output.glob("**/adapter_config.json"), key=lambda each: -each.stat().st_mtime):
        folder = file.parent
        if folder.is_symlink():
            continue
        try:
            config = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError):
            config = {}
        base = str(config.get("base_model_name_or_path") or "an unknown model")
        size = sum(each.stat().st_size for each in folder.iterdir() if each.is_file())
        note = f"adapter of {Path(base).name}, rank {config.get('r', '?')}"
        yield _Row(name=str(folder), bytes=size, last_used=file.stat().st_mtime, where=note)


def _count(parameters: int | None) -> str:
    if parameters is None:
        return "-"
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.1f}M"


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    passed = max(0.0, time.time() - seconds)
    for unit, length in _UNITS:
        if passed >= length:
            number = int(passed // length)
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "just now"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns where the terminal is wide enough; else a line for the name and lines for the rest."""
    import shutil
    import textwrap

    columns = shutil.get_terminal_size().columns
    lines = [_COLUMNS, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(_COLUMNS))]
    if sum(widths) + 2 * (len(widths) - 1) <= columns:
        padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
        return ["  ".join(cells).rstrip() for cells in padded]
    shown = []
    for name, size, *others in rows:
        about = [f"{column} {cell}" for column, cell in zip(_COLUMNS[2:-1], others[:-1], strict=True) if cell != "-"]
        text = ", ".join([size, *about, others[-1]])
        shown += [name, *textwrap.wrap(text, max(20, columns), initial_indent="  ", subsequent_indent="  ")]
    return shown


def _pull(name: str, hub: str) -> int:
    """Fetch MODEL into the hub's cache, so that it is there when it is needed.

    Only safetensors are fetched, with the config and the tokenizer. A download that was interrupted is continued.
    """
    from suffice.checkpoints.model_source import resolve_model
    from suffice.errors import packages_of

    source = resolve_model(name, hub=hub)
    if source.local:
        raise UsageError(f"{name} is a folder here already: suffice infer --model {name}")
    with packages_of("local", "`suffice models pull` needs"):
        folder = _fetch(source.location, hub)
    print(f"{source.location} is in {folder}")
    flag = " --hub modelscope" if hub == "modelscope" else ""
    tell(f"try it: suffice infer --model {name}{flag}")
    return 0


def _fetch(model_id: str, hub: str) -> Path:
    from suffice.checkpoints.fetch import fetch_model, look_up
    from suffice.memory.device import human_bytes

    if hub == "hf":
        found = look_up(model_id)
        tell(f"{model_id}: {human_bytes(found.bytes)}, {human_bytes(found.missing)} to fetch")
    try:
        return fetch_model(model_id, hub, bars=sys.stderr.isatty())
    except KeyboardInterrupt:
        tell(f"stopped; suffice models pull {model_id} continues where this ended")
        raise


def _rm(names: tuple[str, ...], hub: str | None, yes: bool) -> int:
    """Delete each MODEL from the cache of its hub, and say how much room that made.

    Only caches are touched: not your adapters, and no folder of yours.
    """
    from suffice.checkpoints.model_cache import remove_model
    from suffice.memory.device import human_bytes

    chosen = [_found(name, hub) for name in names]
    if not yes:
        _confirm(chosen)
    for model in chosen:
        print(f"removed {model.name}: {human_bytes(remove_model(model))} freed")
    return 0


def _found(name: str, hub: str | None) -> CachedModel:
    """The one model of the caches that is meant. ModelError: there is none, or there are two."""
    from suffice.checkpoints.model_cache import cached_models
    from suffice.checkpoints.model_source import BUNDLED_NAME

    if name == BUNDLED_NAME:
        raise ModelError(f"{name} comes with Suffice and is in no cache")
    models = [model for model in cached_models() if hub in (None, model.hub)]
    found = [each for each in models if each.name.lower() == name.lower()]
    found = found or [each for each in models if each.name.lower().rpartition("/")[2] == name.lower()]
    if len({each.hub for each in found}) > 1 and len({each.name for each in found}) == 1:
        raise ModelError(f"{name} is in the caches of both hubs: choose with --hub hf or --hub modelscope")
    if len(found) > 1:
        raise ModelError(f"{name} may be {' or '.join(sorted(each.name for each in found))}: give the whole name")
    if found:
        return found[0]
    if Path(name).expanduser().exists():
        raise ModelError(f"{name} is a file or folder of yours and in no cache: delete it yourself if you mean it")
    near = did_you_mean(name, [each.name for each in models])
    raise ModelError(f"no model {name} in the caches{near or '; suffice models list shows what there is'}")


def _confirm(chosen: Sequence[CachedModel]) -> None:
    from suffice.memory.device import human_bytes

    if not sys.stdin.isatty():
        raise UsageError("nobody can be asked here: --yes deletes without a question")
    for model in chosen:
        tell(f"{model.name}: {human_bytes(model.bytes)} in {model.folder}")
    if not click.confirm("delete?", err=True):
        raise click.Abort


def _command(name: str, callback: Callable[..., int], *params: click.Parameter, examples: str) -> Command:
    return Command(name, callback=callback, params=list(params), help=callback.__doc__, examples=examples)


_MODEL_NAMES: Any = {"metavar": "MODEL", "shell_complete": lambda ctx, param, begun: fetched_models(begun)}


command = CommandGroup("models", help="Show, fetch and delete models.")
command.add_command(
    _command(
        "list",
        _list,
        Option(["--output-dir"], default="output", show_default=True, metavar="FOLDER", help="Where adapters are."),
        Option(["--json", "as_json"], is_flag=True, help="Print a JSON array, with sizes in bytes."),
        examples="suffice models list",
    )
)
command.add_command(
    _command(
        "pull",
        _pull,
        click.Argument(["name"], **_MODEL_NAMES),
        Option(["--hub"], type=OneOf(_HUBS), default="hf", show_default=True, help="Where it is fetched from."),
        examples="suffice models pull Qwen2.5-7B-Instruct\nsuffice models pull Qwen/Qwen3-0.6B --hub modelscope",
    )
)
command.add_command(
    _command(
        "rm",
        _rm,
        click.Argument(["names"], nargs=-1, required=True, **_MODEL_NAMES | {"metavar": "MODEL..."}),
        Option(["--hub"], type=OneOf(_HUBS), help="Where it is from. [default: wherever it is]"),
        Option(["--yes", "-y"], is_flag=True, help="Do not ask."),
        examples="suffice models rm Qwen2.5-7B-Instruct\nsuffice models rm Qwen/Qwen3-0.6B --yes",
    )
)
