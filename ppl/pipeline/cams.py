"""The CAM step: class activation maps of every image of a split."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from ppl.cam import METHODS, CamResult, check_maps, iter_generate
from ppl.data import Sample, TaggedImages
from ppl.errors import PPLValueError
from ppl.io import image_size
from ppl.io.fingerprint import fingerprint, sha256, source_hash
from ppl.models import PPLNet, load_model
from ppl.parallel import current_share, tracked
from ppl.pipeline.device import torch_device
from ppl.pipeline.recipe import CamRecipe, Recipe
from ppl.pipeline.results import ResultFolder, hash_files
from ppl.pipeline.run_folder import RunFolder
from ppl.pipeline.writer import background_writer

__all__ = ["cam_keys", "cam_settings", "extreme_sizes", "make_cams", "outdated_cams", "training_split", "write_cams"]


def make_cams(recipe: Recipe, folder: RunFolder, split: str, images: TaggedImages, *, progress: bool = True) -> int:
    """Write `cams/<split>/<image id>.npz` for every image that has no CAM file of its content, tags and settings.

    Args:
        recipe: the recipe of the run.
        folder: a run whose classifier is trained.
        split: name of the split in the run folder.
        images: the images of the split. The processes of a launch share them.
        progress: show a bar.

    Returns:
        The number of CAM files that this call made, in all processes of a launch.

    Raises:
        PPLValueError: if the classes of the images are not those of the training, or the model has no maps of the
            recipe's method or of images of these sizes.
    """
    weights = folder.weights(recipe.cam.checkpoint)
    _check_classes(folder.read_manifest().get("classes"), images)
    share, count = current_share(), len(images)
    images = images.part(share)
    results = _results(recipe, folder, split)
    keys = cam_keys(images, recipe.cam, recipe.num_workers, progress=progress)
    folder.record(weights={"file": weights.name, "sha256": results.settings["weights"]})
    if results.is_complete(keys):
        return 0
    model = load_model(weights)
    check_maps(model, extreme_sizes(images), **recipe.cam.reading())
    with folder.step(f"cams/{split}", fingerprint(results.settings), images=count):
        missing = set(results.begin(keys))
        todo = [sample for sample in images if sample.image_id in missing]
        model = model.to(torch_device(recipe.device))
        write_cams(model, todo, results, keys, recipe.cam, recipe.num_workers, split, progress=progress)
    return sum(share.gather(len(todo)))


def outdated_cams(recipe: Recipe, folder: RunFolder, split: str, images: TaggedImages) -> list[str]:
    """Return the ids of the images whose CAM file is missing or was made from other weights, settings or pictures."""
    keys = cam_keys(images, recipe.cam, recipe.num_workers)
    return _results(recipe, folder, split).unfinished(keys)


def cam_settings(settings: CamRecipe, weights: str) -> dict[str, Any]:
    """Return all that every CAM file depends on.

    Args:
        settings: the `cam` section of a recipe.
        weights: SHA-256 of the checkpoint.
    """
    content = {"weights": weights, "cam": settings.model_dump(exclude={"background", "batch_size", "checkpoint"})}
    code = source_hash(METHODS[settings.method])
    return content if code is None else content | {"plugin": code}


def cam_keys(images: TaggedImages, settings: CamRecipe, num_workers: int, *, progress: bool = False) -> dict[str, str]:
    """Return, by image id, the fingerprint of the picture and of the tags, if tags choose the classes."""
    hashes = hash_files({sample.image_id: sample.image for sample in images}, num_workers, progress=progress)
    return {
        sample.image_id: fingerprint(
            {
                "image": hashes[sample.image_id],
                "value_range": sample.value_range,
                "labels": sorted(set(sample.labels)) if settings.labels == "tags" else None,
            }
        )
        for sample in images
    }


def training_split(recipe: Recipe) -> str:
    """Return the name in the run folder of the training images, from whose CAMs affinities are learned."""
    return recipe.data.train or "all"


def extreme_sizes(images: Iterable[Sample]) -> list[tuple[int, int]]:
    """Return the smallest and the largest (height, width), read from the headers of the files.

    A model of one fixed size accepts at most one of two sizes. To check every size would take too long, since some
    models are tried on a black image of each size.
    """
    sizes = sorted({image_size(sample.image) for sample in images})
    return sizes[:: max(1, len(sizes) - 1)]


def write_cams(
    model: PPLNet,
    samples: Sequence[Sample],
    results: ResultFolder,
    keys: dict[str, str],
    settings: CamRecipe,
    num_workers: int,
    name: str,
    *,
    progress: bool,
) -> None:
    """Compute and write the CAM files of images, close their record, and warn if most of the maps are empty.

    All processes of a launch make this call.

    Args:
        model: the classifier, on its device.
        samples: the images.
        results: the folder of the CAM files.
        keys: fingerprint of the inputs by image id, see `cam_keys`.
        settings: scales, flips, method.
        num_workers: threads that write.
        name: name of the images, for the warning.
        progress: show a bar.
    """
    tags = [list(sample.labels) for sample in samples] if settings.labels == "tags" else None
    cams = iter_generate(
        model,
        [sample.picture for sample in samples],
        tags,
        **settings.arguments(),
    )
    maps = empty = 0
    with background_writer(num_workers) as submit:
        for sample, cam in zip(samples, tracked(cams, "CAMs", len(samples), show=progress), strict=True):
            submit(_save, cam, results, sample.image_id, keys[sample.image_id])
            maps += len(cam.classes)
            empty += int((cam.maps.amax(dim=(1, 2)) == 0).sum())
    results.end()
    share = current_share()
    maps, empty = map(sum, zip(*share.gather([maps, empty]), strict=True))
    if empty > maps / 2 and share.is_first:
        warnings.warn(
            f"{empty / maps:.0%} of the maps of {name} are empty: the classifier finds no evidence for these classes "
            "in these images, because it has hardly learnt them; train longer or look at its validation mAP",
            stacklevel=2,
        )


def _save(cam: CamResult, results: ResultFolder, image_id: str, key: str) -> None:
    cam.save(results.file(image_id))
    results.finish(image_id, key)


def _results(recipe: Recipe, folder: RunFolder, split: str) -> ResultFolder:
    weights = sha256(folder.weights(recipe.cam.checkpoint))
    return ResultFolder(folder.cams(split), ".npz", cam_settings(recipe.cam, weights))


def _check_classes(trained: list[str] | None, images: TaggedImages) -> None:
    if trained is not None and trained != list(images.classes):
        raise PPLValueError(
            f"{images.name} has the classes {', '.join(images.classes)}, but the model was trained on "
            f"{', '.join(trained)}: give it a classes.txt with those, in that order"
        )
