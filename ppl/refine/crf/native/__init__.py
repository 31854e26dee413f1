"""The native engine: exact mean field on permutohedral lattices, compiled by numba, one thread for each image."""

from __future__ import annotations

from ppl.refine.crf.native.meanfield import mean_field

__all__ = ["mean_field"]
