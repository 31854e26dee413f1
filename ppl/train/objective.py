"""Model and losses as one Module: what is compiled, run in mixed precision and wrapped for several processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ppl.backbones.state import make_dummy, untouched
from ppl.errors import PPLValueError
from ppl.models import PPLNet
from ppl.train.auxiliary import AUXILIARY, Views
from ppl.train.config import split_weight
from ppl.train.losses import Loss, bind_options
from ppl.train.schedules import PLAIN

__all__ = ["Objective", "unfit_auxiliary"]


def unfit_auxiliary(mode: str) -> frozenset[str]:
    """Names of the further losses that a model of a mode cannot have, since it has no patches to compare or to score.

    Args:
        mode: of the model.

    Example:
        >>> sorted(unfit_auxiliary("baseline")), sorted(unfit_auxiliary("explicit"))
        (['consistency', 'patches'], [])
    """
    return {"baseline": frozenset({"consistency", "patches"}), "control": frozenset({"patches"})}.get(mode, frozenset())


class Objective(nn.Module):
    """From images and tags to the loss of one stage.

    Args:
        model: the classifier; the objective owns it.
        classify: classification loss, `(logits, targets) -> scalar`.
        auxiliary: names of further losses with their weights (and options), as in `TrainConfig.auxiliary`.

    Raises:
        PPLValueError: if a further loss needs patches and the model has none.
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
            if name not in AUXILIARY:
                raise PPLValueError(f"unknown auxiliary loss {name!r}; choose of {', '.join(AUXILIARY)}")
            self.weights[name], options = split_weight(name, value)
            self._auxiliary[name] = bind_options(name, AUXILIARY[name], options)
        for name in sorted(unfit_auxiliary(model.mode) & set(self.weights)):
            raise PPLValueError(f"auxiliary loss {name!r} compares or scores patches; mode {model.mode!r} has none")

    @property
    def names(self) -> tuple[str, ...]:
        """What the entries of `forward`'s result are."""
        return ("loss", "loss_class", *(f"loss_{name}" for name in self._auxiliary)) if self._auxiliary else ("loss",)

    def set_stage(self, stage: int) -> None:
        """Choose the stage that the next forward trains; `PLAIN` is the last one's classifier without patches."""
        self.plain = stage == PLAIN
        self.model.set_phase(self.model.num_phases - 1 if self.plain else stage)

    def compile_losses(self) -> None:
        """Compile forward pass and losses together, once per stage."""
        self._losses = torch.compile(self._losses)  # type: ignore[method-assign]

    def forward(self, images: Tensor, targets: Tensor, ramp: Tensor) -> Tensor:
        """The loss to descend, and what it is made of.

        Args:
            images: (B, 3, H, W), normalised.
            targets: (B, K) of zeros and ones.
            ramp: scalar in [0, 1] by which the weights of further losses are multiplied.

        Returns:
            (n,) float32, one entry per name; the first is the total, and the only one with a gradient.
        """
        return self._losses(images, targets, ramp)

    def check(self, stages: Iterable[int], size: tuple[int, int]) -> None:
        """Compute the losses of every stage on a black image: what fails is told now, not after epochs of other stages.

        Model and random state stay as they are.

        Args:
            stages: as for `set_stage`.
            size: (H, W) of the training images.

        Raises:
            PPLValueError: names the loss, the stage and the size.
        """
        image = make_dummy(self.model.backbone, size)
        targets = torch.zeros(1, self.model.num_classes, device=image.device)
        with untouched(self):
            for stage in stages:
                self.set_stage(stage)
                self._check_stage(image, targets)

    def _check_stage(self, image: Tensor, targets: Tensor) -> None:
        what = "the classification loss"
        try:
            views = self._views(image, targets)
            self.classify(views.pool(views.maps), targets)
            for name, loss in self._auxiliary.items():
                what = f"auxiliary loss {name!r}"
                loss(views, self.classify)
        except Exception as error:  # any: models say "not this size" in many ways
            where = "the warm-up" if self.plain else f"stage {self.model.phase}"
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
            raise PPLValueError(
                f"{what} fails in {where} on images of {image.shape[-2]}x{image.shape[-1]} ({reason}); "
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

    def _losses(self, images: Tensor, targets: Tensor, ramp: Tensor) -> Tensor:
        views = self._views(images, targets)
        total = self.classify(views.pool(views.maps), targets)
        parts = [total.detach()]
        for name, loss in self._auxiliary.items():
            value = loss(views, self.classify)
            total = total + ramp * self.weights[name] * value
            parts.append(value.detach())
        return torch.stack([total, *parts]) if self._auxiliary else total[None]

    def _branches(self, images: Tensor) -> list[Tensor]:
        """Class maps (B, K, h, w) of every branch, in float32: losses do not survive half precision."""
        maps = self.model.unpatched_class_maps(images) if self.plain else self.model.branch_class_maps(images)
        return [branch.float() for branch in maps]


def _grids(model: PPLNet) -> tuple[tuple[int, int], ...]:
    """Grid of each patched branch."""
    return (model.grids[model.phase],) if model.mode == "progressive" else model.grids
