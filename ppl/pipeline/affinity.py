"""The affinity step: learn, from the CAMs of the training images, which cells belong together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppl.data import TaggedImages
from ppl.io.fingerprint import fingerprint
from ppl.models import load_model
from ppl.parallel import current_share, parallel_map
from ppl.pipeline.cams import affinity_split, make_cams
from ppl.pipeline.recipe import AffinityRecipe, Recipe
from ppl.pipeline.run_folder import RunFolder
from ppl.refine import RefineJob, RefinerSpec
from ppl.refine.affinity import AffinityNetwork, learn_affinity

__all__ = ["learn_affinities", "with_affinity"]


def learn_affinities(
    recipe: Recipe, settings: AffinityRecipe, folder: RunFolder, train: TaggedImages, *, progress: bool = True
) -> Path:
    """Train the affinity network on the CAMs of the training images, unless it is trained already.

    The network is a copy of the classifier's backbone with a new head on all stages. The head learns which neighbouring
    cells belong together from labels that are confident after a CRF, as in IRN and PSA.

    Args:
        recipe: the recipe of the run.
        settings: its `affinity` section.
        folder: a run whose classifier is trained.
        train: the training images.
        progress: show bars.

    Returns:
        The file of the network, for the refiner `random_walk`.
    """
    split = affinity_split(recipe)
    make_cams(recipe, folder, split, train, progress=progress)
    path = folder.affinity
    jobs = [
        RefineJob(sample.image_id, sample.picture, folder.cams(split) / f"{sample.image_id}.npz") for sample in train
    ]
    key = _key(settings, jobs, recipe.num_workers)
    if not folder.begin_training("affinity", key, path):
        return path
    with folder.step("affinity", key):
        summary = learn_affinity(
            jobs,
            path.parent,
            _network(recipe, settings, folder),
            settings.train,
            foreground=settings.foreground,
            background=settings.background,
            refiners=settings.refiners,
            num_workers=recipe.num_workers,
            device=recipe.device,
            progress=progress,
        )
    left_out = {bad.image_id: bad.reason for bad in summary.bad}
    folder.record(affinity={"losses": summary.losses, "left_out": left_out})
    return path


def with_affinity(affinity: Path, refiners: Sequence[RefinerSpec]) -> tuple[RefinerSpec, ...]:
    """Give the affinity network to every `random_walk` that names no other network."""
    return tuple(
        RefinerSpec(refiner.name, {**refiner.options, "affinity": affinity})
        if refiner.name == "random_walk" and "affinity" not in refiner.options
        else refiner
        for refiner in refiners
    )


def _key(settings: AffinityRecipe, jobs: Sequence[RefineJob], num_workers: int) -> str:
    """Return the fingerprint of the settings, the training images and their CAM files."""
    share = current_share()
    own = dict(parallel_map(_keyed, share.part(jobs), num_workers))
    inputs = {image_id: key for part in share.gather(own) for image_id, key in part.items()}
    return fingerprint({"affinity": settings.model_dump(mode="json"), "inputs": inputs})


def _keyed(job: RefineJob) -> tuple[str, list[Any]]:
    return job.image_id, job.key()


def _network(recipe: Recipe, settings: AffinityRecipe, folder: RunFolder) -> AffinityNetwork:
    model = load_model(folder.weights(recipe.cam.checkpoint))
    options = dict(recipe.model.timm)
    if recipe.model.output_stride is not None:
        options["output_stride"] = recipe.model.output_stride
    return AffinityNetwork(
        recipe.model.backbone, kind=settings.kind, backbone_options=options, weights=model.backbone.state_dict()
    )
