"""Put modules in eval mode for a while."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

__all__ = ["EvalMode", "forget_biases"]

_BIASES = "attention_bias_cache"


class EvalMode:
    """Put exactly these modules (not their children) in eval mode, and restore their mode afterwards.

    Example:
        >>> model = nn.Sequential(nn.Dropout(0.5)).train()
        >>> with EvalMode(model.modules()):
        ...     model[0].training
        False
        >>> model[0].training
        True
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.trained = [module for module in modules if module.training]

    def __enter__(self) -> None:
        """Switch to eval mode."""
        forget_biases(self.trained)
        for module in self.trained:
            module.training = False

    def __exit__(self, *error: object) -> None:
        """Switch back, even after an exception."""
        for module in self.trained:
            module.training = True
        forget_biases(self.trained)


def forget_biases(modules: Iterable[nn.Module]) -> None:
    """Empty the caches in which LeViT, TinyViT and similar networks keep values of their weights in eval mode.

    timm empties them in `train()`, `eval()` and `to()`, but not when weights are loaded.
    """
    for module in modules:
        if hasattr(module, _BIASES):
            setattr(module, _BIASES, {})
