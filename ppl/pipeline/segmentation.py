"""The segmentation step: train a network on the masks of the training images, and predict with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ppl.data import Sample, TaggedImages, check_images
from ppl.engine import RUNTIME_KEYS, TrainSummary
from ppl.engine.random_state import seeded
from ppl.errors import PPLValueError
from ppl.io import write_mask
from ppl.io.confidence import confidence_file
from ppl.io.fingerprint import fingerprint, sha256
from ppl.parallel import current_share
from ppl.parallel.lock import command_lock
from ppl.pipeline.cams import make_cams, training_split
from ppl.pipeline.device import torch_device
from ppl.pipeline.masks import make_masks
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.recipe_file import check_recipe, with_overrides
from ppl.pipeline.refinement import refine_masks
from ppl.pipeline.results import ResultFolder, hash_files
from ppl.pipeline.rounds import fit_rounds
from ppl.pipeline.run_folder import RunFolder
from ppl.pipeline.segmenting import picture_keys, segment_images
from ppl.pipeline.splits import open_splits
from ppl.segment import SegmentConfig, Segmenter, SegmentResult, create_segmenter, load, with_masks

__all__ = ["build_segmenter", "finished_predictions", "predict_masks", "segment_dataset", "train_segmenter"]


def build_segmenter(
    recipe: Recipe, settings: SegmentConfig, num_classes: int, classifier: Path | None = None
) -> Segmenter:
    """Build the network of a recipe; the same seed gives the same new weights.

    Args:
        recipe: the recipe of the run.
        settings: its `segment` section.
        num_classes: K, the number of classes without the background.
        classifier: checkpoint of the run's classifier, from which an encoder of the same backbone starts; None for an
            encoder with random weights, to find faults before there is a classifier.

    Raises:
        PPLValueError: if encoder, decoder and output stride do not fit together.
    """
    encoder = settings.encoder or recipe.model.backbone
    weights = settings.checkpoint_path or (classifier if encoder == recipe.model.backbone else None)
    if classifier is None:
        return _create(settings, encoder, num_classes, None, pretrained=False)
    return _create(settings, encoder, num_classes, weights, pretrained=settings.pretrained and weights is None)


def _create(
    settings: SegmentConfig, encoder: str, num_classes: int, weights: Path | None, *, pretrained: bool
) -> Segmenter:
    with seeded(settings.seed):
        return create_segmenter(
            encoder,
            num_classes,
            decoder=settings.decoder,
            pretrained=pretrained,
            checkpoint_path=weights,
            output_stride=settings.output_stride,
            **settings.options,
        )


def train_segmenter(
    recipe: Recipe,
    settings: SegmentConfig,
    folder: RunFolder,
    train: TaggedImages,
    val: TaggedImages | None,
    *,
    progress: bool = True,
) -> TrainSummary | None:
    """Train the segmentation network on the masks of the training images, unless it is trained already.

    A finished network goes on if `epochs` is raised (without `rounds` and `iterations`); with other settings, or on
    other masks, a new one is trained. CAMs and masks of the training images are made first, where they are missing.
    True masks of validation images are scored after each epoch; they decide nothing, since predictions come from the
    weights of the last epoch.

    Args:
        recipe: the recipe of the run.
        settings: its `segment` section.
        folder: a run whose classifier is trained.
        train: the training images.
        val: the validation images, or None.
        progress: show bars.

    Returns:
        The summary of the training; None if the network was trained already.
    """
    images = with_masks(train, _make_training_masks(recipe, folder, train, progress=progress))
    classifier = folder.weights(recipe.cam.checkpoint)
    files = {sample.image_id: _path(sample) for sample in images}
    masks = hash_files(files, recipe.num_workers)
    if settings.reads_confidence:
        beside = {f"{image_id}.npz": confidence_file(path) for image_id, path in files.items()}
        masks |= hash_files(beside, recipe.num_workers)
    content = settings.model_dump(mode="json", exclude=set(RUNTIME_KEYS))
    inputs = {"masks": masks, "classifier": sha256(classifier)}
    key = fingerprint({"segment": content, **inputs})
    length: dict[str, Any] = {}
    if settings.rounds == 1 and settings.iterations is None:
        others = {name: value for name, value in content.items() if name != "epochs"}
        length = {"epochs": settings.epochs, "besides_epochs": fingerprint({"segment": others, **inputs})}
    if not folder.begin_training("segment", key, folder.segmenter, length or None):
        return None
    scored = None if val is None else val.subset(sample.image_id for sample in val if sample.mask is not None)
    with folder.step("segment", key, images=len(images), **length):
        return fit_rounds(
            lambda: build_segmenter(recipe, settings, len(train.classes), classifier),
            images,
            scored or None,
            settings,
            folder.segmenter.parent,
            device=recipe.device,
            num_workers=recipe.num_workers,
            progress=progress,
        )


def predict_masks(
    recipe: Recipe,
    settings: SegmentConfig,
    folder: RunFolder,
    split: str,
    images: TaggedImages,
    *,
    progress: bool = True,
) -> int:
    """Write `segmented/<split>/<image id>.png`, the network's prediction, for every image that has none yet.

    The network sees the pictures alone, not their tags.

    Args:
        recipe: the recipe of the run.
        settings: its `segment` section.
        folder: a run whose segmentation network is trained.
        split: name of the split in the run folder.
        images: the images of the split. The processes of a launch share them.
        progress: show a bar.

    Returns:
        The number of masks that this call made, in all processes of a launch.
    """
    share, count = current_share(), len(images)
    images = images.part(share)
    results = _results(settings, folder, split)
    keys = picture_keys(images, recipe.num_workers)
    if results.is_complete(keys):
        return 0
    with folder.step(f"segmented/{split}", fingerprint(results.settings), images=count):
        missing = set(results.begin(keys))
        todo = [sample for sample in images if sample.image_id in missing]
        model = load(folder.segmenter).to(torch_device(recipe.device))
        save = partial(_save, results, keys)
        workers = recipe.num_workers
        segment_images(model, todo, save, num_workers=workers, progress=progress, **settings.prediction())
        results.end()
    return sum(share.gather(len(todo)))


def finished_predictions(recipe: Recipe, folder: RunFolder, split: str, images: TaggedImages) -> dict[str, Path]:
    """Return, by image id, the predictions that the run's present network made of the present pictures."""
    if recipe.segment is None or not folder.segmenter.exists() or not folder.segmented(split).is_dir():
        return {}
    results, keys = _results(recipe.segment, folder, split), picture_keys(images, recipe.num_workers)
    unfinished = set(results.unfinished(keys))
    return {image_id: results.file(image_id) for image_id in keys if image_id not in unfinished}


def _make_training_masks(recipe: Recipe, folder: RunFolder, train: TaggedImages, *, progress: bool) -> Path:
    """Make CAMs and masks of the training images, and return the folder of the masks."""
    split = training_split(recipe)
    make_cams(recipe, folder, split, train, progress=progress)
    make_masks(recipe, folder, split, train, progress=progress)
    if not recipe.refine:
        return folder.masks(split)
    refine_masks(recipe, folder, split, train, progress=progress)
    return folder.refined(split)


def _results(settings: SegmentConfig, folder: RunFolder, split: str) -> ResultFolder:
    content: dict[str, Any] = {"weights": sha256(folder.segmenter)} | settings.prediction()
    return ResultFolder(folder.segmented(split), ".png", content)


def _save(results: ResultFolder, keys: dict[str, str], sample: Sample, result: SegmentResult) -> None:
    write_mask(results.file(sample.image_id), result.mask)
    results.finish(sample.image_id, keys[sample.image_id])


def _path(sample: Sample) -> Path:
    assert isinstance(sample.mask, Path)
    return sample.mask


def segment_dataset(
    source: str | Path,
    masks: str | Path | None,
    out: str | Path | None,
    overrides: Sequence[str] = (),
    *,
    progress: bool = True,
    log: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train a segmentation network on a data set with masks of any origin: drawn by hand, or made by another tool.

    Args:
        source: folder of the data set.
        masks: folder of palette PNGs `<image id>.png` for the training images; None for the masks of the data set.
        out: folder of the network and its training curve; None for `runs/<data set>-segmenter`.
        overrides: `KEY=VALUE` of the recipe's sections `segment` and `data`, and of its key `device`.
        progress: show bars.
        log: gets one line at the end.

    Returns:
        The file of the network.

    Raises:
        PPLFileNotFoundError: if the data set, a split or the masks are missing.
        PPLValueError: if no encoder is named, or settings and data do not fit each other.
        FolderInUseError: if another process is at work in `out`.
    """
    recipe = check_recipe(with_overrides({"data": {"root": str(source)}, "segment": {}}, list(overrides)))
    settings = recipe.segment
    if settings is None or settings.encoder is None:
        raise PPLValueError("name the network's encoder: add --set segment.encoder=resnet50, or another timm model")
    folder = Path("runs") / f"{recipe.data.root.resolve().name}-segmenter" if out is None else Path(out)
    splits = open_splits(recipe.data, progress=progress)
    for note in splits.notes:
        log(note)
    train = splits.train
    if masks is not None:
        train, bad = check_images(with_masks(train, masks), progress=progress)
        for fault in bad:
            log(f"left out {fault.image_id}: {fault.reason}")
    train = train.subset(sample.image_id for sample in train if sample.mask is not None)
    if not len(train):
        raise PPLValueError(f"{splits.train.name} has no masks to train on: add --masks FOLDER")
    val = splits.val
    scored = None if val is None else val.subset(sample.image_id for sample in val if sample.mask is not None)
    RunFolder(folder).make()
    with command_lock(folder):
        weights = settings.checkpoint_path
        pretrained = settings.pretrained and weights is None
        summary = fit_rounds(
            partial(_create, settings, settings.encoder, len(train.classes), weights, pretrained=pretrained),
            train,
            scored or None,
            settings,
            folder,
            device=recipe.device,
            num_workers=recipe.num_workers,
            progress=progress,
        )
    score = "" if summary.best_score is None else f", best validation mIoU {100 * summary.best_score:.1f}"
    images = f"{len(train)} of {len(splits.train)} images"
    log(f"trained on {images} for {summary.epochs} epochs in {summary.seconds:.0f} s{score}")
    return summary.last_path
