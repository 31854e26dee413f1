"""Import packages that only some users need, on first use; the error names the command that installs them."""

from __future__ import annotations

import importlib
from typing import Any

from ppl.errors import MissingExtraError

__all__ = ["require"]


def require(module: str, extra: str) -> Any:
    """Import an optional module.

    Args:
        module: dotted name, as in an import statement.
        extra: extra of the distribution `ppl-wsss` that installs it.

    Returns:
        The module.

    Raises:
        MissingExtraError: if the module is not installed; the message holds the `pip install` line.

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
