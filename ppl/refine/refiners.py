"""The table of refiners, by the names that recipes use.

A refiner is a function `(image, probs, *, option=default, ...) -> probs`. It takes an image `(H, W, 3)` uint8 and
probabilities `(L, H, W)` with the background in channel 0, and returns scores of the same shape, which need not sum to
1. A third parameter named `labels` gets the label of each channel in a mask, `(L,)`: 0, and class c as c + 1. A recipe
may set its keyword-only parameters, the options. Their type hints give the allowed types and ranges. The first option
is the main one, which `name: value` in a recipe sets.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ppl.errors import PPLTypeError
from ppl.parameters import known_parameters
from ppl.refine.adaptive import pixel_adaptive
from ppl.refine.crf_refiner import crf_refiner, resolve_crf_options
from ppl.refine.guided import guided_filter
from ppl.refine.pixel_refiner import pixel_classifier
from ppl.refine.segment_anything import sam
from ppl.refine.segments import superpixels
from ppl.refine.walk_features import feature_walk
from ppl.refine.walk_refiner import random_walk_refiner, resolve_walk_options
from ppl.registry import Registry

__all__ = ["REFINERS", "Refiner", "main_option", "register_refiner", "resolve_options", "takes_labels"]

Refiner: TypeAlias = Callable[..., Any]

REFINERS: Registry[Refiner] = Registry("refiner")
"""Name in a recipe -> the refiner."""


def register_refiner(name: str, refiner: Refiner) -> None:
    """Add a refiner, so that recipes, `ppl refine` and `parse_refiners` know its name.

    Args:
        name: the name, which must not be taken.
        refiner: a function `(image, probs, *, option=default, ...) -> probs`; see the module `ppl.refine.refiners`.

    Raises:
        PPLTypeError: if the function does not take two positional arguments, or an option has no default.
        PPLValueError: if there is another refiner of that name.

    Example:
        >>> def sharpen(image, probs, *, power: float = 2.0):
        ...     return probs**power
        >>> register_refiner("sharpen", sharpen)
        >>> from ppl.refine import parse_refiners
        >>> [spec.label for spec in parse_refiners("sharpen: 3")]
        ['sharpen: 3.0']
    """
    try:
        inspect.signature(refiner).bind("image", "probs", *(["labels"] if takes_labels(refiner) else []))
    except (TypeError, ValueError) as error:
        raise PPLTypeError(
            f"the refiner {name!r} cannot be called as refiner(image, probs): {error}; define it as"
            " def refiner(image, probs, *, option=default)"
        ) from None
    REFINERS.register(name, refiner)


def takes_labels(refiner: Refiner) -> bool:
    """Return whether the third parameter of a refiner is named `labels`."""
    return list(inspect.signature(refiner).parameters)[2:3] == ["labels"]


def main_option(name: str) -> str | None:
    """Return the option that `name: value` in a recipe sets; None if the refiner has no options.

    Example:
        >>> main_option("crf")
        'preset'
    """
    return next(iter(known_parameters(REFINERS.find(name))), None)


def resolve_options(name: str, given: Mapping[str, Any], device: str = "cpu") -> dict[str, Any]:
    """Return the value of every option of a refiner, for records: the given values, else the defaults.

    Args:
        name: name of the refiner.
        given: values by option.
        device: device of the CRF, on which its engine depends.

    Example:
        >>> resolve_options("guided_filter", {"radius": 4})
        {'radius': 4, 'eps': 0.0001}
    """
    options = {**known_parameters(REFINERS.find(name)), **given}
    return _RESOLVERS[name](options, device) if name in _RESOLVERS else options


# Refiners some of whose options default to None, which stands for a value that depends on other options.
_RESOLVERS: dict[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
    "crf": resolve_crf_options,
    "random_walk": resolve_walk_options,
}

register_refiner("crf", crf_refiner)
register_refiner("feature_walk", feature_walk)
register_refiner("guided_filter", guided_filter)
register_refiner("pixel_adaptive", pixel_adaptive)
register_refiner("pixel_classifier", pixel_classifier)
register_refiner("random_walk", random_walk_refiner)
register_refiner("sam", sam)
register_refiner("superpixels", superpixels)
