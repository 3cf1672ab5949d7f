"""The measurement: lengths of prompts, answers and both, as a whole and by column, from a stream of records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from suffice.profiling.histogram import Histogram
from suffice.profiling.records import LengthRecord
from suffice.profiling.words import WordSample

__all__ = ["GroupLengths", "Lengths", "Profile", "measure"]

_GROUPS = 1000  # values of a column that are told apart; what comes after them is counted together
OTHERS = "(other values)"
_LEAST_SPIKE = 5
_SPIKE_TOKENS = 64  # a spike at a smaller length is more probably the answers' own (labels, yes and no)
_SPIKE_DENSITY = 10  # times as many rows at the longest length as at the average length just below it
_UNMEASURED = ("cancelled", "error")  # answers that ended so say nothing about how long answers are


class GroupLengths:
    __slots__ = ("answer", "cut", "finishes", "looped", "prompt", "records")

    def __init__(self) -> None:
        self.prompt = Histogram()
        self.answer = Histogram()
        """All answers that were measured, those that a limit or a loop ended at the length they had."""
        self.cut = Histogram()
        """Those of them that a limit ended: they would have been longer."""
        self.looped = Histogram()
        """Those of them that were stopped in a loop: no limit suffices for them, and none should."""
        self.finishes: Counter[str] = Counter()
        self.records = 0

    def add(self, record: LengthRecord) -> None:
        prompt, answer, finish = record.prompt_tokens, record.answer_tokens, record.finish
        self.records += 1
        if prompt is not None:
            self.prompt.add(prompt)
        if finish is not None:
            self.finishes[finish] += 1
            if finish in _UNMEASURED:
                return
        if answer is not None:
            self.answer.add(answer)
            if finish == "length":
                self.cut.add(answer)
            elif finish == "repetition":
                self.looped.add(answer)

    @property
    def known_finishes(self) -> int:
        """Measured answers of which it is known why they ended."""
        return self.finishes.total() - sum(self.finishes[name] for name in _UNMEASURED)

    def spike(self) -> tuple[int, int] | None:
        """(length, answers) where so many answers have exactly the longest length that a limit must have cut them.

        Looked for only where no finish reason says which were cut.
        """
        longest, rows = self.answer.largest, self.answer.times(self.answer.largest)
        if self.known_finishes or longest < _SPIKE_TOKENS or rows < _LEAST_SPIKE:
            return None
        width = longest // 10
        below = self.answer.over(longest - width - 1) - rows
        return (longest, rows) if rows * width > _SPIKE_DENSITY * max(below, 1) else None


class Lengths(GroupLengths):
    """The same of all records, with prompt and answer together."""

    __slots__ = ("whole",)

    def __init__(self) -> None:
        super().__init__()
        self.whole = Histogram()

    def add(self, record: LengthRecord) -> None:
        super().add(record)
        if record.prompt_tokens is not None and record.answer_tokens is not None and record.finish not in _UNMEASURED:
            self.whole.add(record.prompt_tokens + record.answer_tokens)


class Profile:
    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self.all = Lengths()
        self.words = WordSample()
        self._groups: tuple[dict[str, GroupLengths], ...] = tuple({} for _ in columns)

    def add(self, record: LengthRecord) -> None:
        self.all.add(record)
        for table, value in zip(self._groups, record.groups, strict=False):
            if value is not None:
                if value not in table:
                    value = value if len(table) < _GROUPS else OTHERS
                    table.setdefault(value, GroupLengths())
                table[value].add(record)
        if record.prompt and record.answer_tokens is not None and record.finish not in _UNMEASURED:
            self.words.add(record.prompt, record.answer_tokens)

    def groups(self) -> dict[str, dict[str, GroupLengths]]:
        """By column, by value, the most frequent value first; columns with no value left out."""
        return {
            column: dict(sorted(table.items(), key=lambda item: (-item[1].records, item[0])))
            for column, table in zip(self.columns, self._groups, strict=True)
            if table
        }


def measure(
    records: Iterable[LengthRecord], columns: Sequence[str] = (), on_progress: Callable[[int], None] = lambda _: None
) -> Profile:
    """Measure every record, in one pass and bounded memory.

    Args:
        columns: names of the values in `LengthRecord.groups`, in their order.
        on_progress: called now and then with the number of records so far.
    """
    profile = Profile(columns)
    for number, record in enumerate(records, 1):
        profile.add(record)
        if not number & 1023:
            on_progress(number)
    on_progress(profile.all.records)
    return profile
