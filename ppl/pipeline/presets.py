"""Presets: several keys of a recipe under one name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from ppl.errors import PPLValueError, nearest

__all__ = ["DEFAULT_PRESET", "PRESETS", "set_preset", "with_preset"]

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "paper": {"model": {"padding": "zeros", "pooling": "average"}, "cam": {"method": "auto", "branch": "all"}},
        "propagated": {"cam": {"method": "propagated_cam"}, "refine": ["pixel_classifier", "crf: irn"]},
    }
)
"""Sections and keys by the name of a preset.

`paper` is what figures 2 and 5 of the paper draw: patches know nothing of their neighbours, so convolutions see zeros
beyond a patch; the merged maps and the un-patched map are concatenated and classified after average pooling; CAMs are
read from that classifier, that is, from all branches together. The paper's abstract and figures leave open the
backbone, the cuts and grids, the epochs of each phase, the optimiser and its learning rate, the sizes of the images,
the scales of the CAMs, the background threshold and the refinement: these keep our defaults.

`propagated` had the best masks of photographs in our study; on garments and on faults of a few pixels other recipes
are better (docs/results_voc.md). The sharpened CAM is averaged over cells of similar features, after which the
label-free background rule finds the object. A linear classifier of pixels is fitted to the masks of all training
images, and its probabilities are averaged with those of each map. Recipes start from this preset. `ppl.cam.generate`
does not, because the method needs a backbone with stages and a classifier with class activation maps.
"""

DEFAULT_PRESET: Final = "propagated"
"""The preset of a recipe that names none; `preset: null` leaves the defaults of the sections."""


def with_preset(content: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the keys of the preset that a recipe names, or of the default one. Keys that the recipe sets itself stay.

    Args:
        content: the content of a recipe.

    Raises:
        PPLValueError: if there is no preset of that name.

    Example:
        >>> with_preset({"preset": "paper", "model": {"padding": "reflect"}})["model"]
        {'padding': 'reflect', 'pooling': 'average'}
    """
    name = content.get("preset", DEFAULT_PRESET)
    return dict(content) if name is None else _merged(_find(name), content)


def set_preset(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Set the keys of a preset in a recipe, also those that the recipe sets itself.

    Example:
        >>> set_preset({"model": {"padding": "reflect"}}, "paper")["model"]
        {'padding': 'zeros', 'pooling': 'average'}
    """
    return _merged(content, {**_find(name), "preset": name})


def _find(name: Any) -> Mapping[str, Any]:
    if name not in PRESETS:
        raise PPLValueError(f"no preset named {name!r}{nearest(str(name), PRESETS)}")
    return PRESETS[name]


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return both, section by section; the keys of `above` win."""
    merged = {**below, **above}
    for section in below.keys() & above.keys():
        if isinstance(below[section], Mapping) and isinstance(above[section], Mapping):
            merged[section] = {**below[section], **above[section]}
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in merged.items()}
