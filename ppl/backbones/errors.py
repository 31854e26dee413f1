"""The error of a backbone that patches cannot be run through."""

from __future__ import annotations

from ppl.errors import PPLValueError

__all__ = ["UnsupportedBackboneError"]


class UnsupportedBackboneError(PPLValueError):
    """A backbone, or a place in one, that cannot be cut; the message says why and what to take instead."""
