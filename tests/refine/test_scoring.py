"""The score after each refiner against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ppl.errors import PPLValueError
from ppl.io import write_mask
from ppl.refine import RefineJob, apply_refiners, cams_to_probs, parse_refiners, score_refiners


@pytest.fixture
def scene(tmp_path):
    random = np.random.default_rng(0)
    jobs, masks, images, cams, targets = [], {}, [], [], []
    for image_id in "abc":
        images.append(random.integers(0, 256, (18, 20, 3)).astype(np.uint8))
        Image.fromarray(images[-1]).save(tmp_path / f"{image_id}.png")
        cams.append(random.random((2, 18, 20)).astype(np.float32))
        np.savez(tmp_path / f"{image_id}.npz", maps=cams[-1], classes=np.array([0, 2]))
        targets.append(random.choice([0, 1, 2, 3, 255], (18, 20)))
        write_mask(tmp_path / f"mask_{image_id}.png", targets[-1])
        jobs.append(RefineJob(image_id, tmp_path / f"{image_id}.png", tmp_path / f"{image_id}.npz"))
        masks[image_id] = tmp_path / f"mask_{image_id}.png"
    return jobs, masks, images, cams, targets


def expected(predictions, targets):
    from sklearn.metrics import jaccard_score

    target, prediction = np.concatenate([t.ravel() for t in targets]), np.concatenate([p.ravel() for p in predictions])
    valid = target != 255
    return jaccard_score(target[valid], prediction[valid], labels=[0, 1, 2, 3], average="macro")


def test_scores_after_every_refiner(scene):
    jobs, masks, images, cams, targets = scene
    recipe = ["guided_filter: 2", "superpixels: {n_segments: 30}"]
    scores, bad = score_refiners(jobs, masks, recipe, num_classes=3, background=0.4, num_workers=2)
    assert bad == ()
    assert [score.label for score in scores] == ["CAM", "guided_filter: 2", "superpixels: n_segments 30"]
    values = np.array([0, 1, 3])
    for index, score in enumerate(scores):
        chain = parse_refiners(recipe)[:index]
        predictions = [
            values[apply_refiners(chain, image, cams_to_probs(maps, 0.4)).argmax(axis=0)]
            for image, maps in zip(images, cams, strict=True)
        ]
        assert score.miou == pytest.approx(expected(predictions, targets))
        assert score.seconds >= 0
    assert scores[2].gain == pytest.approx(scores[2].miou - scores[1].miou)


def test_images_without_mask_are_left_out_and_bad_ones_listed(scene):
    jobs, masks, *_ = scene
    del masks["a"]
    jobs[1].cams.write_bytes(b"")
    scores, bad = score_refiners(jobs, masks, None, num_classes=3)
    assert len(scores) == 1 and [file.image_id for file in bad] == ["b"]
    with pytest.raises(PPLValueError, match="none of the images"):
        score_refiners(jobs, {}, None, num_classes=3)
    for job in jobs:
        job.cams.unlink(missing_ok=True)
    with pytest.raises(PPLValueError, match=r"none of the 2 images could be scored; \w: no CAM file"):
        score_refiners(jobs, masks, None, num_classes=3)
