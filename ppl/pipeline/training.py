"""Step one: the classifier of a recipe, trained on the tags."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ppl.data import TaggedImages
from ppl.models import PPLNet, create_model
from ppl.pipeline.folder import RunFolder
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.splits import Splits
from ppl.train import TrainSummary, fit
from ppl.train.assemble import assemble

__all__ = ["build_model", "check_models", "train_classifier", "with_mode"]


def build_model(recipe: Recipe, classes: tuple[str, ...], **changes: Any) -> PPLNet:
    """The recipe's classifier, not trained yet; the same seed gives the same new weights."""
    torch.manual_seed(recipe.train.seed)
    settings = recipe.model.model_dump(exclude={"timm"}) | recipe.model.timm | changes
    model = create_model(num_classes=len(classes), **settings)
    model.classes = classes
    return model


def check_models(recipe: Recipe, modes: Iterable[str], splits: Splits) -> None:
    """Build every model of a run once and show it an empty image: a fault in the last is told before the first trains.

    Raises:
        PPLValueError: unknown backbone or cut, a grid too fine for the map, an output stride that cannot be, a
            schedule that does not fit the epochs.
    """
    for mode in modes:
        model = build_model(with_mode(recipe, mode), splits.train.classes, pretrained=False)
        assemble(model, splits.train, splits.val, recipe.train, recipe.device)
        model.eval()
        with torch.inference_mode():
            for stage in range(model.num_stages):
                model.set_stage(stage)
                model(torch.zeros(1, 3, *recipe.train.size, device=next(model.parameters()).device))


def with_mode(recipe: Recipe, mode: str) -> Recipe:
    """The same recipe for another mode, alone."""
    model = recipe.model.model_copy(update={"mode": mode})
    return recipe.model_copy(update={"model": model, "compare": []})


def train_classifier(
    recipe: Recipe, folder: RunFolder, train: TaggedImages, val: TaggedImages | None, *, progress: bool = True
) -> TrainSummary:
    """Train, or go on with a training that was interrupted, or find that there is nothing left to do."""
    with folder.finishing("train"):
        model = build_model(recipe, train.classes)
        summary = fit(model, train, val, recipe.train, folder.path, progress=progress, device=recipe.device)
    folder.record(
        seed=recipe.train.seed,
        classes=list(train.classes),
        training={"epochs": summary.epochs, "best_map": summary.best_map, "seconds": round(summary.seconds, 1)},
    )
    return summary
