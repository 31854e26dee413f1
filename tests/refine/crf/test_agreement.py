"""The engines against pydensecrf, called here as the field's own code calls it."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
from scipy.ndimage import gaussian_filter
from skimage.transform import resize

from ppl.refine.crf import PRESETS, CrfConfig, crf

densecrf = pytest.importorskip("pydensecrf.densecrf")
utils = pytest.importorskip("pydensecrf.utils")


def photo(name: str, height: int, width: int) -> np.ndarray:
    image = getattr(skimage.data, name)()
    image = np.stack([image] * 3, axis=-1) if image.ndim == 2 else image[..., :3]
    return np.ascontiguousarray((resize(image, (height, width), order=1) * 255).round().astype(np.uint8))


def maps(labels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((labels, height, width))
    smooth = gaussian_filter(noise, (0, height / 12, width / 12))
    scores = np.exp(2 * smooth / smooth.std())
    return (scores / scores.sum(axis=0)).astype(np.float32)


def reference(image: np.ndarray, unary: np.ndarray, **settings: float) -> np.ndarray:
    height, width = image.shape[:2]
    model = densecrf.DenseCRF2D(width, height, len(unary))
    model.setUnaryEnergy(np.ascontiguousarray(unary))
    model.addPairwiseGaussian(sxy=settings["gaussian_sxy"], compat=settings["gaussian_compat"])
    model.addPairwiseBilateral(
        sxy=settings["bilateral_sxy"],
        srgb=settings["bilateral_srgb"],
        rgbim=image,
        compat=settings["bilateral_compat"],
    )
    return np.array(model.inference(settings["iterations"])).reshape(-1, height, width)


def settings_of(name: str) -> dict[str, float]:
    """The numbers of a preset, for pydensecrf and for `crf`."""
    names = ["iterations", "gaussian_sxy", "gaussian_compat", "bilateral_sxy", "bilateral_srgb", "bilateral_compat"]
    return {key: getattr(PRESETS[name], key) for key in names}


def assert_agrees(result: np.ndarray, expected: np.ndarray) -> None:
    assert result.shape == expected.shape
    assert (result.argmax(axis=0) == expected.argmax(axis=0)).mean() >= 0.9999
    assert np.abs(result - expected).mean() < 1e-5
    np.testing.assert_allclose(result.sum(axis=0), 1, atol=1e-5)
    assert result.min() >= 0


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("labels", [2, 5])
def test_native_agrees_for_every_preset(name, labels):
    image, probs = photo("astronaut", 150, 170), maps(labels, 150, 170)
    settings = settings_of(name)
    expected = reference(image, utils.unary_from_softmax(probs), **settings)
    assert_agrees(crf(image, probs, backend="native", **settings), expected)


@pytest.mark.parametrize("labels", [2, 3, 4, 5, 9, 12, 21, 34])
@pytest.mark.parametrize("name", ["psa", "irn"])
def test_native_agrees_for_any_number_of_labels(name, labels):
    image, probs = photo("coffee", 121, 135), maps(labels, 121, 135, seed=1)
    settings = settings_of(name)
    expected = reference(image, utils.unary_from_softmax(probs), **settings)
    assert_agrees(crf(image, probs, backend="native", **settings), expected)


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 2), (1, 9), (9, 1), (2, 2), (3, 5), (63, 65), (64, 64), (129, 70), (7, 200)]
)
def test_native_agrees_at_any_size(size):
    image = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
    probs = np.random.default_rng(3).dirichlet((0.5, 1, 1), size).transpose(2, 0, 1).astype(np.float32)
    settings = settings_of("psa")
    expected = reference(image, utils.unary_from_softmax(probs), **settings)
    np.testing.assert_allclose(crf(image, probs, backend="native"), expected, atol=2e-4)


@pytest.mark.parametrize("picture", ["flat", "noise", "gradient"])
@pytest.mark.parametrize("settings", [{}, {"bilateral_srgb": 0.5}, {"bilateral_sxy": 1.0}, {"gaussian_sxy": 0.3}])
def test_native_agrees_on_extreme_images_and_deviations(picture, settings):
    image = {
        "flat": np.full((70, 80, 3), 90, np.uint8),
        "noise": np.random.default_rng(4).integers(0, 256, (70, 80, 3), dtype=np.uint8),
        "gradient": np.broadcast_to((np.arange(80) * 3).astype(np.uint8)[None, :, None], (70, 80, 3)).copy(),
    }[picture]
    probs = maps(3, 70, 80, seed=5)
    settings = settings_of("psa") | settings
    expected = reference(image, utils.unary_from_softmax(probs), **settings)
    assert_agrees(crf(image, probs, backend="native", **settings), expected)


@pytest.mark.parametrize("compat", [0, 1e-3, 300])
def test_native_agrees_for_any_weight(compat):
    # At 300 the exponents leave the range of float32 and have to be shifted.
    image, probs = photo("astronaut", 60, 50), maps(3, 60, 50)
    settings = settings_of("psa") | {"bilateral_compat": compat, "gaussian_compat": compat}
    expected = reference(image, utils.unary_from_softmax(probs), **settings)
    result = crf(image, probs, backend="native", **settings)
    assert (result.argmax(axis=0) == expected.argmax(axis=0)).mean() > 0.999
    assert np.isfinite(result).all()


@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_native_agrees_after_few_iterations(iterations):
    image, probs = photo("coffee", 40, 50), maps(3, 40, 50)
    settings = settings_of("psa") | {"iterations": iterations}
    assert_agrees(
        crf(image, probs, backend="native", **settings),
        reference(image, utils.unary_from_softmax(probs), **settings),
    )


@pytest.mark.parametrize("backend", ["native", "pydensecrf"])
@pytest.mark.parametrize(("present", "num_labels"), [((0, 1), 2), ((0, 1, 2), 3), ((1, 4), 6), ((3,), 21)])
def test_labels_mean_what_unary_from_labels_means(backend, present, num_labels):
    image = photo("astronaut", 90, 80)
    labels = np.array(present)[maps(len(present), 90, 80).argmax(axis=0)]
    settings = settings_of("irn")
    unary = utils.unary_from_labels(labels, num_labels, 0.7, zero_unsure=False)
    expected = reference(image, unary, **settings)
    assert_agrees(crf(image, labels=labels, num_labels=num_labels, backend=backend, **settings), expected)


@pytest.mark.parametrize("backend", ["native", "pydensecrf"])
def test_absent_labels_come_back_as_zeros_and_change_nothing_else(backend):
    image, few = photo("coffee", 80, 90), maps(3, 80, 90)
    probs = np.zeros((21, 80, 90), np.float32)
    probs[[0, 7, 20]] = few
    result = crf(image, probs, backend=backend)
    np.testing.assert_array_equal(result[[0, 7, 20]], crf(image, few, backend=backend))
    assert not np.delete(result, [0, 7, 20], axis=0).any()
    assert_agrees(result, reference(image, utils.unary_from_softmax(probs), **settings_of("psa")))


def test_one_label_is_certain():
    assert (crf(photo("coffee", 9, 8), np.ones((1, 9, 8), np.float32)) == 1).all()


def test_a_preset_for_labels_sees_the_most_likely_label():
    image, probs = photo("coffee", 50, 60), maps(3, 50, 60)
    expected = crf(image, labels=probs.argmax(axis=0), num_labels=3, **settings_of("irn"))
    np.testing.assert_array_equal(crf(image, probs, preset="irn"), expected)
    np.testing.assert_array_equal(crf(image, probs, preset="psa"), crf(image, probs))


def general_reference(
    image: np.ndarray, unary: np.ndarray, features: np.ndarray | None, config: CrfConfig
) -> np.ndarray:
    """pydensecrf with everything that it takes, called directly."""
    kinds = {
        "symmetric": densecrf.NORMALIZE_SYMMETRIC,
        "before": densecrf.NORMALIZE_BEFORE,
        "after": densecrf.NORMALIZE_AFTER,
        "none": densecrf.NO_NORMALIZATION,
    }

    def compat(value):
        return value if isinstance(value, float) else np.array(value, np.float32)

    height, width = unary.shape[1:]
    model = densecrf.DenseCRF2D(width, height, len(unary))
    model.setUnaryEnergy(np.ascontiguousarray(unary.reshape(len(unary), -1), np.float32))
    model.addPairwiseGaussian(
        sxy=config.gaussian_sxy,
        compat=compat(config.gaussian_compat),
        normalization=kinds[config.gaussian_normalization],
    )
    appearance = {
        "compat": compat(config.bilateral_compat),
        "normalization": kinds[config.bilateral_normalization],
    }
    if features is None:
        model.addPairwiseBilateral(sxy=config.bilateral_sxy, srgb=config.bilateral_srgb, rgbim=image, **appearance)
    else:
        sx, sy = config.bilateral_sxy if isinstance(config.bilateral_sxy, tuple) else (config.bilateral_sxy,) * 2
        rows = utils.create_pairwise_bilateral((sy, sx), config.bilateral_srgb, features.copy(), chdim=2)
        model.addPairwiseEnergy(np.ascontiguousarray(rows, np.float32), **appearance)
    return np.array(model.inference(config.iterations)).reshape(unary.shape)


PENALTIES = 4 * (1 - np.eye(4)) + np.outer([1, -1, 0.5, 0], [1, -1, 0.5, 0])


def features_of(image: np.ndarray, channels: int) -> np.ndarray:
    """Smooth features of any number of channels, made of an image and noise."""
    mixed = image.astype(np.float32) @ np.random.default_rng(channels).normal(0, 0.4, (3, channels))
    return (mixed + np.random.default_rng(1).normal(0, 2, mixed.shape)).astype(np.float32)


@pytest.mark.parametrize("backend", ["native", "torch", "pydensecrf"])
@pytest.mark.parametrize(
    ("settings", "channels"),
    [
        ({"gaussian_sxy": (2, 6)}, 0),
        ({"bilateral_sxy": (30, 90)}, 0),
        ({"bilateral_srgb": (5, 13, 40)}, 0),
        ({"gaussian_compat": [-1, -3, -2, -5]}, 0),
        ({"bilateral_compat": [-10, -3, -8, -5]}, 0),
        ({"gaussian_compat": PENALTIES}, 0),
        ({"bilateral_compat": PENALTIES, "gaussian_compat": [-1.0, -3, -2, -5]}, 0),
        ({"bilateral_normalization": "before"}, 0),
        ({"bilateral_normalization": "after", "gaussian_normalization": "before"}, 0),
        ({"gaussian_normalization": "after"}, 0),
        ({"bilateral_normalization": "none", "bilateral_compat": 0.01}, 0),
        ({"gaussian_normalization": "none", "gaussian_compat": 0.2}, 0),
        ({"bilateral_sxy": (60, 40)}, 1),
        ({"bilateral_srgb": (9, 20)}, 2),
        ({}, 3),
        ({"bilateral_compat": PENALTIES, "bilateral_normalization": "after"}, 4),
        ({"bilateral_srgb": 60}, 7),
        ({"bilateral_srgb": 90}, 12),
    ],
)
def test_every_engine_agrees_for_all_that_pydensecrf_takes(backend, settings, channels):
    image, probs = photo("astronaut", 75, 90), maps(4, 75, 90)
    unary = -np.log(probs) + np.random.default_rng(5).normal(0, 0.1, probs.shape)
    features = features_of(image, channels) if channels else None
    expected = general_reference(image, unary, features, CrfConfig(**settings))
    found = crf(None if channels else image, unary=unary, features=features, backend=backend, **settings)
    assert_agrees(found, expected)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_energies_of_any_size_are_taken(backend):
    image, unary = photo("coffee", 40, 50), 300 * maps(3, 40, 50).astype(np.float64) - 1000
    expected = reference(image, unary.reshape(3, -1).astype(np.float32), **settings_of("psa"))
    found = crf(image, unary=unary, backend=backend)
    assert (found.argmax(axis=0) == expected.argmax(axis=0)).mean() > 0.999
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("backend", ["native", "torch", "pydensecrf"])
def test_a_compatibility_of_labels_keeps_labels_that_are_absent(backend):
    image, few = photo("coffee", 30, 40), maps(2, 30, 40)
    probs = np.concatenate([few, np.zeros_like(few[:1])])
    compat = [[0, 4, 1], [4, 0, 1], [1, 1, 0]]
    unary = utils.unary_from_softmax(probs).reshape(probs.shape)
    expected = general_reference(image, unary, None, CrfConfig(bilateral_compat=compat))
    assert_agrees(crf(image, probs, bilateral_compat=compat, backend=backend), expected)
