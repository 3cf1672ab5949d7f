"""`suffice fit`: a length model out of your own answers, with honest figures."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from suffice.cli.command import Command, Option
from suffice.errors import DataError, UsageError

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


def _run(dataset: tuple[str, ...], output: Path, rows: int, seed: int, force: bool, plot: Path | None) -> int:
    """Learn from DATASET how long answers get, from their prompts and from who asks.

    A row needs an answer, or its number of tokens. For a server's log, give the URL of its database; the log has no
    prompts. The figures shown are measured on held-out answers, next to those of the best constant. A model in --output
    that does better on these answers is not replaced.
    """
    try:
        from suffice.budget.length_model import LengthModel
        from suffice.budget.length_model.evaluate import evaluate
    except ImportError:
        raise UsageError("suffice fit needs numpy: pip install 'suffice[fit]'") from None
    from suffice.cli.progress import ProgressBar

    records, learned = _read(dataset, rows, seed)
    with ProgressBar("held-out figures", None, "steps") as progress:
        figures = evaluate(records, lambda done, total: progress.update(done, f"of {total}"))
    print(figures.describe())
    if plot is not None:
        _plot(figures.coverage, plot)
    if figures.ratio >= 1 and not force:
        print("not saved: on these answers it does no better than a constant; --force saves it", file=sys.stderr)
        return 1
    before = _ratio_there(output)
    if before is not None and before < figures.ratio and not force:
        print(
            f"not saved: the model in {output} has the better ratio, {before:.3f} against {figures.ratio:.3f}; "
            "--force replaces it",
            file=sys.stderr,
        )
        return 1
    with ProgressBar("training on all answers", None, "steps") as progress:
        model = LengthModel.fit(records, on_step=lambda done, total: progress.update(done, f"of {total}"))
    names = [Path(_shown(spec)).name for spec in dataset]
    model.card = {"rows": len(records), "datasets": names, **figures.to_dict(), **learned}
    print(f"saved: {model.save(output)}")
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
        print(f"notice: the last {rows} of {len(records)} answers are used; --rows takes more", file=sys.stderr)
        records = records[-rows:]
    return records, learned


def _read_log(url: str, rows: int, summary: AnswerSummary) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    try:
        from suffice.serve.learning.observations import read_log

        return read_log(url, rows, summary)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("suffice"):
            raise
        raise UsageError(f"a server's log needs the package {error.name}: pip install 'suffice[serve]'") from None


def _shown(spec: str) -> str:
    """A dataset's name without a password."""
    return re.sub(r"(://[^/@]*:)[^@]*@", r"\1***@", spec)


def _ratio_there(output: Path) -> float | None:
    """The held-out pinball ratio of the model that is in `output`, or None without one."""
    from suffice.budget.length_model.state import FILE_NAME, read_card

    card = read_card(output / FILE_NAME)
    if card is None or "pinball" not in card:
        return None
    return float(card["pinball"]) / max(float(card["pinball_constant"]), 1e-9)


def _plot(coverage: tuple[float, ...], path: Path) -> None:
    """Promised against measured coverage, as PNG."""
    try:
        import matplotlib
    except ImportError:
        raise UsageError("--plot needs matplotlib: pip install 'suffice[train]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    from suffice.budget.length_model.evaluate import EVALUATED

    figure, axes = pyplot.subplots(figsize=(5, 5))
    axes.plot([0, 1], [0, 1], color="0.7", label="as promised")
    axes.plot(EVALUATED, coverage, marker="o", label="held-out answers")
    axes.set_xlabel("quantile")
    axes.set_ylabel("share of answers within it")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
    print(f"plot: {path}")


command = Command(
    "fit",
    callback=_run,
    params=[
        click.Argument(["dataset"], nargs=-1, required=True),
        Option(
            ["--output"], type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the model."
        ),
        Option(
            ["--rows"],
            type=click.IntRange(min=_MIN_ROWS),
            default=20_000,
            show_default=True,
            help="The most answers to learn from: the last ones.",
        ),
        Option(["--seed"], type=int, default=0, show_default=True, help="Seed that chooses the rows of FILE#N."),
        Option(["--force"], is_flag=True, help="Save the model even if a constant does as well."),
        Option(["--plot"], type=click.Path(path_type=Path, dir_okay=False), help="Write the calibration as PNG."),
    ],
    help=_run.__doc__,
    examples=_EXAMPLES,
)
