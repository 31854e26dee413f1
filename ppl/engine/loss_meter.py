"""Mean losses that stay on the device until an epoch ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ppl.errors import PPLError

__all__ = ["LossMeter", "NonFiniteLossError", "check_weights"]


_REMEDY = 'lower lr, set clip_grad, or use precision "bf16" instead of "fp16"; the last good checkpoint is kept'


class NonFiniteLossError(PPLError, ArithmeticError):
    """The loss or the weights became NaN or infinite."""


class LossMeter:
    """The means of several losses, and the first step with a loss that is not finite, without waiting for the device.

    Example:
        >>> meter = LossMeter(("loss",), torch.device("cpu"))
        >>> for step, value in enumerate([1.0, 3.0]):
        ...     meter.update({"loss": torch.tensor(value)}, step)
        >>> meter.compute()
        {'loss': 2.0}
    """

    def __init__(self, names: tuple[str, ...], device: torch.device) -> None:
        self.names = names
        dtype = torch.float32 if device.type == "mps" else torch.float64  # Metal has no float64
        self.sums = torch.zeros(len(names) + 1, dtype=dtype, device=device)  # the last entry is the count
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)

    def update(self, losses: Mapping[str, Tensor], step: int) -> None:
        """Add the scalar losses of a batch in an optimizer step."""
        values = torch.stack([losses[name].detach() for name in self.names])
        self.sums[:-1] += values
        self.sums[-1] += 1
        bad = ~values.isfinite().all() & (self.first_bad < 0)
        self.first_bad = torch.where(bad, step, self.first_bad)

    def reset(self) -> None:
        """Start a new mean."""
        self.sums.zero_()

    def check(self, epoch: int) -> None:
        """Wait for the device and raise NonFiniteLossError if a loss was not finite."""
        step = int(self.first_bad)
        if step >= 0:
            raise NonFiniteLossError(f"the loss is not finite since step {step} (epoch {epoch}): {_REMEDY}")

    def compute(self, sums: Tensor | None = None) -> dict[str, float]:
        """Return the means, of `sums` over several processes if they are given."""
        *totals, count = (self.sums if sums is None else sums).tolist()
        return {name: total / max(count, 1) for name, total in zip(self.names, totals, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, for a checkpoint within an epoch."""
        return {"sums": self.sums.cpu().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the sums of a checkpoint."""
        self.sums.copy_(state["sums"])


@torch.no_grad()
def check_weights(model: nn.Module, step: int, epoch: int) -> None:
    """Raise NonFiniteLossError if a weight is not finite.

    The losses alone do not show a last step that broke the weights.
    """
    norms = torch._foreach_norm([parameter for parameter in model.parameters() if parameter.numel()])
    if not torch.stack([norm.float() for norm in norms]).isfinite().all():
        raise NonFiniteLossError(f"the weights are not finite after step {step} (epoch {epoch}): {_REMEDY}")
