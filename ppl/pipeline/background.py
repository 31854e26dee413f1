"""The background rule as a recipe writes it."""

from __future__ import annotations

from typing import Any

from ppl.cam import PowerBackground
from ppl.errors import PPLValueError

__all__ = ["parse_background"]


def parse_background(value: float | str) -> Any:
    """The background rule that a recipe's `cam.background` stands for.

    Args:
        value: a number in [0, 1], "auto", or "power:ALPHA".

    Returns:
        What `CamResult.to_mask` takes: a float, "auto" or a `PowerBackground`.

    Raises:
        PPLValueError: for anything else.

    Example:
        >>> parse_background(0.2)
        0.2
        >>> parse_background("power:4")
        PowerBackground(alpha=4.0)
    """
    if value == "auto":
        return "auto"
    kind, _, number = value.partition(":") if isinstance(value, str) else ("threshold", "", str(value))
    try:
        if kind == "power":
            return PowerBackground(float(number))
        threshold = float(number or kind)
    except ValueError:
        raise PPLValueError(f'{value!r} is not a number, "auto" or "power:ALPHA" such as "power:4"') from None
    if not 0 <= threshold <= 1:
        raise PPLValueError(f"{value} is outside [0, 1]: maps are scaled to a maximum of 1")
    return threshold
