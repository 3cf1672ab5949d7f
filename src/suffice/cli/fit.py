"""`suffice fit`: a length model out of your own answers, with honest figures."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from suffice.cli.command import Command, options_of
from suffice.cli.notes import tell
from suffice.errors import DataError, UsageError, packages_of
from suffice.settings import setting

if TYPE_CHECKING:
    from suffice.data import AnswerSummary

__all__ = ["command"]

_MIN_ROWS = 50
_EXAMPLES = """
suffice fit answers.jsonl --output length/          from a dataset, a result file or a log
suffice fit a.jsonl b.jsonl.gz#2000 --output length/
suffice fit sqlite:///serve.db --output length/     from the server's own rows: who asked, and how long it was
suffice infer --length_model length/                use it; so does SUFFICE_LENGTH_MODEL=length/
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitOptions:
    output: Path = setting(
        None, text="Folder of the model.", required=True, type=click.Path(path_type=Path, file_okay=False)
    )
    rows: int = setting(20_000, text="The most answers to learn from: the last ones.", minimum=_MIN_ROWS)
    seed: int = setting(0, text="Seed that chooses the rows of FILE#N.")
    force: bool = setting(False, text="Save the model even if a constant does as well.", switch=True)
    plot: Path | None = setting(None, text="Write the calibration as PNG.")


def _run(dataset: tuple[str, ...], **flags: Any) -> int:
    """Learn from DATASET how long answers get, from their prompts and from who asks.

    A row needs an answer, or its number of tokens. For a server's log, give the URL of its database; the log has no
    prompts. The figures shown are measured on held-out answers, next to those of the best constant. A model in --output
    that does better on these answers is not replaced.
    """
    with packages_of("fit", "`suffice fit` needs"):
        from suffice.budget.length_model import LengthModel
        from suffice.budget.length_model.evaluate import evaluate
    from suffice.cli.progress import ProgressBar

    options = FitOptions(**flags)
    records, learned = _read(dataset, options.rows, options.seed)
    with ProgressBar("held-out figures", None, "steps") as progress:
        figures = evaluate(records, lambda done, total: progress.update(done, f"of {total}"))
    print(figures.describe())
    if options.plot is not None:
        _plot(figures.coverage, options.plot)
    if not options.force and (reason := _reason_to_keep(figures.ratio, options.output)):
        tell(f"not saved: {reason}")
        return 1
    with ProgressBar("training on all answers", None, "steps") as progress:
        model = LengthModel.fit(records, on_step=lambda done, total: progress.update(done, f"of {total}"))
    names = [Path(_shown(spec)).name for spec in dataset]
    model.card = {"rows": len(records), "datasets": names, **figures.to_dict(), **learned}
    print(f"saved: {model.save(options.output)}")
    return 0


def _read(dataset: tuple[str, ...], rows: int, seed: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The records, and what the card says of a server's log among them."""
    from suffice.budget import estimate_tokens
    from suffice.data import AnswerSummary, read_answers

    records: list[dict[str, Any]] = []
    learned: dict[str, Any] = {}
    for spec in dataset:
        summary = AnswerSummary()
        if "://" in spec:
            found, learned["traffic"] = _read_log(spec, rows, summary)
            records += found
        else:
            records += read_answers(spec, estimate_tokens, summary, seed=seed)
        print(f"{_shown(spec)}: {summary.describe()}", *summary.notes, sep="\n", file=sys.stderr)
    if len(records) < _MIN_ROWS:
        raise DataError(f"{len(records)} answers are too few to learn from and to measure: give {_MIN_ROWS} or more")
    if len(records) > rows:
        tell(f"notice: the last {rows} of {len(records)} answers are used; --rows takes more")
        records = records[-rows:]
    return records, learned


@packages_of("serve", "a server's log needs")
def _read_log(url: str, rows: int, summary: AnswerSummary) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    from suffice.serve.learning.observations import read_log

    return read_log(url, rows, summary)


def _shown(spec: str) -> str:
    """A dataset's name without a password."""
    return re.sub(r"(://[^/@]*:)[^@]*@", r"\1***@", spec)


def _reason_to_keep(ratio: float, output: Path) -> str | None:
    """Why a model with this held-out pinball ratio is not worth saving in `output`; None where it is."""
    from suffice.budget.length_model.state import FILE_NAME, read_card

    if ratio >= 1:
        return "on these answers it does no better than a constant; --force saves it"
    card = read_card(output / FILE_NAME)
    if card is None or "pinball" not in card:
        return None
    before = float(card["pinball"]) / max(float(card["pinball_constant"]), 1e-9)
    if before >= ratio:
        return None
    return f"the model in {output} has the better ratio, {before:.3f} against {ratio:.3f}; --force replaces it"


def _plot(coverage: tuple[float, ...], path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("--plot needs matplotlib: pip install 'suffice[train]'") from None
    from suffice.budget.length_model.evaluate import EVALUATED

    figure = Figure(figsize=(5, 5))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", label="as promised")
    axes.plot(EVALUATED, coverage, marker="o", label="held-out answers")
    axes.set_xlabel("quantile")
    axes.set_ylabel("share of answers within it")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    print(f"plot: {path}")


_PARAMETERS = [click.Argument(["dataset"], nargs=-1, required=True, type=click.Path()), *options_of(FitOptions)]
command = Command("fit", callback=_run, params=_PARAMETERS, help=_run.__doc__, examples=_EXAMPLES)
