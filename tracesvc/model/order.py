"""Putting numbers in order faster than NumPy does by itself."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["order_of"]

Integers: TypeAlias = NDArray[np.int64]

DIGIT: Final = 1 << 16


def order_of(values: Integers) -> NDArray[Any]:
    """The same as ``np.argsort(values, kind="stable")``.

    NumPy sorts 16-bit numbers by radix, in a tenth of the time that it takes to merge wider ones; task and object
    numbers of a stretch of a trace lie close together.
    """
    if not len(values):
        return np.zeros(0, np.intp)
    low = int(values.min())
    width = int(values.max()) - low
    if width < DIGIT:
        return np.argsort((values - low).astype(np.uint16), kind="stable")
    if width < DIGIT * DIGIT:
        offsets = values - low
        order = np.argsort((offsets & (DIGIT - 1)).astype(np.uint16), kind="stable")
        digits = (offsets >> 16).astype(np.uint16)[order]
        return order[np.argsort(digits, kind="stable")]
    return np.argsort(values, kind="stable")
