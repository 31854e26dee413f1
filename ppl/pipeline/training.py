"""Step one: the classifier of a recipe, trained on the tags."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch

from ppl.cam import check_maps
from ppl.data import TaggedImages
from ppl.errors import PPLValueError
from ppl.io.fingerprint import sha256
from ppl.models import PPLNet, create_model
from ppl.pipeline.cams import extreme_sizes
from ppl.pipeline.folder import RunFolder
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.splits import Splits
from ppl.train import TrainSummary, check_fit, fit
from ppl.train.objective import unfit_auxiliary

__all__ = ["build_model", "check_models", "train_classifier", "with_mode"]


def build_model(recipe: Recipe, classes: tuple[str, ...], **changes: Any) -> PPLNet:
    """The recipe's classifier, not trained yet; the same seed gives the same new weights."""
    torch.manual_seed(recipe.train.seed)
    settings = recipe.model.model_dump(exclude={"timm"}) | recipe.model.timm | changes
    model = create_model(num_classes=len(classes), **settings)
    model.classes = classes
    return model


def check_models(recipe: Recipe, arms: Mapping[str, RunFolder], splits: Splits, *, maps: bool = True) -> None:
    """Build every model of a run once, with all that trains it: a fault in the last is told before the first trains.

    Args:
        recipe: of the run.
        arms: by mode, where each model is trained.
        splits: the images.
        maps: whether maps will be made of them: then the models must allow the method, and the sizes of the images.

    Raises:
        PPLValueError: unknown backbone or cut, a grid too fine for the map, an output stride that cannot be, a
            schedule that does not fit the epochs, maps that cannot be had, or a folder that holds a run with other
            settings.
    """
    sizes = extreme_sizes(chain.from_iterable(splits.masked.values())) if maps else []
    for mode, folder in arms.items():
        own = with_mode(recipe, mode)
        model = build_model(own, splits.train.classes, pretrained=False)
        _check_start(own, folder)
        check_fit(model, splits.train, splits.val, own.train, folder.path, device=recipe.device)
        if maps:
            check_maps(model, sizes, **own.cam.reading())


def with_mode(recipe: Recipe, mode: str) -> Recipe:
    """The same recipe for another mode, alone, without the auxiliary losses that the other mode cannot have."""
    if mode == recipe.model.mode:
        return recipe.model_copy(update={"compare": []})
    model = recipe.model.model_copy(update={"mode": mode})
    kept = {name: value for name, value in recipe.train.auxiliary.items() if name not in unfit_auxiliary(mode)}
    train = recipe.train.model_copy(update={"auxiliary": kept})
    return recipe.model_copy(update={"model": model, "train": train, "compare": []})


def train_classifier(
    recipe: Recipe, folder: RunFolder, train: TaggedImages, val: TaggedImages | None, *, progress: bool = True
) -> TrainSummary:
    """Train, or go on with a training that was interrupted, or find that there is nothing left to do."""
    if not (folder.path / "state.pt").is_file():
        folder.record(start=_start(recipe))
    with folder.finishing("train"):
        model = build_model(recipe, train.classes)
        summary = fit(model, train, val, recipe.train, folder.path, progress=progress, device=recipe.device)
    folder.record(
        seed=recipe.train.seed,
        classes=list(train.classes),
        training={"epochs": summary.epochs, "best_val_mAP": summary.best_score, "seconds": round(summary.seconds, 1)},
    )
    return summary


def _start(recipe: Recipe) -> dict[str, Any]:
    """The weights that training starts from."""
    path = recipe.model.checkpoint_path
    own = None if path is None else sha256(path)
    return {"pretrained": recipe.model.pretrained, "checkpoint_path": own}


def _check_start(recipe: Recipe, folder: RunFolder) -> None:
    """A run goes on with the weights that it has, so others to start from would be ignored."""
    known = folder.read_manifest().get("start")
    if known is None or not (folder.path / "state.pt").is_file():
        return
    changed = [f"model.{key}" for key, value in _start(recipe).items() if known[key] != value]
    if changed:
        raise PPLValueError(
            f"{folder.path} holds a run that started from other weights ({', '.join(changed)}); use another folder, or "
            "delete state.pt to start afresh"
        )
