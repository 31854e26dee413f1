"""Training of a segmentation network in rounds: from the second on, on the network's own predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ppl.data import Sample, TaggedImages
from ppl.engine import TrainSummary
from ppl.engine.state_file import check_same_run, read_state
from ppl.errors import PPLValueError
from ppl.io import write_mask
from ppl.io.confidence import write_confidence
from ppl.io.fingerprint import sha256
from ppl.parallel import current_share
from ppl.pipeline.device import torch_device
from ppl.pipeline.results import ResultFolder
from ppl.pipeline.segmenting import picture_keys, segment_images
from ppl.segment import SegmentConfig, Segmenter, SegmentResult, fit, load, with_masks

__all__ = ["fit_rounds"]


def fit_rounds(
    create: Callable[[], Segmenter],
    images: TaggedImages,
    val: TaggedImages | None,
    settings: SegmentConfig,
    out: Path,
    *,
    device: str,
    num_workers: int,
    progress: bool,
) -> TrainSummary:
    """Train a segmentation network as often as `settings.rounds` says, and go on where an earlier call stopped.

    A round before the last one has the folder `out/round<number>`. Its `masks/` holds the predictions of its network
    for the training images, from which the next round learns.

    Args:
        create: makes the network with its initial weights, the same at every call.
        images: images that all have masks.
        val: images for the score after each epoch, or None.
        settings: the settings.
        out: the folder of the last round, whose network is the result.
        device: as for `ppl.segment.fit`.
        num_workers: threads that write predictions; -1 for one per core.
        progress: show bars.

    Returns:
        The summary of the last round.

    Raises:
        PPLValueError: if settings, network and data do not fit each other, or the folder holds a training with another
            number of rounds.
    """
    state = read_state(out)
    if state is not None:  # told before the first round is trained
        check_same_run(out, state["identity"], state["identity"] | {"rounds": settings.rounds})
    for number in range(1, settings.rounds):
        place = out / f"round{number}"
        network = fit(create(), images, val, settings, place, progress=progress, device=device).last_path
        masks = _predict(network, images, settings, place, device, num_workers, progress)
        images = with_masks(images, masks)
    return fit(create(), images, val, settings, out, progress=progress, device=device)


def _predict(
    network: Path,
    images: TaggedImages,
    settings: SegmentConfig,
    place: Path,
    device: str,
    num_workers: int,
    progress: bool,
) -> Path:
    """Write the predictions that are not finished yet, cut to the tags of each image, and return their folder.

    The processes of a launch share the images.
    """
    content = {"weights": sha256(network), "confidence": settings.reads_confidence} | settings.prediction()
    results = ResultFolder(place / "masks", ".png", content)
    images = images.part(current_share())
    keys = picture_keys(images, num_workers, tags=True)
    missing = set(results.begin(keys))

    def save(sample: Sample, result: SegmentResult) -> None:
        path = results.file(sample.image_id)
        if settings.reads_confidence:
            if result.probs is None:
                raise PPLValueError(
                    f"image {sample.image_id!r} is too large for the confidence of its labels: set "
                    "segment.confidence to false and segment.min_confidence to 0, or make the image smaller"
                )
            write_confidence(path, result.probs.numpy())
        write_mask(path, result.mask)
        results.finish(sample.image_id, keys[sample.image_id])

    if missing:
        todo = [sample for sample in images if sample.image_id in missing]
        model = load(network).to(torch_device(device))
        segment_images(
            model,
            todo,
            save,
            tags=True,
            probs=settings.reads_confidence,
            num_workers=num_workers,
            progress=progress,
            **settings.prediction(),
        )
    results.end()
    return results.path
