"""Folders of maps and masks in the formats of other projects and tools: in and out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ppl.cam import MAP_FORMATS, CamResult, parse_background, read_maps, write_maps
from ppl.cam.background import Background
from ppl.data import Sample, TaggedImages, read_images, write_coco, write_yolo
from ppl.data.coco import coco_masks
from ppl.data.dataset import MaskSource
from ppl.data.mask_sources import ColorMask, find_color_table, labels_of_mask
from ppl.data.text_files import read_classes
from ppl.data.yolo import YoloMask
from ppl.errors import PPLFileNotFoundError, PPLValueError, nearest
from ppl.io import atomic_write, read_mask, sha256, write_mask
from ppl.io.archives import FilePath
from ppl.io.images import BadImageError
from ppl.io.listing import counted, examples, list_files, list_images
from ppl.parallel import FolderSummary, run_jobs

__all__ = ["MASK_FORMATS", "export_folder", "import_folder"]

MASK_FORMATS = ("png", "coco", "yolo")
"""Formats of masks; those of maps are `ppl.cam.MAP_FORMATS`."""


def import_folder(
    source: str | Path,
    out: str | Path,
    kind: str,
    *,
    images: str | Path | None = None,
    classes: str | Path | None = None,
    allow_pickle: bool = False,
    num_workers: int = -1,
    overwrite: bool = False,
    progress: bool = True,
) -> FolderSummary:
    """Turn maps of another project into CAM files, or masks of an annotation tool into palette PNGs.

    Args:
        source: a folder, or COCO's JSON file.
        out: the folder of the results: `<image id>.npz` (:meth:`ppl.cam.CamResult.load`) or `<image id>.png`, and
            `record.jsonl`. Masks of "coco" and "yolo" come with a `classes.txt`.
        kind: "irn", "psa", "puzzle" or a registered format of maps, see :func:`ppl.cam.read_maps`; "png" for masks of
            class indices, or of colours with a `labelmap.txt`; "coco" for instances JSON; "yolo" for text files.
        images: the folder of the pictures, for "yolo", whose files do not know the sizes.
        classes: a file with one class per line, for "yolo"; by default the `classes.txt` in `source`.
        allow_pickle: open the pickles of map files. A pickle can run any code: only for files that you trust.
        num_workers: the number of workers; -1 for one per core.
        overwrite: make all results again.
        progress: show a bar.

    Returns:
        How many files were done and skipped, and which were bad and why.

    Raises:
        PPLValueError: if the format is unknown, map files are to be read without `allow_pickle`, or `out` holds other
            results.
        PPLFileNotFoundError: if the source or what the format needs is missing.

    Example:
        >>> import tempfile, torch
        >>> result = CamResult(torch.rand(1, 8, 12), torch.tensor([14]), torch.ones(1), (8, 12))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_maps(f"{folder}/irn/2007_000032.npy", result, "irn")
        ...     summary = import_folder(f"{folder}/irn", f"{folder}/cams", "irn", allow_pickle=True)
        ...     CamResult.load(f"{folder}/cams/2007_000032.npz").classes
        tensor([14])
    """
    source, out = Path(source), Path(out)
    _check_format(kind)
    names: tuple[str, ...] | None = None
    target = _Target(out, ".png", _write_mask)
    if kind == "coco":
        path = _json_of(source)
        names, masks = coco_masks(path)
        shared = sha256(path)
        jobs = [_Job(image_id, mask, (), shared) for image_id, mask in masks.items()]
    elif kind == "yolo":
        names = read_classes(source / "classes.txt" if classes is None else Path(classes))
        jobs = _yolo_jobs(source, images)
        target = _Target(out, ".png", partial(_write_mask, num_classes=len(names)))
    elif kind == "png":
        colors = find_color_table(source)
        jobs = [
            _Job(image_id, ColorMask(path, colors) if colors else path, (path,))
            for image_id, path in _files(source, ".png").items()
        ]
    else:
        if not allow_pickle:
            read_maps(source, kind)  # the error that says so
        jobs = [_Job(image_id, path, (path,)) for image_id, path in _files(source, ".npy").items()]
        target = _Target(out, ".npz", partial(_import_maps, kind=kind))
    if not jobs:
        raise PPLFileNotFoundError(f"{source} lists no images; check the path")
    _check_apart(source, out)
    options = {"num_workers": num_workers, "overwrite": overwrite, "progress": progress, "description": "import"}
    summary = target.run(jobs, {"import": kind, "classes": names}, **options)
    if names is not None:
        with atomic_write(out / "classes.txt", "w") as file:
            file.writelines(f"{name}\n" for name in names)
    return summary


def export_folder(
    source: str | Path,
    out: str | Path,
    kind: str,
    *,
    images: str | Path | None = None,
    classes: str | Path | None = None,
    background: float | str = "auto",
    num_workers: int = -1,
    overwrite: bool = False,
    progress: bool = True,
) -> FolderSummary:
    """Write CAM files for the code of another project, or masks for an annotation tool.

    Args:
        source: a folder of CAM files (`.npz`) for the formats of maps and for "png", a folder of masks (`.png`) for
            "coco" and "yolo".
        out: the folder of the results, or for "coco" the JSON file.
        kind: "irn", "psa", "puzzle" or a registered format of maps, see :func:`ppl.cam.write_maps`; "png" for palette
            PNGs that the background rule cuts from the maps; "coco" for instances with run-length codes; "yolo" for
            polygons.
        images: the folder of the pictures, for "coco", which names their files.
        classes: a file with one class per line, for "coco" and "yolo"; by default the `classes.txt` in `source`.
        background: the score of the background for "png": a number, "auto" or "power:ALPHA".
        num_workers: the number of workers; -1 for one per core.
        overwrite: make all results again.
        progress: show a bar.

    Returns:
        How many files were done and skipped, and which were bad and why.

    Raises:
        PPLValueError: if the format is unknown, a mask holds an index without a class, or `out` holds other results.
        PPLFileNotFoundError: if the source or what the format needs is missing.
    """
    source, out = Path(source), Path(out)
    _check_format(kind)
    if kind in ("coco", "yolo"):
        return _export_masks(source, out, kind, images, classes)
    rule = parse_background(background)
    jobs = [_Job(image_id, path, (path,)) for image_id, path in _files(source, ".npz").items()]
    _check_apart(source, out)
    options = {"num_workers": num_workers, "overwrite": overwrite, "progress": progress, "description": "export"}
    if kind == "png":
        target = _Target(out, ".png", partial(_cut_mask, background=rule))
        return target.run(jobs, {"export": kind, "background": background}, **options)
    return _Target(out, ".npy", partial(_export_maps, kind=kind)).run(jobs, {"export": kind}, **options)


@dataclass(frozen=True)
class _Job:
    """One image: where its maps or its mask are read from, and the files that decide the result."""

    image_id: str
    source: Any
    inputs: tuple[FilePath, ...]
    shared: str = ""
    """The hash of a file that all images share."""

    def key(self) -> list[str]:
        return [self.shared, *map(sha256, self.inputs)]


@dataclass(frozen=True)
class _Target:
    """The folder of the results, and what is done for an image."""

    out: Path
    suffix: str
    write: Callable[[_Job, Path], None]

    def files(self, job: _Job) -> list[Path]:
        return [self.out / f"{job.image_id}{self.suffix}"]

    def work(self, job: _Job) -> None:
        self.write(job, self.files(job)[0])

    def run(self, jobs: list[_Job], settings: Mapping[str, Any], **options: Any) -> FolderSummary:
        return run_jobs(jobs, self.work, self.out, files=self.files, settings=settings, **options)


def _import_maps(job: _Job, path: Path, *, kind: str) -> None:
    read_maps(job.source, kind, allow_pickle=True).save(path)


def _export_maps(job: _Job, path: Path, *, kind: str) -> None:
    write_maps(path, CamResult.load(job.source), kind)


def _cut_mask(job: _Job, path: Path, *, background: Background) -> None:
    write_mask(path, CamResult.load(job.source).to_mask(background))


def _write_mask(job: _Job, path: Path, *, num_classes: int = 254) -> None:
    if job.source is None:
        raise BadImageError("an instance has no outline: draw it, or leave the image out")
    mask = job.source.read() if isinstance(job.source, MaskSource) else read_mask(job.source)
    labels = labels_of_mask(mask)
    if labels and labels[-1] >= num_classes:
        raise BadImageError(f"class {labels[-1]} is outside 0..{num_classes - 1}, the {num_classes} names")
    write_mask(path, mask)


def _yolo_jobs(source: Path, images: str | Path | None) -> list[_Job]:
    if images is None:
        raise PPLValueError("YOLO's files do not know the sizes of the pictures: add images=FOLDER (--images FOLDER)")
    pictures = list_images(Path(images))
    labels = {image_id: path for image_id, path in _files(source, ".txt").items() if image_id != "classes"}
    _check_pictures(labels, pictures, images)
    return [
        _Job(image_id, YoloMask(path, pictures[image_id]), (path, pictures[image_id]))
        for image_id, path in labels.items()
    ]


def _export_masks(
    source: Path, out: Path, kind: str, images: str | Path | None, classes: str | Path | None
) -> FolderSummary:
    masks = _files(source, ".png")
    names = read_classes(source / "classes.txt" if classes is None else Path(classes))
    if kind == "coco":
        if images is None:
            raise PPLValueError("COCO names the files of the pictures: add images=FOLDER (--images FOLDER)")
        dataset = read_images(images, names)
        _check_pictures(masks, dataset.image_ids, images)
        done = write_coco(out, dataset, source)
    else:
        _check_apart(source, out)
        samples = tuple(Sample(image_id, path, (), path) for image_id, path in masks.items())
        done = write_yolo(out, TaggedImages(names, samples, source.name))
    return FolderSummary(done, 0, (), 0.0)


def _check_pictures(files: Mapping[str, Path], pictures: Collection[str], folder: str | Path) -> None:
    known = set(pictures)
    lost = [image_id for image_id in files if image_id not in known]
    if lost:
        raise PPLFileNotFoundError(
            f"{folder} has no picture for {counted(len(lost), 'file')}: {examples(lost)}{nearest(lost[0], known)}"
        )


def _json_of(source: Path) -> Path:
    """Return the annotation file that is meant by a file or by the folder that holds it alone."""
    if not source.is_dir():
        return source
    found = sorted(source.glob("*.json"))
    if len(found) != 1:
        raise PPLFileNotFoundError(f"{source} holds {len(found)} JSON files; name the one with the instances")
    return found[0]


def _files(folder: Path, suffix: str) -> dict[str, Path]:
    """Return the files of a folder with an ending by image id.

    Raises:
        PPLFileNotFoundError: if there are none.
    """
    if not folder.is_dir():
        raise PPLFileNotFoundError(f"no folder at {folder}")
    found = list_files(folder)
    chosen = {name[: -len(suffix)]: path for name, path in found.items() if name.lower().endswith(suffix)}
    if not chosen:
        raise PPLFileNotFoundError(f"{folder} holds no {suffix} file but {', '.join(list(found)[:3]) or 'nothing'}")
    return chosen


def _check_apart(source: Path, out: Path) -> None:
    if source.resolve() == out.resolve():
        raise PPLValueError(f"the results would lie among the files of {source}: choose another folder")


def _check_format(kind: str) -> None:
    if kind not in MASK_FORMATS and kind not in MAP_FORMATS:
        raise PPLValueError(f"no format named {kind!r}{nearest(kind, (*MAP_FORMATS, *MASK_FORMATS))}")
