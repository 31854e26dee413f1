"""The pixels step: fit a classifier of pixels to the CAMs of the training images."""

from __future__ import annotations

from pathlib import Path

from ppl.cam import parse_background
from ppl.data import TaggedImages
from ppl.parallel import current_share, spread
from ppl.pipeline.cams import make_cams, training_split
from ppl.pipeline.device import torch_device
from ppl.pipeline.learned import backbone_arguments, input_key, training_jobs
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.run_folder import RunFolder
from ppl.refine.pixel_file import save_pixel_classifier
from ppl.refine.pixel_network import PixelClassifier
from ppl.refine.pixels import fit_pixel_classifier

__all__ = ["fit_pixels"]


def fit_pixels(recipe: Recipe, folder: RunFolder, train: TaggedImages, *, progress: bool = True) -> Path:
    """Fit the pixel classifier to the CAMs of the training images, unless it is fitted already.

    Without a segmentation network, which needs the CAMs of all training images, CAMs are made of those alone that the
    classifier is fitted to.

    Args:
        recipe: the recipe of the run, with the settings in its section `pixels`.
        folder: a run whose classifier is trained.
        train: the training images.
        progress: show bars.

    Returns:
        The file of the pixel classifier, for the refiner `pixel_classifier`.
    """
    if recipe.segment is None and recipe.affinity is None:
        train = train.subset(sample.image_id for sample in spread(train, recipe.pixels.images))
    make_cams(recipe, folder, training_split(recipe), train, progress=progress)
    jobs, path = training_jobs(recipe, folder, train), folder.pixels
    decides = {"pixels": recipe.pixels.model_dump(mode="json"), "background": recipe.cam.background}
    key = input_key(decides, jobs, recipe.num_workers)
    if not folder.begin_training("pixels", key, path):
        return path
    with folder.step("pixels", key):
        network = PixelClassifier(num_classes=len(train.classes), **backbone_arguments(recipe, folder))
        summary = fit_pixel_classifier(
            jobs,
            network,
            recipe.pixels,
            background=parse_background(recipe.cam.background),
            num_workers=recipe.num_workers,
            device=torch_device(recipe.device),
            progress=progress,
        )
        share = current_share()
        if share.is_first:
            save_pixel_classifier(network, path)
        share.wait()
    left_out = {bad.image_id: bad.reason for bad in summary.bad}
    folder.record(
        pixels={
            "images": summary.images,
            "loss": summary.loss,
            "agreement": summary.agreement,
            "useful": network.useful,
            "left_out": left_out,
        }
    )
    return path
