"""Every step takes images from tar archives as it takes them from folders."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import ppl
from ppl.data import open_dataset
from ppl.pipeline import Recipe, cam_folder, predict_folder, refine_cams, run_recipe
from ppl.segment import create_segmenter, save_segmenter

SEGMENT = {"decoder": "fpn", "pretrained": False, "crop": 64, "batch_size": 4, "iterations": 1, "num_workers": 0}


@pytest.fixture
def archives(creatures: Path, tmp_path: Path) -> Path:
    """The creatures in one archive per split, with their tags."""
    root = tmp_path / "archives"
    root.mkdir()
    for split in ("train", "val"):
        images = open_dataset(creatures, split)
        with tarfile.open(root / f"{split}-0.tar", "w") as archive:
            for sample in images:
                archive.add(sample.image, f"{sample.image_id}.png")
                tags = tmp_path / "tags.txt"
                tags.write_text("; ".join(images.classes[label] for label in sample.labels))
                archive.add(tags, f"{sample.image_id}.txt")
                if sample.mask is not None:
                    archive.add(sample.mask, f"{sample.image_id}.mask.png")
    (root / "classes.txt").write_text("\n".join(open_dataset(creatures).classes))
    return root


def below(folder: Path, prefix: str = "") -> dict[str, bytes]:
    """Return the masks in a folder by their path below a folder inside."""
    place = folder / prefix
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in sorted(place.rglob("*.png"))}


def test_a_run_gives_the_masks_that_it_gives_of_folders(
    creatures: Path, archives: Path, tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    for name, root in (("folders", creatures), ("archives", archives)):
        run_recipe(tiny_recipe(root, segment=SEGMENT), tmp_path / name, progress=False)
    for kind in ("masks", "refined", "segmented"):
        expected = below(tmp_path / "folders" / kind / "val")
        assert len(expected) == 4
        assert below(tmp_path / "archives" / kind / "val", "val-0") == expected


def test_pictures_of_an_archive_are_mapped_refined_and_segmented(
    creatures: Path, archives: Path, tmp_path: Path
) -> None:
    network, weights = tmp_path / "network.safetensors", tmp_path / "classifier.safetensors"
    ppl.save_model(ppl.create_model("test_resnet", 4, cuts=["layer2"], pretrained=False), weights)
    save_segmenter(create_segmenter("test_resnet", 4, decoder="fpn", pretrained=False), network)
    some = tmp_path / "some"
    some.mkdir()
    for sample in open_dataset(creatures, "val"):
        (some / Path(sample.image).name).write_bytes(Path(sample.image).read_bytes())
    options = {"device": "cpu", "num_workers": 1, "progress": False}
    for name, images in (("folder", some), ("archive", archives / "val-0.tar")):
        out = tmp_path / name
        assert cam_folder(weights, images, out / "cam", **options).done == 4
        assert refine_cams(out / "cam" / "cams", images, out / "refined", "guided_filter: 2", **options).done == 4
        assert predict_folder(network, images, out / "predicted", **options).done == 4
        assert predict_folder(network, images, out / "predicted", **options).skipped == 4
    for place in ("cam/masks", "refined", "predicted/masks"):
        expected = below(tmp_path / "folder" / place)
        assert len(expected) == 4
        assert below(tmp_path / "archive" / place, "val-0") == expected
