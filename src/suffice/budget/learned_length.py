"""The length model among the estimators: read when first needed, and done without where numpy is missing.

Knows where models are: a given path, SUFFICE_LENGTH_MODEL, the package.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from suffice.budget.expectation import Expectation, LengthQuery
from suffice.budget.length_key import LengthKey
from suffice.errors import DataError

if TYPE_CHECKING:
    from suffice.budget.length_model import LengthModel

__all__ = ["ENVIRONMENT_VARIABLE", "LearnedLength"]

ENVIRONMENT_VARIABLE = "SUFFICE_LENGTH_MODEL"
_PACKAGED = Path(__file__).with_name("length_model") / "default" / "length_model.npz"


class LearnedLength:
    """What a length model expects. A budget that does not need it costs no numpy."""

    def __init__(self, model: LengthModel | None = None) -> None:
        """Without a model, takes the packaged one at the first query."""
        self._model = model

    @classmethod
    def load(cls, path: Path | None = None) -> LearnedLength | None:
        """The model at `path`, else the one that SUFFICE_LENGTH_MODEL names, else the packaged one.

        Returns None where there is only the packaged one and it cannot be used: numpy is not installed.

        Raises:
            DataError: the model that was asked for is missing, damaged, or of a newer release; or numpy is missing.
        """
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
        """The model itself, for code that has answers to learn from (`learn`, `observe`)."""
        if self._model is None:
            self._model = _packaged().untaught()
        return self._model

    def estimate(self, query: LengthQuery) -> Expectation:
        """What the model expects. It does not know how much room an answer needs."""
        return self.model.expect(query)

    def unpredicted_key(self, query: LengthQuery) -> LengthKey | None:
        """What the model needs to learn from an answer that another estimator predicted: its prompt is not read.

        None as long as nothing has needed the model.
        """
        return None if self._model is None else self._model.key(query, predicted=False)


@cache
def _packaged() -> LengthModel:
    from suffice.budget.length_model import LengthModel

    return LengthModel.load(_PACKAGED)
