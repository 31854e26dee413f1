"""The error of a backbone that cannot be cut into patches."""

from __future__ import annotations

from ppl.errors import PPLValueError

__all__ = ["UnsupportedBackboneError"]


class UnsupportedBackboneError(PPLValueError):
    """A backbone or a cut that is not supported; the message names the reason and an alternative."""
