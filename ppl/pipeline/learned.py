"""Networks that are learned from the CAMs of the training images, and the refiners that use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppl.data import TaggedImages
from ppl.io.fingerprint import fingerprint
from ppl.models import load_model
from ppl.parallel import current_share, parallel_map
from ppl.pipeline.cams import training_split
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.run_folder import RunFolder
from ppl.refine import RefineJob, RefinerSpec

__all__ = ["backbone_arguments", "input_key", "learned_files", "training_jobs", "with_networks"]


def learned_files(recipe: Recipe, folder: RunFolder) -> dict[str, tuple[str, Path]]:
    """Return, by refiner, the option that names a network and the file of the network that this recipe learns."""
    files = {}
    if recipe.affinity is not None:
        files["random_walk"] = ("affinity", folder.affinity)
    if recipe.fits_pixels:
        files["pixel_classifier"] = ("network", folder.pixels)
    return files


def with_networks(refiners: Sequence[RefinerSpec], files: Mapping[str, tuple[str, Path]]) -> tuple[RefinerSpec, ...]:
    """Give every refiner that names no network of its own the learned one."""
    return tuple(
        RefinerSpec(refiner.name, {**refiner.options, files[refiner.name][0]: files[refiner.name][1]})
        if refiner.name in files and files[refiner.name][0] not in refiner.options
        else refiner
        for refiner in refiners
    )


def training_jobs(recipe: Recipe, folder: RunFolder, train: TaggedImages) -> list[RefineJob]:
    """Return the training images with their CAM files."""
    cams = folder.cams(training_split(recipe))
    return [RefineJob(sample.image_id, sample.picture, cams / f"{sample.image_id}.npz") for sample in train]


def input_key(settings: Mapping[str, Any], jobs: Sequence[RefineJob], num_workers: int) -> str:
    """Return the fingerprint of settings, the training images and their CAM files."""
    share = current_share()
    own = dict(parallel_map(_keyed, share.part(jobs), num_workers))
    inputs = {image_id: key for part in share.gather(own) for image_id, key in part.items()}
    return fingerprint({**settings, "inputs": inputs})


def _keyed(job: RefineJob) -> tuple[str, list[Any]]:
    return job.image_id, job.key()


def backbone_arguments(recipe: Recipe, folder: RunFolder) -> dict[str, Any]:
    """Return the arguments of a network on a frozen copy of the trained classifier's backbone."""
    model = load_model(folder.weights(recipe.cam.checkpoint))
    options = dict(recipe.model.timm)
    if recipe.model.output_stride is not None:
        options["output_stride"] = recipe.model.output_stride
    return {
        "backbone": recipe.model.backbone,
        "backbone_options": options,
        "weights": model.backbone.state_dict(),
    }
