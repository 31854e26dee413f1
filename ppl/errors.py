"""The errors that `ppl` raises: one base class, with subclasses of the built-in types that callers would catch.

Every message is one line that says what is wrong, gives the offending value or shape, and names the fix.
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
    """A value, shape or combination of arguments cannot work."""


class PPLTypeError(PPLError, TypeError):
    """An argument is of a type that is not understood."""


class PPLFileNotFoundError(PPLError, FileNotFoundError):
    """A file or folder is missing."""

    def __str__(self) -> str:
        """Return the message alone; `OSError` would print its errno tuple."""
        return str(self.args[0]) if self.args else ""


class MissingExtraError(PPLError, ImportError):
    """A feature needs a package that only an extra installs."""


def nearest(word: str, words: Iterable[str], count: int = 3) -> str:
    """Return the end of an error message about an unknown word.

    Args:
        word: word as it was written.
        words: known words.
        count: largest number of similar words to offer.

    Returns:
        "; did you mean ...?" with similar words, else "; there are: ..." with the known words, else an empty text.

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
