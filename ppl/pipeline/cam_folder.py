"""CAMs and masks of any pictures, by a trained model."""

from __future__ import annotations

import time
from pathlib import Path

from ppl.cam import check_maps
from ppl.data import TaggedImages, read_images
from ppl.errors import PPLValueError
from ppl.io.fingerprint import fingerprint, sha256
from ppl.models import PPLNet, load_model
from ppl.parallel import FolderSummary, check_workers, current_share
from ppl.parallel.lock import command_lock
from ppl.parallel.run_jobs import RECORD_FILE
from ppl.pipeline.cams import cam_keys, cam_settings, extreme_sizes, write_cams
from ppl.pipeline.device import torch_device
from ppl.pipeline.masks import cut_masks, mask_keys, mask_settings
from ppl.pipeline.recipe import CamRecipe
from ppl.pipeline.results import ResultFolder
from ppl.pipeline.splits import check_share

__all__ = ["cam_folder"]


def cam_folder(
    checkpoint: str | Path,
    images: str | Path,
    out: str | Path,
    labels: str | Path | None = None,
    settings: CamRecipe | None = None,
    *,
    value_range: int | None = None,
    device: str = "auto",
    num_workers: int = -1,
    overwrite: bool = False,
    progress: bool = True,
) -> FolderSummary:
    """Write the CAMs and masks of pictures: `out/cams/<image id>.npz` and `out/masks/<image id>.png`.

    CAM files stay if they are of the same picture and tags and were made by the same weights and settings. Masks are
    cut again if the CAM file or the background rule has changed. The processes of a launch share the pictures, see
    `ppl.parallel.Share`; for array jobs see `ppl.parallel.shard`.

    Args:
        checkpoint: weights that `ppl.save_model` has written.
        images: a folder of pictures, or one picture.
        out: folder of the results. Its `cams` and `masks` keep a `record.jsonl` of what each file was made from.
        labels: CSV of tags (`image,labels`). Without it every image gets the classes that the model predicts.
        settings: the `cam` section of a recipe.
        value_range: largest value of 16-bit pictures, 4095 for 12 bits; None for 65535.
        device: as `device` of a recipe.
        num_workers: threads that write files; -1 for one per core.
        overwrite: make all CAMs again, also those that were made by other weights or settings. Files in a folder
            without a record are never overwritten.
        progress: show a bar.

    Returns:
        The number of CAM files that were made and that were kept, and the pictures that were left out; of all processes
        of a launch, and of a shard its own.

    Raises:
        PPLValueError: if tags are given but the checkpoint names no classes, if `out` lies in `images`, if `out` holds
            files that were made in another way, or if `num_workers` is 0.
        FolderInUseError: if another process is at work in `out`.

    Example:
        >>> import tempfile
        >>> import ppl
        >>> with tempfile.TemporaryDirectory() as name:
        ...     model = ppl.create_model("test_resnet", 4, cuts=["layer2"], pretrained=False)
        ...     ppl.save_model(model, Path(name) / "model.safetensors")
        ...     photos = ppl.data.make_creatures(Path(name) / "set", train=2, val=0, size=48) / "images"
        ...     summary = cam_folder(Path(name) / "model.safetensors", photos, Path(name) / "out", progress=False)
        >>> summary.done, summary.skipped
        (2, 0)
    """
    checkpoint, images, out = Path(checkpoint), Path(images), Path(out)
    check_workers(num_workers)
    if images.is_dir() and out.resolve().is_relative_to(images.resolve()):
        raise PPLValueError(f"{out} lies in {images}, so its masks would be taken for pictures; choose another --out")
    start = time.perf_counter()
    model = load_model(checkpoint).to(torch_device(device))
    settings = settings or CamRecipe(labels="tags" if labels is not None else "predicted")
    share = current_share()
    dataset, bad = check_share(_open(model, checkpoint, images, labels, value_range), progress=progress)
    dataset = dataset.part(share)
    check_maps(model, extreme_sizes(dataset), **settings.reading())
    cams = ResultFolder(out / "cams", ".npz", cam_settings(settings, sha256(checkpoint)))
    masks = ResultFolder(out / "masks", ".png", mask_settings(settings))
    with command_lock(out, fingerprint([cams.settings, masks.settings])):
        for results in (cams, masks):
            _check_own(results)
        if cams.record.settings is not None and not cams.has_same_settings and not overwrite:
            raise PPLValueError(
                f"{cams.path} holds CAMs that were made in another way (see {RECORD_FILE}): choose another folder, or "
                "overwrite them (--overwrite)"
            )
        keys = cam_keys(dataset, settings, num_workers, progress=progress)
        missing = set(cams.begin(keys, redo=overwrite, keep_others=True))
        own = filter(share.owns, masks.files())
        masks.remove(image_id for image_id in own if not cams.file(image_id).exists())
        todo = [sample for sample in dataset if sample.image_id in missing]
        write_cams(model, todo, cams, keys, settings, num_workers, images.name, progress=progress)
        keys = mask_keys(cams.path, dataset, num_workers)
        bad += cut_masks(dataset, cams.path, masks, keys, num_workers, keep_others=True, progress=progress)
    done, count = map(sum, zip(*share.gather([len(todo), len(dataset)]), strict=True))
    return FolderSummary(done, count - done, tuple(bad), time.perf_counter() - start)


def _open(
    model: PPLNet, checkpoint: Path, images: Path, labels: str | Path | None, value_range: int | None
) -> TaggedImages:
    if model.classes is None and labels is not None:
        raise PPLValueError(f"{checkpoint} does not name its classes, so tags mean nothing to it; leave the labels out")
    classes = model.classes or tuple(f"class {index}" for index in range(model.num_classes))
    return read_images(images, classes, labels, value_range=value_range)


def _check_own(results: ResultFolder) -> None:
    """Refuse a folder that holds files but no record: they may be the user's only copies."""
    found = sorted(results.files().values())
    if found and results.record.settings is None:
        raise PPLValueError(
            f"{results.path} holds {found[0].name}, made in another way or by somebody else (it has no {RECORD_FILE}): "
            "choose another folder"
        )
