"""A marker for tests of models that the oldest timm lacks, and a garbage collector that leaves the imports alone."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest
import timm


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Keep what the imports have made, half a million objects, out of all later searches for garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "timm_model(name): skip where timm lacks the model")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("timm_model"):
        if not timm.is_model(marker.args[0]):
            pytest.skip(f"timm {timm.__version__} has no {marker.args[0]}")
