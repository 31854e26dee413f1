"""The stencil walk against the dense matrix power that it replaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ppl.errors import PPLTypeError, PPLValueError
from ppl.refine import random_walk


def dense_walk(maps, affinity_of_pair, radius, beta, steps):
    """Build the (n, n) matrix pair by pair, raise it to the power and multiply, as IRN and PSA do."""
    k, h, w = maps.shape
    matrix = np.zeros((h * w, h * w))
    for y in range(h):
        for x in range(w):
            for v in range(h):
                for u in range(w):
                    if (y - v) ** 2 + (x - u) ** 2 < radius**2:
                        matrix[y * w + x, v * w + u] = affinity_of_pair((y, x), (v, u)) ** beta
    matrix /= matrix.sum(axis=0, keepdims=True)
    return (maps.reshape(k, -1) @ np.linalg.matrix_power(matrix, steps)).reshape(k, h, w)


def edge_affinity_of(edges):
    def affinity(a, b):
        if a == b:
            return 1.0
        dy, dx = b[0] - a[0], b[1] - a[1]
        highest = 0.0
        for y in range(min(a[0], b[0]), max(a[0], b[0]) + 1):
            for x in range(min(a[1], b[1]), max(a[1], b[1]) + 1):
                distance = abs(dy * (x - a[1]) - dx * (y - a[0])) / np.hypot(dy, dx)
                if distance < 1:
                    highest = max(highest, edges[y, x])
        return 1.0 - highest

    return affinity


@pytest.fixture
def scene():
    random = np.random.default_rng(0)
    return random.random((2, 9, 13)).astype(np.float32), (random.random((9, 13)) ** 3).astype(np.float32)


@pytest.mark.parametrize(("radius", "beta", "steps"), [(5, 10, 256), (3, 1, 7), (5, 2.5, 64), (2, 10, 1), (4, 8, 0)])
def test_edge_walk_equals_the_dense_matrix_power(scene, radius, beta, steps):
    maps, edges = scene
    expected = dense_walk(maps * (1 - edges), edge_affinity_of(edges), radius, beta, steps)
    np.testing.assert_allclose(
        random_walk(edges, maps, radius=radius, beta=beta, num_steps=steps), expected, rtol=1e-4, atol=1e-5
    )


def test_walk_on_features_equals_the_dense_matrix_power(scene):
    maps, _ = scene
    features = np.random.default_rng(1).normal(size=(4, 9, 13)).astype(np.float32)

    def affinity(a, b):
        return np.exp(-np.abs(features[:, a[0], a[1]] - features[:, b[0], b[1]]).mean())

    expected = dense_walk(maps, affinity, 5, 8, 256)
    np.testing.assert_allclose(random_walk(None, maps, features=features, beta=8), expected, rtol=1e-4, atol=1e-5)


def test_compiled_and_torch_walks_agree_at_full_size():
    random = np.random.default_rng(2)
    maps, edges = random.random((3, 47, 61)), random.random((47, 61)) ** 2
    double = random_walk(edges, maps)  # float64 takes the path that also serves GPUs
    single = random_walk(edges.astype(np.float32), maps.astype(np.float32))
    assert double.dtype == np.float64
    np.testing.assert_allclose(single, double, atol=1e-5)


def test_a_constant_map_stays_constant_and_the_range_is_kept(scene):
    maps, edges = scene
    constant = random_walk(None, np.ones_like(maps), features=maps, num_steps=1000)
    np.testing.assert_allclose(constant, 1.0, atol=1e-5)
    walked = random_walk(edges, maps, num_steps=1000)
    assert walked.min() >= (maps * (1 - edges)).min() and walked.max() <= (maps * (1 - edges)).max()


def test_no_score_crosses_a_closed_edge():
    edges = np.zeros((8, 9), np.float32)
    edges[:, 4] = 1
    maps = np.zeros((1, 8, 9), np.float32)
    maps[0, :, :4] = 1
    walked = random_walk(edges, maps)
    assert walked[0, :, 5:].max() == 0
    assert walked[0, :, :4].min() > 0.99


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (2, 3)])
def test_tiny_maps(size):
    maps = np.ones((1, *size), np.float32)
    np.testing.assert_allclose(random_walk(np.zeros(size, np.float32), maps), 1, atol=1e-6)


def test_no_classes_and_no_cells():
    assert random_walk(np.zeros((4, 5), np.float32), np.zeros((0, 4, 5), np.float32)).shape == (0, 4, 5)
    assert random_walk(np.zeros((0, 5), np.float32), np.zeros((2, 0, 5), np.float32)).shape == (2, 0, 5)


def test_torch_in_torch_out_and_inputs_untouched(scene):
    maps, edges = (torch.from_numpy(a) for a in scene)
    copies = maps.clone(), edges.clone()
    with torch.inference_mode():
        walked = random_walk(edges, maps)
    assert isinstance(walked, torch.Tensor)
    torch.testing.assert_close(walked, torch.from_numpy(random_walk(scene[1], scene[0])))
    assert torch.equal(maps, copies[0]) and torch.equal(edges, copies[1])
    assert not random_walk(edges, maps.requires_grad_()).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_propagated_in_single_precision(scene, dtype):
    maps, edges = (torch.from_numpy(a) for a in scene)
    walked = random_walk(edges, maps.to(dtype))
    assert walked.dtype == dtype
    torch.testing.assert_close(walked.float(), random_walk(edges, maps), atol=1e-2, rtol=0)


def test_read_only_and_strided_arrays(scene):
    maps, edges = scene
    expected = random_walk(edges.T.copy().T, maps[:, ::-1].copy())
    frozen = edges.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(random_walk(frozen, maps[:, ::-1]), expected)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"edges": None}, PPLTypeError, "exactly one"),
        ({"features": np.zeros((1, 9, 13), np.float32)}, PPLTypeError, "exactly one"),
        ({"edges": np.zeros((9, 12), np.float32)}, PPLValueError, r"\(9, 12\)"),
        ({"edges": np.full((9, 13), 1.5, np.float32)}, PPLValueError, "sigmoid"),
        ({"edges": np.full((9, 13), np.nan, np.float32)}, PPLValueError, "117 values"),
        ({"maps": np.full((2, 9, 13), np.inf, np.float32)}, PPLValueError, "NaN or infinite"),
        ({"maps": np.zeros((9, 13), np.float32)}, PPLValueError, r"\(k, h, w\)"),
        ({"maps": np.zeros((2, 9, 13), np.int64)}, PPLTypeError, "int64"),
        ({"maps": [[1.0]]}, PPLTypeError, "list"),
        ({"edges": None, "features": np.zeros((0, 9, 13), np.float32)}, PPLValueError, "no channels"),
        ({"radius": 1}, PPLValueError, "radius=1"),
        ({"beta": 0}, PPLValueError, "beta=0"),
        ({"num_steps": -1}, PPLValueError, "num_steps=-1"),
    ],
)
def test_bad_input_is_named(scene, change, error, words):
    arguments = {"maps": scene[0], "edges": scene[1], **change}
    with pytest.raises(error, match=words):
        random_walk(**arguments)
