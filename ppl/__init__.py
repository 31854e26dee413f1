"""Progressive Patch Learning: from images that carry only tags to masks of what the tags name.

Sub-packages load on first use, so that `import ppl` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ppl.errors import PPLError

if TYPE_CHECKING:
    from ppl import backbones, cam, data, io, layers, metrics, models, pipeline, refine, report, segment, train
    from ppl.backbones import check_backbone
    from ppl.models import PPLNet, create_model, load_model, save_model

__version__ = "0.1.0"

_NAMES = {
    "PPLNet": "ppl.models",
    "check_backbone": "ppl.backbones",
    "create_model": "ppl.models",
    "load_model": "ppl.models",
    "save_model": "ppl.models",
}
_PACKAGES = (
    "backbones",
    "cam",
    "data",
    "io",
    "layers",
    "metrics",
    "models",
    "pipeline",
    "refine",
    "report",
    "segment",
    "train",
)

__all__ = [
    "PPLError",
    "PPLNet",
    "__version__",
    "backbones",
    "cam",
    "check_backbone",
    "create_model",
    "data",
    "io",
    "layers",
    "load_model",
    "metrics",
    "models",
    "pipeline",
    "refine",
    "report",
    "save_model",
    "segment",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"ppl.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'ppl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
