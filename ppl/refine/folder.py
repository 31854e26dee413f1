"""Refinement at dataset scale: CAM files in, masks out."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from ppl.io import atomic_write, read_image, write_mask
from ppl.parallel import FolderSummary, run_jobs
from ppl.refine.jobs import RefineJob, resize_maps
from ppl.refine.names import recorded_name
from ppl.refine.pipeline import Recipe, Step, apply_steps, check_files, parse_steps
from ppl.refine.probabilities import Background, cams_to_probs
from ppl.refine.results import check_places, date_result, is_current, newest_source, probs_path, remove_results

__all__ = ["refine_folder"]


def refine_folder(
    jobs: Iterable[RefineJob],
    out: str | Path,
    steps: Recipe,
    *,
    background: Background = 0.2,
    num_workers: int = -1,
    overwrite: bool = False,
    keep_probs: bool = False,
    progress: bool = True,
) -> FolderSummary:
    """Refine the CAMs of many images into masks, over all cores; a run that was stopped goes on where it was.

    Inside `joblib.parallel_config(backend=...)` the work goes to processes, a Dask or a Ray cluster instead of threads.

    Args:
        jobs: the images, see `RefineJob` and `jobs_from_folders`. CAMs of another resolution are resized.
        out: folder of the results: `<image_id>.png`, palette masks in which 0 is background and class c is c + 1, and
            `refine.json`, which says how they were made.
        steps: as `parse_steps` takes them; all are checked before any work. None: the CAMs' own best labels.
        background: as for `cams_to_probs`.
        num_workers: workers; -1 for one per core.
        overwrite: make all results again; the old ones are removed first. Without it, results that are there are kept,
            but for those that are older than their picture or their CAM file, or that lack their probabilities.
        keep_probs: also write `<image_id>.npz` with `probs` (1 + k, H, W) float16 and `classes` (k,), to choose
            thresholds later. A folder of masks made without it counts as made in another way.
        progress: a bar with images per second and the time left, on a terminal only.

    Returns:
        How many were done and skipped, which were bad and why, and the time.

    Raises:
        PPLValueError: for steps that do not parse or name a file that is no affinity network, two jobs of one name,
            no workers, a background or an affinity that cannot be named in a record (a `lambda`, a method), or if
            `out` holds results that were made in another way, or the pictures or the CAM files that results would
            replace.
        PPLFileNotFoundError: if the affinity network that a step names is not there.
        FileWriteError: if results cannot be written.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = Path(name)
        ...     Image.new("RGB", (6, 4)).save(folder / "a.png")
        ...     cams = lambda: (np.ones((1, 2, 3), np.float32), np.array([4]))
        ...     summary = refine_folder([RefineJob("a", folder / "a.png", cams)], folder / "out", "guided_filter: 2")
        ...     summary.done, sorted(path.name for path in (folder / "out").iterdir())
        (1, ['a.png', 'refine.json'])
    """
    chosen = parse_steps(steps)
    check_files(chosen)
    jobs, out = list(jobs), Path(out)
    check_places(jobs, out, keep_probs)
    if not callable(background):
        cams_to_probs(np.zeros((0, 1, 1), np.float32), background)  # before any work
    name = recorded_name("background", background) if callable(background) else background
    record = {"steps": [step.record() for step in chosen], "background": name}
    return run_jobs(
        jobs,
        partial(_refine_one, steps=chosen, background=background, keep_probs=keep_probs),
        out,
        record=record | {"probs": True} if keep_probs else record,
        num_workers=num_workers,
        overwrite=overwrite,
        progress=progress,
        is_done=partial(is_current, probs=keep_probs),
        remove=remove_results,
    )


def _refine_one(
    job: RefineJob, path: Path, *, steps: tuple[Step, ...], background: Background, keep_probs: bool
) -> None:
    newest = newest_source(job)
    image = np.asarray(read_image(job.image))
    maps, classes = job.load()
    probs = cams_to_probs(resize_maps(maps, (image.shape[0], image.shape[1])), background)
    probs = apply_steps(steps, image, probs)
    if keep_probs:
        with atomic_write(probs_path(path)) as handle:
            np.savez_compressed(handle, probs=probs.astype(np.float16), classes=classes)
    # The mask comes last: where it is, all is.
    values = np.concatenate([[0], classes + 1])
    write_mask(path, values[probs.argmax(axis=0)].astype(np.uint8))
    date_result(path, newest)
