"""Refinement of many images with the CRF on a GPU, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ppl.errors import PPLError
from ppl.parallel import BadFile, guarded, parallel_map
from ppl.refine.apply import apply_refiners, normalized
from ppl.refine.crf import crf_many
from ppl.refine.crf_refiner import crf_config
from ppl.refine.jobs import RefineJob, read_probs
from ppl.refine.probabilities import Background
from ppl.refine.results import Keep, write_result
from ppl.refine.specs import RefinerSpec

__all__ = ["refine_in_batches"]

T = TypeVar("T")
Begin: TypeAlias = Callable[[RefineJob], tuple[str, str]]

_CHUNK = 64  # images in memory at once, twice: one chunk is refined while the next one is read


@dataclass(frozen=True)
class _Image:
    """An image between two refiners."""

    job: RefineJob
    key: str
    pixels: npt.NDArray[np.uint8]
    probs: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]

    @property
    def image_id(self) -> str:
        return self.job.image_id


def refine_in_batches(
    jobs: Sequence[RefineJob],
    begin: Begin,
    *,
    out: Path,
    refiners: Sequence[RefinerSpec],
    background: Background,
    keep: Keep,
    device: torch.device,
    num_workers: int,
) -> Iterator[tuple[str, str] | BadFile]:
    """Refine images chunk by chunk: the CRF on the device, in batches; all other work in the worker pool.

    Args:
        jobs: the images.
        begin: as for `ppl.parallel.run_jobs`: removes old results and returns the image id and the key.
        out: folder of the results.
        refiners: specs of `parse_refiners`.
        background: as for `cams_to_probs`.
        keep: what is written beside the masks.
        device: device of the CRF.
        num_workers: number of workers; -1 for one per core.

    Yields:
        The image id and the key of each result, or a `BadFile`.
    """
    read = partial(guarded, partial(_read, begin, background))
    write = partial(guarded, partial(_write, out, keep))
    chunks = (jobs[first : first + _CHUNK] for first in range(0, len(jobs), _CHUNK))
    for results in _one_ahead(list(parallel_map(read, chunk, num_workers)) for chunk in chunks):
        images, bad = _split(results)
        yield from bad
        for spec in refiners:
            images, bad = _split(_refine(spec, images, device, num_workers))
            yield from bad
        yield from parallel_map(write, images, num_workers)


def _split(results: Iterable[_Image | BadFile]) -> tuple[list[_Image], list[BadFile]]:
    images: list[_Image] = []
    bad: list[BadFile] = []
    for result in results:
        if isinstance(result, BadFile):
            bad.append(result)
        else:
            images.append(result)
    return images, bad


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the items of an iterator while a thread makes the next one."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, items, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, items, None)
            yield item


def _read(begin: Begin, background: Background, job: RefineJob) -> _Image:
    _, key = begin(job)
    return _Image(job, key, *read_probs(job, background))


def _refine(spec: RefinerSpec, images: list[_Image], device: torch.device, num_workers: int) -> list[_Image | BadFile]:
    """Apply one refiner to all images: the CRF in batches on the device, any other refiner in the worker pool."""
    if spec.name == "crf" and spec.options.get("backend", "auto") in ("auto", "torch"):
        try:
            return _refine_by_crf(spec, images, device)
        except PPLError:  # an image that the CRF refuses: refine one image after the other to find out which one
            return [guarded(lambda image: _refine_by_crf(spec, [image], device)[0], image) for image in images]
    return list(parallel_map(partial(guarded, partial(_apply, spec)), images, num_workers))


def _refine_by_crf(spec: RefinerSpec, images: list[_Image], device: torch.device) -> list[_Image | BadFile]:
    refined = crf_many(
        [image.pixels for image in images],
        [torch.from_numpy(image.probs).to(device) for image in images],
        preset=crf_config(spec.options),
        backend="torch",
    )
    return [
        replace(image, probs=normalized(spec, probs.cpu().numpy(), image.probs))
        for image, probs in zip(images, refined, strict=True)
    ]


def _apply(spec: RefinerSpec, image: _Image) -> _Image:
    return replace(image, probs=apply_refiners([spec], image.pixels, image.probs, image.labels))


def _write(out: Path, keep: Keep, image: _Image) -> tuple[str, str]:
    write_result(image.job, out, image.probs, image.labels, keep)
    return image.image_id, image.key
