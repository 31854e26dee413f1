"""The timm models that the library is measured on."""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources

from torch import nn

__all__ = ["is_known", "variants"]


@cache
def variants() -> tuple[tuple[str, str], ...]:
    """Pairs (timm module, variant): one or a few small variants per timm model file.

    Example:
        >>> len(variants())
        141
    """
    text = resources.files("ppl.backbones").joinpath("variants.tsv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    return tuple((row["module"], row["variant"]) for row in rows)


def is_known(model: nn.Module) -> bool:
    """Whether the model is of a timm file that the published table covers; others are tried before use."""
    package, _, module = type(model).__module__.rpartition(".")
    return package == "timm.models" and any(module == known for known, _ in variants())
