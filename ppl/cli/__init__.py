"""The command line: parse the options, call the library, print the results."""

from __future__ import annotations

from ppl.cli.app import main

__all__ = ["main"]
