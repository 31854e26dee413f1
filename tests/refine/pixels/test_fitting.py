"""Fitting a pixel classifier to the CAMs of many images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ppl.errors import PPLValueError
from ppl.refine import RefineJob, apply_refiners, parse_refiners
from ppl.refine.jobs import read_probs
from ppl.refine.pixels import PixelClassifier, PixelConfig, fit_pixel_classifier, save_pixel_classifier

SIDE = 64
COLOURS = {0: (200, 40, 40), 1: (40, 60, 200)}
FAST = PixelConfig(refiners=None, steps=200, lr=0.01)


def _job(folder: Path, number: int, *, left: bool) -> RefineJob:
    """Return an image of an object of class `number % 2`, and a CAM without its right or left quarter."""
    pixels = np.full((SIDE, SIDE, 3), 128, np.uint8)
    pixels[16:48, 16:48] = COLOURS[number % 2]
    pixels += np.random.default_rng(number).integers(0, 20, pixels.shape, dtype=np.uint8)
    path = folder / f"{number}.png"
    Image.fromarray(pixels).save(path)
    cam = np.zeros((1, SIDE, SIDE), np.float32)
    cam[0, 16:48, slice(16, 40) if left else slice(24, 48)] = 1
    return RefineJob(str(number), path, lambda: (cam, np.array([number % 2])))


@pytest.fixture
def network() -> PixelClassifier:
    torch.manual_seed(0)
    return PixelClassifier("test_resnet", num_classes=2)


def test_what_a_map_misses_is_found_from_the_maps_of_other_images(tmp_path: Path, network: PixelClassifier) -> None:
    jobs = [_job(tmp_path, number, left=number % 4 < 2) for number in range(8)]
    fit_pixel_classifier(jobs, network, FAST, background=0.1, num_workers=1, progress=False)
    save_pixel_classifier(network, tmp_path / "pixels.safetensors")
    refiners = parse_refiners([{"pixel_classifier": {"network": str(tmp_path / "pixels.safetensors"), "weight": 1.0}}])
    found, background = [], []
    for job in jobs:
        image, probs, labels = read_probs(job, 0.1)
        mask = apply_refiners(refiners, image, probs, labels).argmax(axis=0)
        missed = probs[1] == 0
        found.append(mask[24:40, 18:46][missed[24:40, 18:46]].mean())
        background.append(np.concatenate([mask[:, :8], mask[:, -8:]]).mean())
    assert np.mean(found) > 0.5 and np.mean(background) < 0.1


def test_the_fit_does_not_depend_on_the_number_of_workers_or_the_order_of_images(
    tmp_path: Path, network: PixelClassifier
) -> None:
    jobs = [_job(tmp_path, number, left=True) for number in range(4)]
    fit_pixel_classifier(jobs, network, FAST, background=0.1, num_workers=1, progress=False)
    first = network.head.weight.detach().clone()
    fit_pixel_classifier(jobs[::-1], network, FAST, background=0.1, num_workers=2, progress=False)
    torch.testing.assert_close(network.head.weight, first)


def test_the_head_gives_the_logits_of_standardised_features(tmp_path: Path, network: PixelClassifier) -> None:
    """Features times a constant per channel are the same features after standardisation."""
    jobs = [_job(tmp_path, number, left=True) for number in range(2)]
    fit_pixel_classifier(jobs, network, FAST, background=0.1, num_workers=1, progress=False)
    images = torch.rand(1, 3, SIDE, SIDE)
    expected = network(images)
    scale = torch.linspace(0.5, 4, network.head.in_channels)
    usual = network.features
    network.features = lambda images: usual(images) * scale[:, None, None]  # type: ignore[method-assign]
    fit_pixel_classifier(jobs, network, FAST, background=0.1, num_workers=1, progress=False)
    torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-3)


def test_a_cell_of_average_features_is_neither_object_nor_background(tmp_path: Path, network: PixelClassifier) -> None:
    jobs = [_job(tmp_path, number, left=True) for number in range(2)]
    config = FAST.model_copy(update={"cells": 10**6})
    fit_pixel_classifier(jobs, network, config, background=0.1, num_workers=1, progress=False)
    pictures = [torch.from_numpy(np.array(Image.open(job.image))).permute(2, 0, 1) / 255 for job in jobs]
    mean = network.features(torch.stack(pictures)).mean(dim=(0, 2, 3))
    torch.testing.assert_close(network.head(mean[None, :, None, None]).flatten(), torch.zeros(3), rtol=0, atol=1e-3)


def test_maps_that_are_half_background_teach_nothing_whatever_the_number_of_classes(
    tmp_path: Path, network: PixelClassifier
) -> None:
    cams = np.full((2, 8, 8), 0.5, np.float32)
    pictures = [_job(tmp_path, number, left=True).image for number in range(2)]
    jobs = [RefineJob(str(path), path, lambda: (cams, np.array([0, 1]))) for path in pictures]
    fit_pixel_classifier(jobs, network, FAST, background=1.0, num_workers=1, progress=False)
    assert network.head.weight.abs().max() < 1e-3


def test_the_random_state_of_the_caller_stays(tmp_path: Path, network: PixelClassifier) -> None:
    before = torch.get_rng_state()
    jobs = [_job(tmp_path, 0, left=True)]
    fit_pixel_classifier(jobs, network, FAST, background=0.1, num_workers=1, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_without_classes_or_without_files_are_left_out(tmp_path: Path, network: PixelClassifier) -> None:
    empty = RefineJob("empty", _job(tmp_path, 1, left=True).image, lambda: (np.zeros((0, 4, 4)), np.zeros(0, np.int64)))
    missing = RefineJob("missing", tmp_path / "missing.png", lambda: (np.ones((1, 4, 4)), np.array([0])))
    jobs = [_job(tmp_path, 0, left=True), empty, missing]
    summary = fit_pixel_classifier(jobs, network, FAST, background=0.1, num_workers=1, progress=False)
    assert summary.images == 1
    assert [bad.image_id for bad in summary.bad] == ["missing"]


def test_no_usable_image_is_an_error_that_names_the_reason(tmp_path: Path, network: PixelClassifier) -> None:
    foreign = RefineJob("a", _job(tmp_path, 0, left=True).image, lambda: (np.ones((1, 4, 4)), np.array([7])))
    with pytest.raises(PPLValueError, match="class 7 has no place among 2 classes"):
        fit_pixel_classifier([foreign], network, FAST, num_workers=1, progress=False)


def test_features_are_those_of_the_whole_network_though_its_last_stage_does_not_run(network: PixelClassifier) -> None:
    images, ran = torch.rand(2, 3, SIDE, 80), []
    last = network.backbone.get_submodule("layer4")
    last.register_forward_hook(lambda *_: ran.append(1))
    features = network.features(images)
    assert not ran
    every = network.levels(torch.nn.functional.interpolate(images, scale_factor=2, mode="bilinear"))
    assert ran and len(every) == len(network.channels)
    fine, coarse = (every[level] for level in network.default_levels[-2:])
    expected = torch.cat([torch.nn.functional.interpolate(fine, coarse.shape[2:], mode="area"), coarse], dim=1)
    assert torch.equal(features, expected)


def test_no_more_images_are_read_than_the_settings_say(tmp_path: Path, network: PixelClassifier) -> None:
    jobs = [_job(tmp_path, number, left=True) for number in range(6)]
    config = FAST.model_copy(update={"images": 3})
    assert fit_pixel_classifier(jobs, network, config, background=0.1, num_workers=1, progress=False).images == 3


@pytest.mark.parametrize("both", [False, True])
def test_agreement_is_the_mean_correlation_with_the_maps_of_the_other_half(
    tmp_path: Path, network: PixelClassifier, both: bool
) -> None:
    jobs = [_job(tmp_path, number, left=number % 4 < 2) for number in range(9)]
    if both:  # the second class is tagged and not found
        cams = [job.cams()[0] for job in jobs]  # type: ignore[operator]
        jobs = [
            RefineJob(job.image_id, job.image, lambda cam=cam: (np.concatenate([cam, 0 * cam]), np.array([0, 1])))
            for job, cam in zip(jobs, cams, strict=True)
        ]
    config = FAST.model_copy(update={"cells": 10**6})
    order = torch.randperm(9, generator=torch.Generator().manual_seed(config.seed)).tolist()
    halves = [[jobs[place] for place in order[start::2]] for start in (0, 1)]
    found = fit_pixel_classifier(jobs, network, config, background=0.1, num_workers=1, progress=False).agreement
    correlations = []
    for own, others in (halves, halves[::-1]):
        fit_pixel_classifier(own, network, config, background=0.1, num_workers=1, progress=False)
        for job in others:
            image, probs, labels = read_probs(job, 0.1)
            scores = network(network.image_tensor(image))[0][labels].detach().exp().numpy()
            scores[0] *= len(labels) - 1
            predicted = scores[0] / scores.sum(axis=0)
            rows, columns = (side // count for side, count in zip(probs.shape[1:], predicted.shape, strict=True))
            averaged = probs[0].reshape(len(predicted), rows, -1, columns).mean(axis=(1, 3))
            correlations.append(np.corrcoef(predicted.ravel(), averaged.ravel())[0, 1])
    assert found == pytest.approx(np.mean(correlations), abs=1e-3)
    assert found > 0.5


def test_a_classifier_that_learns_nothing_that_images_share_is_not_used(
    tmp_path: Path, network: PixelClassifier
) -> None:
    """Maps at places that have nothing to do with the picture."""
    jobs = []
    for number in range(12):
        path = _job(tmp_path, number, left=True).image
        row, column = np.random.default_rng(number).integers(0, 48, 2)
        cam = np.zeros((1, SIDE, SIDE), np.float32)
        cam[0, row : row + 16, column : column + 16] = 1
        jobs.append(RefineJob(str(number), path, lambda cam=cam: (cam, np.array([0]))))
    path = tmp_path / "pixels.safetensors"
    for config, used in ((FAST, False), (FAST.model_copy(update={"min_agreement": -1.0}), True)):
        summary = fit_pixel_classifier(jobs, network, config, background=0.1, num_workers=1, progress=False)
        assert summary.agreement is not None and summary.agreement < PixelConfig().min_agreement
        assert network.useful is used
        save_pixel_classifier(network, path)
        image, probs, labels = read_probs(jobs[0], 0.1)
        refined = apply_refiners(parse_refiners([{"pixel_classifier": {"network": path}}]), image, probs, labels)
        assert np.array_equal(refined, probs) is not used


def test_images_of_a_class_that_the_other_half_lacks_do_not_count(tmp_path: Path, network: PixelClassifier) -> None:
    jobs = [_job(tmp_path, number, left=True) for number in range(2)]  # of different classes
    summary = fit_pixel_classifier(jobs, network, FAST, background=0.1, num_workers=1, progress=False)
    assert summary.agreement is None and network.useful


def test_one_image_has_no_agreement_and_its_classifier_is_used(tmp_path: Path, network: PixelClassifier) -> None:
    jobs = [_job(tmp_path, 0, left=True)]
    summary = fit_pixel_classifier(jobs, network, FAST, background=0.1, num_workers=1, progress=False)
    assert summary.agreement is None and network.useful
