"""The affinity step: learn, from the CAMs of the training images, which cells belong together."""

from __future__ import annotations

from pathlib import Path

from ppl.data import TaggedImages
from ppl.pipeline.cams import make_cams, training_split
from ppl.pipeline.learned import backbone_arguments, input_key, training_jobs
from ppl.pipeline.recipe import AffinityRecipe, Recipe
from ppl.pipeline.run_folder import RunFolder
from ppl.refine.affinity import AffinityNetwork, learn_affinity

__all__ = ["learn_affinities"]


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
    make_cams(recipe, folder, training_split(recipe), train, progress=progress)
    path = folder.affinity
    jobs = training_jobs(recipe, folder, train)
    key = input_key({"affinity": settings.model_dump(mode="json")}, jobs, recipe.num_workers)
    if not folder.begin_training("affinity", key, path):
        return path
    with folder.step("affinity", key):
        summary = learn_affinity(
            jobs,
            path.parent,
            AffinityNetwork(kind=settings.kind, **backbone_arguments(recipe, folder)),
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
