"""Predictions of a segmentation network for any pictures, in a folder."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ppl.data import Sample, TaggedImages, read_images
from ppl.data.text_files import read_lines
from ppl.errors import PPLValueError
from ppl.io import atomic_write, write_mask
from ppl.io.fingerprint import fingerprint, sha256
from ppl.io.listing import counted, without_suffix
from ppl.parallel import FolderSummary, current_share
from ppl.parallel.lock import command_lock
from ppl.pipeline.device import torch_device
from ppl.pipeline.networks import network_file
from ppl.pipeline.results import ResultFolder
from ppl.pipeline.segmenting import picture_keys, segment_images
from ppl.pipeline.splits import check_share
from ppl.pipeline.submission import pack_voc12
from ppl.report import overlay_mask
from ppl.report.page import write_page
from ppl.report.parts import legend
from ppl.segment import SegmentConfig, Segmenter, SegmentResult, load

__all__ = ["predict_folder"]

_DEFAULTS = SegmentConfig()
_SHOWN = 200
"""Pictures on the HTML page; a page of thousands does not open."""


def predict_folder(
    model: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    scales: tuple[float, ...] = _DEFAULTS.scales,
    flip: bool = _DEFAULTS.flip,
    crf: str | None = _DEFAULTS.crf,
    amp: bool = False,
    names: str | Path | None = None,
    submission: str | Path | None = None,
    value_range: int | None = None,
    device: str = "auto",
    num_workers: int = -1,
    progress: bool = True,
) -> FolderSummary:
    """Segment pictures: `out/masks/<image id>.png`, `out/overlays/<image id>.jpg` and the page `out/index.html`.

    `out/masks/classes.txt` names the classes of the masks, if the network knows them.

    Pictures whose mask was made from the same content by the same network and settings are not segmented again. The
    processes of a launch share the pictures, see `ppl.parallel.Share`; for array jobs see `ppl.parallel.shard`, whose
    shards write no page.

    Args:
        model: file of the network, such as `segmenter/last.safetensors` of a run folder; or the run folder.
        images: a folder of pictures, or one picture.
        out: folder of the results.
        scales: see `ppl.segment.predict`.
        flip: see `ppl.segment.predict`.
        crf: see `ppl.segment.predict`.
        amp: see `ppl.segment.predict`.
        names: list of the pictures to segment, one name per line; None for all.
        submission: archive (.tgz) to pack the masks into, as the server of PASCAL VOC 2012 takes them.
        value_range: largest value of 16-bit pictures, 4095 for 12 bits; None for 65535.
        device: "auto", "cpu", "cuda", ...
        num_workers: threads that write files; -1 for one per core.
        progress: show a bar.

    Returns:
        The number of pictures that were segmented and that were finished before, and the pictures that were left out;
        of all processes of a launch, and of a shard its own.

    Raises:
        PPLFileNotFoundError: if the network or the pictures are missing.
        PPLValueError: if the file holds no segmentation network, `out` lies in `images`, or a setting is out of range.
        FolderInUseError: if another process is at work in `out`.
    """
    path, images, out = network_file(model), Path(images), Path(out)
    if images.is_dir() and out.resolve().is_relative_to(images.resolve()):
        raise PPLValueError(f"{out} lies in {images}, so its masks would be taken for pictures; choose another --out")
    start = time.perf_counter()
    network = load(path).to(torch_device(device))
    classes = network.classes or tuple(f"class {index}" for index in range(network.num_classes))
    share = current_share()
    if share.is_shard and submission is not None:
        raise PPLValueError("a submission needs all pictures: pack it by the last call, without a shard")
    everything, bad = check_share(
        _chosen(read_images(images, classes, value_range=value_range), names), progress=progress
    )
    dataset = everything.part(share)
    settings = {"weights": sha256(path), "scales": scales, "flip": flip, "crf": crf}
    results = ResultFolder(out / "masks", ".png", settings)
    with command_lock(out, fingerprint(settings)):
        keys = picture_keys(dataset, num_workers)
        missing = set(results.begin(keys, keep_others=True))
        todo = [sample for sample in dataset if sample.image_id in missing]
        save = partial(_save, out, results, keys)
        segment_images(
            network,
            todo,
            save,
            num_workers=num_workers,
            progress=progress,
            scales=scales,
            flip=flip,
            crf=crf,
            amp=amp,
        )
        results.end()
        if share.writes_totals:
            _write_page(out, everything, network)
            if network.classes is not None:
                with atomic_write(results.path / "classes.txt", "w") as file:
                    file.writelines(f"{name}\n" for name in network.classes)
        if share.writes_totals and submission is not None:
            pack_voc12({image_id: results.file(image_id) for image_id in everything.image_ids}, submission)
        done = sum(share.gather(len(todo)))
    return FolderSummary(done, len(everything) - done, tuple(bad), time.perf_counter() - start)


def _chosen(images: TaggedImages, names: str | Path | None) -> TaggedImages:
    """Return the pictures of a list."""
    if names is None:
        return images
    lines = read_lines(Path(names), "a list of image names, one per line")
    return images.subset(without_suffix(line.split()[0].rpartition("/")[2]) for _, line in lines)


def _save(out: Path, results: ResultFolder, keys: dict[str, str], sample: Sample, result: SegmentResult) -> None:
    image_id = sample.image_id
    shown = Image.fromarray(overlay_mask(np.asarray(sample.read_image()), result.mask))
    with atomic_write(out / "overlays" / f"{image_id}.jpg") as handle:
        shown.save(handle, format="JPEG", quality=90)
    write_mask(results.file(image_id), result.mask)
    results.finish(image_id, keys[image_id])


def _write_page(out: Path, images: TaggedImages, network: Segmenter) -> None:
    """Write a page with the overlays, which opens without a server."""
    write_page(
        "predictions.html",
        out / "index.html",
        title=f"Predictions of {counted(len(images), 'picture')}",
        names=images.image_ids[:_SHOWN],
        total=len(images),
        legend=legend(network.classes or ()),
    )
