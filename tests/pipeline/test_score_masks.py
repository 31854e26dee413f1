"""Scores of a folder of masks: nothing is scored that cannot be meant, and what is not scored is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ppl.data import Sample, TaggedImages
from ppl.errors import PPLValueError
from ppl.io import write_mask
from ppl.pipeline import score_masks


def cracks(root: Path, truth: list[int], predicted: list[int], without: int = 0) -> TaggedImages:
    """One image per value of `truth`, whose mask is that value beside 0; `without` more images have no mask."""
    samples = []
    for number, (true, guess) in enumerate(zip(truth, predicted, strict=True)):
        write_mask(root / "truth" / f"{number}.png", np.array([[0, true]]))
        write_mask(root / "predicted" / f"{number}.png", np.array([[0, guess]]))
        samples.append(Sample(f"{number}", root / f"{number}.jpg", (0,), root / "truth" / f"{number}.png"))
    samples += [Sample(f"x{number}", root / f"x{number}.jpg", (0,)) for number in range(without)]
    return TaggedImages(("crack",), tuple(samples), "cracks")


@pytest.mark.parametrize(
    ("truth", "predicted", "side"), [([255, 255], [1, 1], "masks"), ([1, 1], [255, 255], "predictions")]
)
def test_objects_that_are_255_are_refused(tmp_path: Path, truth: list[int], predicted: list[int], side: str) -> None:
    images = cracks(tmp_path, truth, predicted)
    with pytest.raises(PPLValueError, match=rf"only values of the {side} are 0 and 255: object or ignore\?"):
        score_masks(tmp_path / "predicted", images)


def test_how_many_images_are_scored_is_said(tmp_path: Path) -> None:
    notes: list[str] = []
    scores = score_masks(tmp_path / "predicted", cracks(tmp_path, [1], [1], without=5), notes)
    assert scores["miou"] == 1.0
    assert notes == ["scored 1 of 6 images; the others have no mask"]


@pytest.mark.parametrize(("step", "words"), [(-1, "small: they seem to count classes from 0"), (1, "large")])
def test_predictions_that_count_classes_from_another_number_are_noted(tmp_path: Path, step: int, words: str) -> None:
    truth = [1, 2, 3, 2, 3, 2]
    images = cracks(tmp_path, truth, [value + step for value in truth])
    images = TaggedImages(("cat", "cow", "dog", "fox"), images.samples, "pets")
    notes: list[str] = []
    score_masks(tmp_path / "predicted", images, notes)
    assert len(notes) == 1 and f"predictions are one too {words}" in notes[0]
    right: list[str] = []
    score_masks(tmp_path / "truth", images, right)
    assert right == []


def test_predictions_of_other_classes_are_refused(tmp_path: Path) -> None:
    images = cracks(tmp_path, [1], [1])
    path = tmp_path / "predicted" / "classes.txt"
    path.write_text("crack\n")
    assert score_masks(tmp_path / "predicted", images)["miou"] == 1.0
    path.write_text("stain\ncrack\n")
    with pytest.raises(
        PPLValueError, match=r"classes\.txt names the classes stain, crack, and cracks has crack: score"
    ):
        score_masks(tmp_path / "predicted", images)
