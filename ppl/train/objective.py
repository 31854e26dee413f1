"""Model and losses as one Module, which is compiled, run in mixed precision and wrapped for several processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ppl.backbones.dummy import make_dummy, trial
from ppl.backbones.size_errors import size_error
from ppl.engine.unused import unused_parameters
from ppl.errors import PPLValueError
from ppl.models import PPLNet
from ppl.train.auxiliary import AUXILIARY, Views
from ppl.train.config import split_weight
from ppl.train.losses import Loss, bind_options
from ppl.train.schedules import PLAIN

__all__ = ["Objective", "unfit_auxiliary"]


def unfit_auxiliary(mode: str) -> frozenset[str]:
    """Return the names of the auxiliary losses that need patches which a model of a mode does not have.

    Example:
        >>> sorted(unfit_auxiliary("baseline")), sorted(unfit_auxiliary("explicit"))
        (['consistency', 'patches'], [])
    """
    return {"baseline": frozenset({"consistency", "patches"}), "control": frozenset({"patches"})}.get(mode, frozenset())


class Objective(nn.Module):
    """From images and tags to the losses of one phase.

    Args:
        model: the classifier, which becomes a submodule.
        classify: classification loss, `(logits, targets) -> scalar`.
        auxiliary: auxiliary losses with their weights (and options), as in `TrainConfig.auxiliary`.

    Raises:
        PPLValueError: if an auxiliary loss is unknown, or needs patches and the model has none.
    """

    def __init__(
        self, model: PPLNet, classify: Loss, auxiliary: Mapping[str, float | dict[str, Any]] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.classify = classify
        self.plain = False
        self.weights: dict[str, float] = {}
        self._auxiliary = {}
        for name, value in (auxiliary or {}).items():
            self.weights[name], options = split_weight(name, value)
            self._auxiliary[name] = bind_options(name, AUXILIARY.find(name), options)
        for name in sorted(unfit_auxiliary(model.mode) & set(self.weights)):
            raise PPLValueError(f"auxiliary loss {name!r} compares or scores patches; mode {model.mode!r} has none")

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of the result of `forward`."""
        return ("loss", "loss_class", *(f"loss_{name}" for name in self._auxiliary)) if self._auxiliary else ("loss",)

    def set_phase(self, phase: int) -> None:
        """Choose the phase that the next forward pass trains; `PLAIN` is the last classifier, without patches."""
        self.plain = phase == PLAIN
        self.model.set_phase(self.model.num_phases - 1 if self.plain else phase)

    def forward(self, images: Tensor, targets: Tensor, ramp: Tensor) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            images: (B, 3, H, W), normalised.
            targets: (B, K) of zeros and ones.
            ramp: scalar in [0, 1], a factor of the weights of all auxiliary losses.

        Returns:
            A float32 scalar per name; only the first, the weighted sum of the others, has a gradient.
        """
        views = self._views(images, targets)
        total = self.classify(views.pool(views.maps), targets)
        parts = [total.detach()]
        for name, loss in self._auxiliary.items():
            value = loss(views, self.classify)
            total = total + ramp * self.weights[name] * value
            parts.append(value.detach())
        # Without auxiliary losses, the total is the only one. Torch 2.6 cannot compile `strict=`.
        return dict(zip(self.names, [total, *parts]))  # noqa: B905

    def check(self, phases: Iterable[int], size: tuple[int, int]) -> None:
        """Compute the losses of every phase on a black image, so that a fault of a late phase is found at the start.

        Model and random state do not change.

        Args:
            phases: as for `set_phase`.
            size: (H, W) of the training images.

        Raises:
            PPLValueError: names the loss, the phase and the size.
        """
        image = make_dummy(self.model.backbone, size)
        targets = torch.zeros(1, self.model.num_classes, device=image.device)
        with trial(self) as twin:
            for phase in phases:
                twin.set_phase(phase)
                twin._check_phase(image, targets)

    def leaves_out_parameters(self, phases: Iterable[int], size: tuple[int, int]) -> bool:
        """Tell whether the loss of a phase, on a black image, does not depend on all trained parameters.

        Args:
            phases: as for `set_phase`.
            size: (H, W) of the training images.
        """
        image = make_dummy(self.model.backbone, size)
        targets = torch.zeros(1, self.model.num_classes, device=image.device)
        with trial(self) as twin, torch.enable_grad():
            for phase in phases:
                twin.set_phase(phase)
                if unused_parameters(twin, twin(image, targets, image.new_ones(()))["loss"]):
                    return True
        return False

    def _check_phase(self, image: Tensor, targets: Tensor) -> None:
        names = ["the classification loss"]

        def losses() -> None:
            views = self._views(image, targets)
            self.classify(views.pool(views.maps), targets)
            for auxiliary, loss in self._auxiliary.items():
                names.append(f"auxiliary loss {auxiliary!r}")
                loss(views, self.classify)

        error = size_error(losses)
        if error is not None:
            where = "the warm-up" if self.plain else f"phase {self.model.phase}"
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
            raise PPLValueError(
                f"{names[-1]} fails in {where} on images of {image.shape[-2]}x{image.shape[-1]} ({reason}); "
                "give another size, change the loss's options or leave the loss out"
            ) from error

    def _views(self, images: Tensor, targets: Tensor) -> Views:
        return Views(
            images=images,
            targets=targets,
            branches=self._branches(images),
            grids=_grids(self.model),
            maps_of=lambda view: torch.stack(self._branches(view)).sum(0),
            pool=self.model.pool,
        )

    def _branches(self, images: Tensor) -> list[Tensor]:
        """Return class maps (B, K, h, w) of every branch, in float32: half precision is too coarse for losses."""
        maps = self.model.unpatched_class_maps(images) if self.plain else self.model.branch_class_maps(images)
        return [branch.float() for branch in maps]


def _grids(model: PPLNet) -> tuple[tuple[int, int], ...]:
    """Return the grid of each patched branch."""
    return (model.grids[model.phase],) if model.mode == "progressive" else model.grids
