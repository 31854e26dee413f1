"""Versions of Python, this package and the packages that results depend on."""

from __future__ import annotations

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]

_PACKAGES = (
    *("ppl-wsss", "torch", "torchvision", "timm", "numpy", "scipy", "scikit-image", "pillow", "numba", "accelerate"),
    *("segmentation-models-pytorch", "pydensecrf2", "transformers"),
)


def versions() -> dict[str, str]:
    """Return the versions of Python, the system and the installed packages, by name.

    Example:
        >>> sorted(versions())[:2], "torch" in versions()
        (['accelerate', 'numba'], True)
    """
    system = {"python": platform.python_version(), "platform": platform.platform()}
    return system | {package: found for package in _PACKAGES if (found := _version(package)) is not None}


@functools.cache  # a run asks at every step, and each answer reads a file
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
