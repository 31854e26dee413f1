"""The parts of the native engine against plain numpy, and the engine in threads and processes."""

from __future__ import annotations

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import skimage.data

from ppl.refine.compiled import kernel
from ppl.refine.crf import crf
from ppl.refine.crf.native import lattice, sweep, vectors
from ppl.refine.crf.native.chains import chains
from ppl.refine.crf.native.embedding import axes
from ppl.refine.crf.native.hashing import Table


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


def built(image: np.ndarray, *deviations: float) -> tuple[Any, ...]:
    """The number of groups, what the pixels touch, axes and table of the 5-D lattice, the table of the 2-D lattice."""
    height, width = image.shape[:2]
    gaussian_sxy, bilateral_sxy, bilateral_srgb = deviations
    space = axes([width, height], [gaussian_sxy] * 2)
    colour = axes([width, height, 256, 256, 256], [bilateral_sxy] * 2 + [bilateral_srgb] * 3)
    touched = lattice.Touched.empty(height * width)
    tables = Table.empty(6 * (height * width + 1)), Table.empty(3 * (height * width + 1))
    groups, colour_table, space_table = lattice.build(image, colour, space, *tables, touched)
    return groups, touched, colour, colour_table, space_table


@pytest.mark.parametrize("width", [1, 2, 4, 8, 12, 20, 48])
def test_blur_in_chains_equals_blur_by_neighbour(width):
    image = np.ascontiguousarray(skimage.data.astronaut()[:40, :50])
    _, _, colour, table, _ = built(image, 3, 30, 9)
    count = len(table.codes)
    links, ends = chains(colour.strides, table)
    random = np.random.default_rng(1)
    values = random.random((count + 2, width), dtype=np.float32)
    values[count:] = 0
    expected = values[:count].copy()
    for axis in range(6):
        chain = links[ends[axis] : ends[axis + 1]]
        blurred = expected.copy()
        for before, after in itertools.pairwise(chain.tolist()):
            if count not in (before, after):
                blurred[before] += 0.5 * expected[after]
                blurred[after] += 0.5 * expected[before]
        expected = blurred
    flat = values.ravel()
    if width <= 32:
        sweep.make_blur(width)(flat, count, links, ends)
    else:
        sweep.blur_wide(flat, count, links, ends, width)
    np.testing.assert_allclose(flat.reshape(values.shape)[:-2], expected, rtol=1e-5)


def test_every_pixel_has_one_position_and_weights_that_sum_to_one():
    image = np.random.default_rng(2).integers(0, 256, (70, 130, 3), dtype=np.uint8)
    groups, touched, _, table, space_table = built(image, 3, 80, 13)
    np.testing.assert_array_equal(np.sort(touched.order), np.arange(70 * 130))
    np.testing.assert_allclose(touched.group_weights.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(touched.point_weights.sum(axis=1), 1, atol=1e-5)
    assert touched.group_vertices[:groups].max() < len(table.codes)
    assert touched.point_vertices.max() < len(space_table.codes)
    starts = touched.starts[: groups + 1]
    assert starts[0] == 0 and starts[-1] == 70 * 130
    assert ((np.diff(starts) > 0) & (np.diff(starts) <= lattice.LONGEST)).all()


@pytest.mark.parametrize("width", [1, 2, 4, 12, 20, 28])
def test_vectors_of_any_width(width):
    @kernel()
    def compute(values, result):
        row = vectors.load(values, 0, width)
        vectors.store(result, 0, vectors.exp(vectors.mul(np.float32(0.5), row)))
        vectors.store(result, width, vectors.fma(np.float32(2), row, vectors.fill(np.float32(1), width)))
        vectors.store(result, 2 * width, vectors.add(row, vectors.sub(row, np.float32(3))))
        result[3 * width] = vectors.total(row)
        result[3 * width + 1] = vectors.highest(row)

    values = np.random.default_rng(width).normal(0, 30, width).astype(np.float32)
    result = np.empty(3 * width + 2, np.float32)
    compute(values, result)
    np.testing.assert_allclose(result[:width], np.exp(values / 2), rtol=3e-7)
    np.testing.assert_allclose(result[width : 2 * width], 2 * values + 1, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result[2 * width : -2], 2 * values - 3, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result[-2:], [values.sum(), values.max()], rtol=1e-4)


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
        "print(*{'torch', 'skimage', 'rich', 'joblib'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
