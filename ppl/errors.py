"""The errors that a caller meets: one base, and under it the built-in types that a caller would catch.

Every message says what is wrong, gives the offending value or shape, and names the fix, in one line.
"""

from __future__ import annotations

__all__ = ["MissingExtraError", "PPLError", "PPLFileNotFoundError", "PPLTypeError", "PPLValueError"]


class PPLError(Exception):
    """Base of every error that `ppl` raises on purpose.

    Example:
        >>> from ppl.errors import PPLError, PPLValueError
        >>> issubclass(PPLValueError, PPLError) and issubclass(PPLValueError, ValueError)
        True
    """


class PPLValueError(PPLError, ValueError):
    """A value, shape or combination of arguments that cannot work."""


class PPLTypeError(PPLError, TypeError):
    """An argument of a type that is not understood."""


class PPLFileNotFoundError(PPLError, FileNotFoundError):
    """A file or folder that should be there is not."""

    def __str__(self) -> str:
        """The message alone: `OSError` would print its errno tuple."""
        return str(self.args[0]) if self.args else ""


class MissingExtraError(PPLError, ImportError):
    """A feature needs a package that only one of the extras installs."""
