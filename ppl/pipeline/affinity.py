"""Between steps two and three: affinities learned from confident CAM labels, for the random walk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ppl.data import TaggedImages
from ppl.models import load_model
from ppl.pipeline.cams import affinity_split, make_cams
from ppl.pipeline.folder import RunFolder
from ppl.pipeline.recipe import AffinityRecipe, Recipe
from ppl.refine import RefineJob, RefinerSpec
from ppl.refine.affinity import AffinityNetwork, learn_affinity

__all__ = ["learn_affinities", "walking_on"]


def learn_affinities(
    recipe: Recipe, settings: AffinityRecipe, folder: RunFolder, train: TaggedImages, *, progress: bool = True
) -> Path:
    """Train an affinity network on the CAMs of the training images, or find it trained.

    The classifier's backbone is copied and stays as it is; a head on all its stages learns which neighbouring cells
    belong together, from labels that are confident after a CRF (IRN's and PSA's way).

    Args:
        recipe: of the run.
        settings: its `affinity` section.
        folder: a run whose classifier is trained.
        train: the training images.
        progress: show bars.

    Returns:
        The file that a `random_walk` refiner takes.
    """
    split = affinity_split(recipe)
    make_cams(recipe, folder, split, train, progress=progress)
    path = folder.affinity
    inputs = {"cams": folder.stamp(f"cams/{split}"), "affinity": settings.model_dump(mode="json")}
    folder.begin("affinity", inputs, path.parent)
    with folder.finishing("affinity"):
        if not path.exists():
            _learn(recipe, settings, folder, split, train, progress)
    return path


def _learn(
    recipe: Recipe, settings: AffinityRecipe, folder: RunFolder, split: str, train: TaggedImages, progress: bool
) -> None:
    summary = learn_affinity(
        [RefineJob(sample.image_id, sample.picture, folder.cams(split) / f"{sample.image_id}.npz") for sample in train],
        folder.affinity.parent,
        _network(recipe, settings, folder),
        settings.train,
        foreground=settings.foreground,
        background=settings.background,
        num_workers=recipe.jobs,
        device=recipe.device,
        progress=progress,
    )
    folder.record(affinity={"losses": summary.losses, "left_out": {bad.image_id: bad.reason for bad in summary.bad}})


def walking_on(affinity: Path, refiners: Sequence[RefinerSpec]) -> tuple[RefinerSpec, ...]:
    """Return the refiners; random walks that name no affinity network get this one."""
    return tuple(
        RefinerSpec(spec.name, {**spec.options, "affinity": affinity})
        if spec.name == "random_walk" and "affinity" not in spec.options
        else spec
        for spec in refiners
    )


def _network(recipe: Recipe, settings: AffinityRecipe, folder: RunFolder) -> AffinityNetwork:
    model = load_model(folder.weights(recipe.cam.checkpoint))
    options = dict(recipe.model.timm)
    if recipe.model.output_stride is not None:
        options["output_stride"] = recipe.model.output_stride
    torch.manual_seed(settings.train.seed)
    return AffinityNetwork(
        recipe.model.backbone, kind=settings.kind, backbone_options=options, weights=model.backbone.state_dict()
    )
