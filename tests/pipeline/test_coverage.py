"""Coverage of parts in the scores of a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ppl.data import open_dataset
from ppl.io import read_mask
from ppl.metrics import PartCoverage
from ppl.pipeline import RunFolder
from ppl.pipeline.evaluation import score_split


def test_an_image_without_a_mask_of_parts_is_left_out_of_the_coverage_and_counted(
    finished, tiny_recipe, creatures: Path, tmp_path: Path
) -> None:
    data, run = tmp_path / "set", tmp_path / "run"
    shutil.copytree(creatures, data)
    shutil.copytree(finished[0], run)
    (data / "masks_parts" / "parts.txt").write_text("top\nbottom\n")
    images = open_dataset(data, "val")
    first, *rest = images
    (data / "masks_parts" / f"{first.image_id}.png").unlink()
    expected = PartCoverage(("top", "bottom"))
    for sample in rest:
        mask = read_mask(run / "masks" / "val" / f"{sample.image_id}.png")
        expected.update(sample.read_mask(), mask, read_mask(data / "masks_parts" / f"{sample.image_id}.png"))
    notes: list[str] = []
    scores = score_split(tiny_recipe(data), RunFolder(run), "val", images, notes)
    assert {name: scores[name] for name in ("top", "bottom")} == pytest.approx(expected.compute(), abs=1e-5)
    assert any("1 of 4 images have no file in masks_parts" in note for note in notes)
