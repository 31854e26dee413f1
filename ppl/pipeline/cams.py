"""Step two: maps of every image, then masks cut from them. Finished files are kept, so a killed run goes on."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ppl.cam import CamResult, check_maps, iter_generate, parse_background
from ppl.cam.background import Background
from ppl.data import Sample, TaggedImages, check_images, read_images
from ppl.errors import PPLValueError
from ppl.io import image_size, write_mask
from ppl.io.fingerprint import sha256
from ppl.models import PPLNet, load_model
from ppl.parallel import BadFile, FolderSummary, check_workers, guarded, parallel_map, tracked
from ppl.parallel.run_jobs import has_record, keep_record
from ppl.pipeline.device import torch_device
from ppl.pipeline.folder import RunFolder
from ppl.pipeline.recipe import CamRecipe, Recipe
from ppl.pipeline.writing import written_behind

__all__ = ["affinity_split", "cam_folder", "extreme_sizes", "make_cams", "make_masks", "mask_inputs"]


def make_cams(recipe: Recipe, folder: RunFolder, split: str, images: TaggedImages, *, progress: bool = True) -> int:
    """Write `cams/<split>/<image_id>.npz` for every image that has none yet, or one of another picture or other tags.

    Args:
        recipe: scales, flips, which checkpoint.
        folder: a run whose training is done.
        split: its name in the run folder.
        images: the images; their tags say which classes get a map, unless the recipe asks for the predicted ones.
        progress: show a bar.

    Returns:
        How many were made in this call.

    Raises:
        PPLValueError: if the images' classes are not those that the model was trained on, or the model has no maps of
            that method or of images of their size.
    """
    settings = recipe.cam
    weights = folder.weights(settings.checkpoint)
    _check_classes(folder.read_manifest().get("classes"), images)
    digest = sha256(weights)
    step, out = f"cams/{split}", folder.cams(split)
    inputs = {"weights": digest, "cam": _of_maps(settings), "images": str(recipe.data.root.resolve())}
    if out.exists() and not folder.is_current(step, inputs):  # what is there may be removed: nothing may be in the way
        check_maps(load_model(weights), extreme_sizes(images), **settings.reading())
    folder.begin(step, inputs, out)
    todo = [sample for sample in images if not _is_of(out / f"{sample.image_id}.npz", sample, settings)]
    if todo:
        folder.reopen(f"masks/{split}", f"refined/{split}")
        if recipe.affinity is not None and split == affinity_split(recipe):
            shutil.rmtree(folder.affinity.parent, ignore_errors=True)  # what was learned from the old maps
    for made_of_them in (folder.masks(split), folder.refined(split)):
        for sample in todo:
            (made_of_them / f"{sample.image_id}.png").unlink(missing_ok=True)
    with folder.finishing(step, images=len(images)):
        if todo:
            model = load_model(weights).to(torch_device(recipe.device))
            _warn_of_empty_maps(_write_cams(model, todo, out, settings, recipe.jobs, progress), split)
    folder.record(weights={"file": weights.name, "sha256": digest})
    return len(todo)


def affinity_split(recipe: Recipe) -> str:
    """The name in the run folder of the training images, from whose maps affinities are learned."""
    return recipe.data.train or "all"


def extreme_sizes(images: Iterable[Sample]) -> list[tuple[int, int]]:
    """The first and the last (height, width) in order: a model of one fixed size takes at most one of two.

    Read from the files' headers. More would cost time, since some models are tried on a black image of each size.
    """
    sizes = sorted({image_size(sample.image) for sample in images})
    return sizes[:: max(1, len(sizes) - 1)]


def make_masks(
    recipe: Recipe, folder: RunFolder, split: str, images: TaggedImages, *, progress: bool = True
) -> list[BadFile]:
    """Write `masks/<split>/<image_id>.png`: the best class of every pixel, or background by the recipe's rule.

    Returns:
        Images whose maps cannot be read.
    """
    step, out = f"masks/{split}", folder.masks(split)
    folder.begin(step, mask_inputs(recipe, folder, split), out)
    with folder.finishing(step):
        return _write_masks(images, folder.cams(split), out, recipe.cam, recipe.jobs, progress)


def mask_inputs(recipe: Recipe, folder: RunFolder, split: str) -> dict[str, Any]:
    """All that the masks of a split depend on.

    Raises:
        PPLValueError: if its maps have not been made.
    """
    return {"cams": folder.stamp(f"cams/{split}"), "background": recipe.cam.background}


def cam_folder(
    checkpoint: str | Path,
    images: str | Path,
    out: str | Path,
    labels: str | Path | None = None,
    settings: CamRecipe | None = None,
    *,
    device: str = "auto",
    jobs: int = -1,
    overwrite: bool = False,
    progress: bool = True,
) -> FolderSummary:
    """Maps and masks of any folder of pictures, by a trained model: `out/cams/*.npz` and `out/masks/*.png`.

    Args:
        checkpoint: weights that `ppl.save_model` wrote.
        images: folder of pictures.
        out: where the results go, and `cams/cams.json`, which says how the maps were made. Maps that are there are
            kept, but for those of another picture or other tags; masks are cut anew for another background.
        labels: CSV of tags (`image,labels`); without it the classes that the model predicts.
        settings: scales, flips, background.
        device: as a recipe's `device`.
        jobs: threads that write; -1 for one a core.
        overwrite: make all maps again; those that were made in another way are removed. Files that no record of this
            function tells of are never touched.
        progress: show a bar.

    Returns:
        How many maps were made and how many were there, and the pictures that were left out.

    Raises:
        PPLValueError: if the checkpoint names no classes but tags are given, `out` lies in `images`, or it holds maps
            or masks that were made in another way; if there are to be 0 jobs.
    """
    checkpoint, images, out = Path(checkpoint), Path(images), Path(out)
    check_workers(jobs)
    if out.resolve().is_relative_to(images.resolve()):
        raise PPLValueError(f"{out} lies in {images}, so its masks would be taken for pictures; choose another --out")
    start = time.perf_counter()
    model = load_model(checkpoint).to(torch_device(device))
    settings = settings or CamRecipe(labels="tags" if labels is not None else "predicted")
    if model.classes is None and labels is not None:
        raise PPLValueError(f"{checkpoint} does not name its classes, so tags mean nothing to it; leave the labels out")
    classes = model.classes or tuple(f"class {index}" for index in range(model.num_classes))
    dataset, bad = check_images(read_images(images, classes, labels), progress=progress)
    check_maps(model, extreme_sizes(dataset), **settings.reading())
    cams, masks = out / "cams", out / "masks"
    there, drawn = (_results(*where) for where in ((cams, "cams.json", ".npz"), (masks, "masks.json", ".png")))
    record, rule = {"weights": sha256(checkpoint), "cam": _of_maps(settings)}, {"background": settings.background}
    same = has_record(cams / "cams.json", record)
    if not overwrite:
        keep_record(cams / "cams.json", record)
    outdated = ([] if same else there) + ([] if same and has_record(masks / "masks.json", rule) else drawn)
    for path in outdated:  # before the records: a kill leaves nothing of the old way under the new one
        path.unlink()
    keep_record(cams / "cams.json", record, overwrite=True)
    keep_record(masks / "masks.json", rule, overwrite=True)
    todo = [sample for sample in dataset if overwrite or not _is_of(cams / f"{sample.image_id}.npz", sample, settings)]
    for sample in todo:
        (masks / f"{sample.image_id}.png").unlink(missing_ok=True)
    if todo:
        _warn_of_empty_maps(_write_cams(model, todo, cams, settings, jobs, progress), images.name)
    bad += _write_masks(dataset, cams, masks, settings, jobs, progress)
    return FolderSummary(len(todo), len(dataset) - len(todo), tuple(bad), time.perf_counter() - start)


def _check_classes(trained: list[str] | None, images: TaggedImages) -> None:
    if trained is not None and trained != list(images.classes):
        raise PPLValueError(
            f"{images.name} has the classes {', '.join(images.classes)}, but the model was trained on "
            f"{', '.join(trained)}: give it a classes.txt with those, in that order"
        )


def _of_maps(settings: CamRecipe) -> dict[str, Any]:
    """The settings that maps depend on."""
    return settings.model_dump(exclude={"background", "batch_size"})


def _is_of(path: Path, sample: Sample, settings: CamRecipe) -> bool:
    """Whether a file of maps is there and of this very picture and these tags."""
    if not path.exists() or path.stat().st_mtime_ns < sample.image.stat().st_mtime_ns:
        return False
    try:
        with np.load(path, allow_pickle=False) as file:
            classes = file["classes"].tolist()
            return settings.labels != "tags" or bool(classes == sorted(set(sample.labels)))
    except Exception:  # a broken file, which numpy and zip call by many names
        return False


def _results(folder: Path, record: str, suffix: str) -> list[Path]:
    """The files that a folder holds; refused if no record says that they were made here: they may be the only ones."""
    found = list(folder.rglob(f"*{suffix}"))
    if found and not (folder / record).exists():
        raise PPLValueError(
            f"{folder} holds {found[0].name}, made in another way or by somebody else (it has no {record}): choose "
            "another folder"
        )
    return found


def _write_cams(
    model: PPLNet, samples: Sequence[Sample], out: Path, settings: CamRecipe, jobs: int, progress: bool
) -> float:
    """Write the maps; returns the share of them that are empty."""
    tags = [list(sample.labels) for sample in samples] if settings.labels == "tags" else None
    results = iter_generate(
        model,
        [sample.picture for sample in samples],
        tags,
        **settings.arguments(),
    )
    maps = empty = 0
    with written_behind(jobs) as submit:
        for sample, result in zip(samples, tracked(results, "maps", len(samples), show=progress), strict=True):
            submit(_save, result, out / f"{sample.image_id}.npz", sample.image)
            maps += len(result.classes)
            empty += int((result.maps.amax(dim=(1, 2)) == 0).sum())
    return empty / max(maps, 1)


def _save(result: CamResult, path: Path, image: Path) -> None:
    result.save(path)
    made, changed = path.stat().st_mtime_ns, image.stat().st_mtime_ns
    if made < changed:  # a picture from the future would be taken for a newer one for ever
        os.utime(path, ns=(changed, changed))


def _warn_of_empty_maps(share: float, where: str) -> None:
    if share > 0.5:
        warnings.warn(
            f"{share:.0%} of the maps of {where} are empty: the classifier finds no evidence for these classes "
            "anywhere, as one does that has hardly learnt them; train longer or look at its validation mAP",
            stacklevel=2,
        )


def _write_masks(
    samples: Sequence[Sample], cams: Path, out: Path, settings: CamRecipe, jobs: int, progress: bool
) -> list[BadFile]:
    """Write the masks that are not there; returns the images whose maps cannot be read."""
    background = parse_background(settings.background)
    todo = [sample for sample in samples if not (out / f"{sample.image_id}.png").exists()]
    work = partial(guarded, partial(_write_mask, cams, out, background))
    found = tracked(parallel_map(work, todo, jobs), "masks", len(todo), show=progress)
    return [failure for failure in found if failure is not None]


def _write_mask(cams: Path, out: Path, background: Background, sample: Sample) -> None:
    maps = CamResult.load(cams / f"{sample.image_id}.npz")
    write_mask(out / f"{sample.image_id}.png", maps.to_mask(background=background).numpy())
