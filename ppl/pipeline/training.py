"""The training step: a classifier that learns the tags."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from ppl.cam import check_maps
from ppl.data import TaggedImages
from ppl.engine.random_state import seeded
from ppl.errors import PPLValueError
from ppl.io.fingerprint import fingerprint, sha256
from ppl.models import PPLNet, create_model
from ppl.pipeline.cams import extreme_sizes
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.run_folder import RunFolder
from ppl.pipeline.splits import Splits
from ppl.train import TrainSummary, check_fit, fit
from ppl.train.objective import unfit_auxiliary

__all__ = ["build_model", "check_models", "train_classifier", "with_mode"]


def build_model(recipe: Recipe, classes: tuple[str, ...], **changes: Any) -> PPLNet:
    """Build the untrained classifier of a recipe. The same seed gives the same new weights.

    Args:
        recipe: its `model` section and its seed.
        classes: names of the classes.
        **changes: arguments of `create_model` that replace those of the recipe.
    """
    settings = recipe.model.model_dump(exclude={"timm"}) | recipe.model.timm | changes
    with seeded(recipe.train.seed):
        model = create_model(num_classes=len(classes), **settings)
    model.classes = classes
    return model


def check_models(recipe: Recipe, arms: Mapping[str, RunFolder], splits: Splits, *, maps: bool = True) -> None:
    """Build every model of a run and all that trains it, so that a fault in the last is known before the first trains.

    Args:
        recipe: the recipe of the run.
        arms: by mode, the run folder of the model.
        splits: the images.
        maps: whether CAMs will follow: then the models must allow the recipe's method and the sizes of the images.

    Raises:
        PPLValueError: if the backbone or a cut is unknown, a grid is too fine for the map, the backbone cannot have
            the output stride, the schedule does not fit the epochs, the model has no such maps, or a folder holds a run
            with other settings.
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
    """Return the recipe for another mode, without comparisons, segmenter and the losses that the mode cannot have."""
    if mode == recipe.model.mode:
        return recipe.model_copy(update={"compare": []})
    model = recipe.model.model_copy(update={"mode": mode})
    kept = {name: value for name, value in recipe.train.auxiliary.items() if name not in unfit_auxiliary(mode)}
    train = recipe.train.model_copy(update={"auxiliary": kept})
    return recipe.model_copy(update={"model": model, "train": train, "compare": [], "segment": None})


def train_classifier(
    recipe: Recipe, folder: RunFolder, train: TaggedImages, val: TaggedImages | None, *, progress: bool = True
) -> TrainSummary:
    """Train the classifier, go on with an interrupted training, or return at once if the training is finished.

    Args:
        recipe: the recipe of the run.
        folder: of the run.
        train: the training images.
        val: the images that are scored after each epoch, or None.
        progress: show a bar.

    Returns:
        The epochs that were trained, the best validation mAP and the seconds.
    """
    if not (folder.path / "state.pt").is_file():
        folder.record(start=_start(recipe))
    settings = {"model": recipe.model.model_dump(mode="json"), "train": recipe.train.model_dump(mode="json")}
    with folder.step("train", fingerprint(settings)):
        model = build_model(recipe, train.classes)
        summary = fit(model, train, val, recipe.train, folder.path, progress=progress, device=recipe.device)
    folder.record(
        seed=recipe.train.seed,
        classes=list(train.classes),
        training={"epochs": summary.epochs, "best_val_mAP": summary.best_score, "seconds": round(summary.seconds, 1)},
    )
    return summary


def _start(recipe: Recipe) -> dict[str, Any]:
    """Describe the weights that training starts from: timm's, or a file by its content."""
    path = recipe.model.checkpoint_path
    own = None if path is None else sha256(path)
    return {"pretrained": recipe.model.pretrained, "checkpoint_path": own}


def _check_start(recipe: Recipe, folder: RunFolder) -> None:
    """Refuse other initial weights than those that an interrupted training started from: it would ignore them."""
    known = folder.read_manifest().get("start")
    if known is None or not (folder.path / "state.pt").is_file():
        return
    changed = [f"model.{key}" for key, value in _start(recipe).items() if known[key] != value]
    if changed:
        raise PPLValueError(
            f"{folder.path} holds a run that started from other weights ({', '.join(changed)}); use another folder, or "
            "delete state.pt to start afresh"
        )
