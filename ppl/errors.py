"""The errors that a caller meets: one base, and under it the built-in types that a caller would catch.

Every message says what is wrong, gives the offending value or shape, and names the fix, in one line.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["MissingExtraError", "PPLError", "PPLFileNotFoundError", "PPLTypeError", "PPLValueError", "nearest"]


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


def nearest(word: str, words: Iterable[str], count: int = 3) -> str:
    """The end of an error message: "; did you mean ...?", or the words there are, or nothing.

    Args:
        word: as it was written.
        words: those that are known.
        count: how many to offer at the most.

    Returns:
        Text to put behind what was wrong.

    Example:
        >>> nearest("dgo", ["dog", "cat"])
        "; did you mean 'dog'?"
        >>> nearest("zebra", ["dog", "cat"])
        '; there are: dog, cat'
    """
    words = list(words)
    by_lower = {other.lower(): other for other in words}
    close = [by_lower[match] for match in get_close_matches(word.lower(), by_lower, n=count)]
    if close:
        return "; did you mean " + " or ".join(map(repr, close)) + "?"
    if not words:
        return ""
    return "; there are: " + ", ".join(words[:20]) + (", ..." if len(words) > 20 else "")
