"""Running means that stay on the device until an epoch ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ppl.errors import PPLError

__all__ = ["LossMeter", "NonFiniteLossError", "check_weights"]


_REMEDY = 'lower lr, set clip_grad, or use precision "bf16" instead of "fp16"; the last good checkpoint is kept'


class NonFiniteLossError(PPLError, ArithmeticError):
    """The loss or the weights became NaN or infinite."""


class LossMeter:
    """Mean of a vector of losses and the first step at which it was not finite, without a copy to the host.

    Args:
        names: what the vector's entries are.
        device: where the losses are.

    Example:
        >>> meter = LossMeter(("loss",), torch.device("cpu"))
        >>> for step, value in enumerate([1.0, 3.0]):
        ...     meter.update(torch.tensor([value]), step)
        >>> meter.compute()
        {'loss': 2.0}
    """

    def __init__(self, names: tuple[str, ...], device: torch.device) -> None:
        self.names = names
        precise = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(len(names) + 1, dtype=precise, device=device)  # the last one counts
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)

    def update(self, losses: Tensor, step: int) -> None:
        """Add (n,) losses of an optimiser step."""
        losses = losses.detach()
        self.sums[:-1] += losses
        self.sums[-1] += 1
        bad = ~losses.isfinite().all() & (self.first_bad < 0)
        self.first_bad = torch.where(bad, step, self.first_bad)

    def reset(self) -> None:
        """Begin anew."""
        self.sums.zero_()

    def check(self, epoch: int) -> None:
        """Copy one number to the host and raise NonFiniteLossError if a loss was not finite."""
        step = int(self.first_bad)
        if step >= 0:
            raise NonFiniteLossError(f"the loss is not finite since step {step} (epoch {epoch}): {_REMEDY}")

    def compute(self, sums: Tensor | None = None) -> dict[str, float]:
        """The means; `sums` may be those of all processes together."""
        *totals, count = (self.sums if sums is None else sums).tolist()
        return {name: total / max(count, 1) for name, total in zip(self.names, totals, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint within an epoch."""
        return {"sums": self.sums.cpu().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.sums.copy_(state["sums"])


@torch.no_grad()
def check_weights(model: nn.Module, step: int, epoch: int) -> None:
    """Raise NonFiniteLossError if a weight is not finite: the last step may break what the next loss would tell."""
    norms = torch._foreach_norm([parameter for parameter in model.parameters() if parameter.numel()])
    if not torch.stack([norm.float() for norm in norms]).isfinite().all():
        raise NonFiniteLossError(f"the weights are not finite after step {step} (epoch {epoch}): {_REMEDY}")
