"""Predictions of a segmentation network for many images, written in threads while the network predicts the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ppl.data import Sample, TaggedImages
from ppl.io.fingerprint import fingerprint
from ppl.parallel import tracked
from ppl.pipeline.results import hash_files
from ppl.pipeline.writer import background_writer
from ppl.segment import Segmenter, SegmentResult, iter_predict

__all__ = ["picture_keys", "segment_images"]


def segment_images(
    model: Segmenter,
    images: Sequence[Sample],
    save: Callable[[Sample, SegmentResult], None],
    *,
    tags: bool = False,
    probs: bool = False,
    num_workers: int,
    progress: bool,
    **settings: Any,
) -> None:
    """Segment images, and save each result in a thread.

    Args:
        model: the network, on its device.
        images: the images.
        save: writes the result of an image.
        tags: leave each image the classes of its tags alone.
        probs: give the results their probabilities.
        num_workers: threads that save; -1 for one per core.
        progress: show a bar.
        **settings: further arguments of `ppl.segment.iter_predict`.
    """
    labels = [sample.labels for sample in images] if tags else None
    found = iter_predict(model, [sample.picture for sample in images], labels, probs=probs, **settings)
    with background_writer(num_workers) as submit:
        bar = tracked(found, "predictions", len(images), show=progress)
        for sample, result in zip(images, bar, strict=True):
            submit(save, sample, result)


def picture_keys(images: TaggedImages, num_workers: int, *, tags: bool = False) -> dict[str, str]:
    """Return, by image id, the fingerprint of the picture that a prediction is made from, and of its tags if asked."""
    hashes = hash_files({sample.image_id: sample.image for sample in images}, num_workers)
    return {
        sample.image_id: fingerprint(
            {"image": hashes[sample.image_id], "value_range": sample.value_range}
            | ({"tags": sample.labels} if tags else {})
        )
        for sample in images
    }
