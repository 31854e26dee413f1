"""A marker for tests of models that the oldest timm lacks."""

from __future__ import annotations

import pytest
import timm


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "timm_model(name): skip where timm lacks the model")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("timm_model"):
        if not timm.is_model(marker.args[0]):
            pytest.skip(f"timm {timm.__version__} has no {marker.args[0]}")
