"""From the length model to the budget: what is expected, and why; never how long an answer may be.

Knows where models lie (a given path, SUFFICE_LENGTH_MODEL, the package) and does without one where numpy is missing.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suffice.budget.types import Quantiles, Question
from suffice.immutable import immutable

if TYPE_CHECKING:
    from suffice.budget.length_model import LengthKey, LengthModel

__all__ = ["ENVIRONMENT_VARIABLE", "Forecast", "Forecaster"]

ENVIRONMENT_VARIABLE = "SUFFICE_LENGTH_MODEL"
_PACKAGED = Path(__file__).with_name("length_model") / "default" / "length_model.npz"


@immutable
class Forecast:
    """What a length model expects of one answer."""

    quantiles: Quantiles
    """(p, tokens) as in `Budget`, not clipped."""
    reason: str
    """Where that comes from, in a short sentence for a person."""


class Forecaster:
    """A length model, read when it is first needed: a budget that needs none costs no numpy."""

    def __init__(self, model: LengthModel | None = None) -> None:
        """
        Args:
            model: the model; None takes the packaged one at the first question.
        """
        self._model = model

    @classmethod
    def load(cls, path: Path | None = None) -> Forecaster | None:
        """The model at `path`, else the one that SUFFICE_LENGTH_MODEL names, else the packaged one.

        Returns None where there is only the packaged one and it cannot be used: numpy is not installed.

        Raises:
            DataError: the model that was asked for is missing, damaged, or of a newer release; or numpy is missing.
        """
        from suffice.errors import DataError

        named = path or os.environ.get(ENVIRONMENT_VARIABLE)
        has_numpy = find_spec("numpy") is not None
        if not named:
            return cls() if has_numpy and _PACKAGED.is_file() else None
        if not has_numpy:
            raise DataError(f"the length model {named} needs numpy: pip install 'suffice[fit]'")
        from suffice.budget.length_model import LengthModel

        return cls(LengthModel.load(Path(named).expanduser()))

    @property
    def model(self) -> LengthModel:
        """The model itself, for whoever has answers to learn from (`learn`, `observe`)."""
        if self._model is None:
            self._model = _packaged().untaught()
        return self._model

    def look(self, question: Question, *, predicted: bool) -> LengthKey | None:
        """What the model needs to predict the answer to `question`, and to learn from it once it is there.

        None for what is not predicted, as long as nobody has needed the model.
        """
        return (
            None if self._model is None and not predicted else self.model.look(_record(question), predicted=predicted)
        )

    def expect(self, asked: LengthKey) -> Forecast:
        """What the answer will probably take."""
        prediction = self.model.foresee(asked)
        return Forecast(prediction.quantiles(), f"expected length: from {prediction.source}")


@cache
def _packaged() -> LengthModel:
    from suffice.budget.length_model import LengthModel

    return LengthModel.load(_PACKAGED)


def _record(question: Question) -> dict[str, Any]:
    content = {"messages": question.conversation} if question.conversation else {"prompt": question.text}
    who = {"model": question.model, "client": question.client, "route": question.route}
    return {**question.more, **content, "system": question.system, "prompt_tokens": question.prompt_tokens, **who}
