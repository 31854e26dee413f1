"""Packages that only some users need: imported when first used, with an error that names the line to type."""

from __future__ import annotations

import importlib
from typing import Any

from ppl.errors import MissingExtraError

__all__ = ["require"]


def require(module: str, extra: str) -> Any:
    """Import an optional module.

    Args:
        module: dotted name, as in an import statement.
        extra: the extra of the distribution `ppl-wsss` that installs it.

    Returns:
        The module.

    Raises:
        MissingExtraError: if it is not installed; the message holds the `pip install` line.

    Example:
        >>> require("math", extra="test").sqrt(9.0)
        3.0
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f'{module} is not available ({error}); install it with: pip install "ppl-wsss[{extra}]"'
        ) from error
