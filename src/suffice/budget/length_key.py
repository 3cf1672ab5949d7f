"""What the length model keeps of a request until its answer is there: hashes and numbers, no text and no names."""

from __future__ import annotations

import math
from typing import Any, Self

from suffice.errors import DataError
from suffice.immutable import immutable

__all__ = ["LengthKey", "LocationScale"]


@immutable
class LocationScale:
    """What a prompt says of its answer's length: a distribution's location and scale, on the length model's scale."""

    location: float
    scale: float
    novelty: float
    """0 for a prompt like those of training, 1 for one that has nothing in common with them."""


@immutable
class LengthKey:
    """What the length model needs to predict an answer's length, and to learn from it later."""

    groups: tuple[bytes, ...]
    by_prompt: LocationScale | None
    """What its prompt says; None where it has no text, or was not read."""
    predicted: bool
    """Whether the model predicted the answer. Otherwise the answer counts in history and moves no calibration."""

    def to_json(self) -> dict[str, Any]:
        """The key as JSON can hold it, for another process that learns from the answer."""
        said = self.by_prompt and [round(self.by_prompt.location, 6), round(self.by_prompt.scale, 6)]
        return {"groups": [key.hex() for key in self.groups], "outlook": said, "predicted": self.predicted}

    @classmethod
    def from_json(cls, said: Any) -> Self:
        """The inverse of `to_json`.

        Raises:
            DataError: it is not such a key.
        """
        try:
            location, scale = (float(number) for number in said["outlook"] or (0.0, 1.0))
            by_prompt = LocationScale(location, scale, novelty=0.0) if said["outlook"] else None
            if not (math.isfinite(location) and scale > 0):
                raise ValueError(f"a location of {location} and a scale of {scale}")
            return cls(tuple(map(bytes.fromhex, said["groups"])), by_prompt, bool(said["predicted"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not a request to learn from: {type(error).__name__}: {error}") from None
