"""The native engine's own parts against plain numpy, and its behaviour in threads and processes."""

from __future__ import annotations

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import skimage.data

from ppl.refine.crf import crf
from ppl.refine.crf.native import sweep
from ppl.refine.crf.native.build import Lattices
from ppl.refine.kernel import compiled


def embed_one(feature: np.ndarray) -> tuple[list[tuple[int, ...]], list[float]]:
    """Vertices and barycentric weights of one point: Adams et al. 2010, section 3, spelled out with sorting."""
    d = len(feature)
    position = np.zeros(d + 1)
    for i in range(d):
        # Column i of the basis of the plane: i+1 ones and one -(i+1), of length sigma.
        column = np.array([1.0] * (i + 1) + [-(i + 1.0)] + [0.0] * (d - i - 1))
        position += feature[i] * np.sqrt(2 / 3) * (d + 1) * column / np.sqrt((i + 1) * (i + 2))
    base = np.floor(position / (d + 1)) * (d + 1)
    # The remainder-0 point below, moved up in the coordinates of the largest residuals until it is on the plane.
    up = round(-base.sum() / (d + 1))
    order = np.argsort(-(position - base), kind="stable")
    base[order[:up]] += d + 1
    residual = position - base
    order = np.argsort(-residual, kind="stable")
    sorted_residual = residual[order] / (d + 1)
    vertices, weights = [], []
    for k in range(d + 1):
        vertex = base + k
        vertex[order[d + 1 - k :]] -= d + 1
        vertices.append(tuple(int(v) for v in vertex))
        weights.append(sorted_residual[d - k] - (sorted_residual[d - k + 1] if k else sorted_residual[0] - 1))
    return vertices, weights


def filter_by_dictionary(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Splat, blur and slice with a dictionary for the lattice."""
    d = features.shape[1]
    touched = [embed_one(feature) for feature in features]
    field: dict[tuple[int, ...], float] = {}
    for (vertices, weights), value in zip(touched, values, strict=True):
        for vertex, weight in zip(vertices, weights, strict=True):
            field[vertex] = field.get(vertex, 0.0) + weight * value
    for axis in range(d + 1):
        step = np.ones(d + 1, int)
        step[axis] = -d
        field = {
            vertex: value
            + 0.5 * sum(field.get(tuple(int(v) for v in np.array(vertex) + sign * step), 0.0) for sign in (-1, 1))
            for vertex, value in field.items()
        }
    alpha = 1 / (1 + 2.0**-d)
    return np.array([alpha * sum(w * field[v] for v, w in zip(*pair, strict=True)) for pair in touched])


def dense_softmax(scores: np.ndarray) -> np.ndarray:
    scores = np.exp(scores - scores.max(axis=0))
    return scores / scores.sum(axis=0)


def test_mean_field_equals_the_equations_over_a_dictionary_lattice():
    height, width = 8, 6
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    probs = random.dirichlet((1, 1, 1), (height, width)).transpose(2, 0, 1)
    y, x = np.mgrid[:height, :width]
    space = np.stack([x / 2.5, y / 2.5], axis=-1).reshape(-1, 2)
    colour = np.concatenate([np.stack([x / 7, y / 7], axis=-1), image / 40.0], axis=-1).reshape(-1, 5)
    kernels = []
    for features, weight in ((space, 3.0), (colour, 10.0)):
        norm = 1 / np.sqrt(filter_by_dictionary(features, np.ones(len(features))))
        kernels.append((features, norm, weight))
    energy = -np.log(probs.reshape(3, -1))
    belief = dense_softmax(-energy)
    for _ in range(3):
        scores = -energy
        for features, norm, weight in kernels:
            scores = scores + weight * np.stack([norm * filter_by_dictionary(features, norm * row) for row in belief])
        belief = dense_softmax(scores)
    result = crf(image, probs, iterations=3, gaussian_sxy=2.5, bilateral_sxy=7, bilateral_srgb=40, backend="native")
    np.testing.assert_allclose(result.reshape(3, -1), belief, atol=2e-5)


def test_the_lattice_filter_resembles_the_gaussian_it_stands_for():
    # The exact dense kernel on a flat image: the lattice is an approximation, so only the shape is compared.
    height, width = 12, 14
    y, x = (c.ravel() for c in np.mgrid[:height, :width])
    impulse = np.zeros(height * width)
    impulse[5 * width + 6] = 1
    exact = np.exp(-((x - 6) ** 2 + (y - 5) ** 2) / (2 * 3.0**2))
    filtered = filter_by_dictionary(np.stack([x, y], axis=-1) / 3.0, impulse)
    assert np.corrcoef(exact, filtered)[0, 1] > 0.98


@pytest.mark.parametrize("width", [1, 2, 4, 8, 12, 20, 36])
def test_blur_in_chains_equals_blur_by_neighbour(width):
    image = skimage.data.astronaut()[:40, :50]
    lattice = Lattices(np.ascontiguousarray(image), 3, 30, 9).colour
    links, ends = lattice.chains()
    random = np.random.default_rng(1)
    values = random.random((lattice.count + 2, width), dtype=np.float32)
    values[lattice.count :] = 0
    expected = values[: lattice.count].copy()
    for axis in range(6):
        chain = links[ends[axis] : ends[axis + 1]]
        blurred = expected.copy()
        for before, after in itertools.pairwise(chain.tolist()):
            if lattice.count not in (before, after):
                blurred[before] += 0.5 * expected[after]
                blurred[after] += 0.5 * expected[before]
        expected = blurred
    flat = values.ravel()
    if width <= 32:
        compiled(sweep.blur, width=width)(flat, lattice.count, links, ends, 6)
    else:
        row = np.empty(width, np.float32)
        compiled(sweep.blur_wide, width=16, narrow=4)(flat, lattice.count, links, ends, 6, width, row)
    np.testing.assert_allclose(flat.reshape(values.shape)[:-2], expected, rtol=1e-5)


def test_every_pixel_has_one_position_and_weights_that_sum_to_one():
    image = np.random.default_rng(2).integers(0, 256, (70, 130, 3), dtype=np.uint8)
    lattices = Lattices(image, 3, 80, 13)
    np.testing.assert_array_equal(np.sort(lattices.order), np.arange(70 * 130))
    np.testing.assert_allclose(lattices.group_weights.reshape(-1, 6).sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(lattices.point_weights.reshape(-1, 3).sum(axis=1), 1, atol=1e-5)
    assert lattices.group_vertices.max() < lattices.colour.count
    assert lattices.point_vertices.max() < lattices.space.count
    assert (np.diff(lattices.starts) > 0).all()


def test_threads_do_not_disturb_each_other():
    random = np.random.default_rng(3)
    problems = [
        (random.integers(0, 256, (h, 60, 3), dtype=np.uint8), random.dirichlet((1, 1, 1), (h, 60)).transpose(2, 0, 1))
        for h in range(40, 56)
    ]
    expected = [crf(*problem) for problem in problems]
    with ThreadPoolExecutor(4) as pool:
        for result, single in zip(pool.map(lambda p: crf(*p), problems), expected, strict=True):
            np.testing.assert_array_equal(result, single)


def test_random_problems_of_any_shape_are_finite_and_sum_to_one():
    random = np.random.default_rng(4)
    for _ in range(60):
        labels, height, width = random.integers((2, 1, 1), (5, 90, 90))
        image = random.integers(0, random.integers(1, 257), (height, width, 3), dtype=np.uint8)
        probs = random.dirichlet([0.3] * labels, (height, width)).transpose(2, 0, 1)
        result = crf(
            image,
            probs,
            iterations=int(random.integers(0, 4)),
            gaussian_sxy=float(10 ** random.uniform(-1, 2)),
            bilateral_sxy=float(10 ** random.uniform(-0.5, 3)),
            bilateral_srgb=float(10 ** random.uniform(-0.3, 3)),
            bilateral_compat=float(10 ** random.uniform(-2, 3)),
            backend="native",
        )
        assert np.isfinite(result).all()
        np.testing.assert_allclose(result.sum(axis=0), 1, atol=1e-4)


def test_nothing_heavy_is_imported():
    program = (
        "import sys, numpy as np\nfrom ppl.refine import crf\n"
        "crf(np.zeros((4, 4, 3), np.uint8), np.full((2, 4, 4), 0.5, np.float32))\n"
        "print(*{'torch', 'numba', 'scipy', 'skimage', 'pydantic', 'rich', 'joblib'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
