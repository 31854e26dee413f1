"""Kernels against the same statements run by Python."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ppl.refine.kernel import compiled, kernel
from ppl.refine.kernel.operations import (
    absolute,
    exp,
    f32,
    fill,
    fma,
    fold,
    highest,
    i32,
    i64,
    load,
    maximum,
    mul,
    sqrt,
    store,
    total,
)


@kernel(i64="numbers", returns="i64")
def _collatz(count, numbers):
    longest = 0
    for i in range(count):
        value, steps = numbers[i], 0
        while value != 1 and steps < 1000:
            value = value // 2 if value % 2 == 0 else 3 * value + 1
            steps += 1
        numbers[i] = steps
        if steps > longest:
            longest = steps
    return longest


def test_loops_branches_and_integers():
    def steps(value: int) -> int:
        return 0 if value == 1 else 1 + steps(value // 2 if value % 2 == 0 else 3 * value + 1)

    numbers = np.arange(1, 100)
    expected = [steps(int(value)) for value in numbers]
    assert compiled(_collatz)(len(numbers), numbers) == max(expected)
    assert numbers.tolist() == expected


@kernel(i32="table", u8="marks", returns="i64")
def _walk_to_zero(count, table, marks):
    found = -1
    for start in range(0, count, 3):
        at = start
        while True:
            if table[at] < 0 or marks[at] == 255:
                break
            if not marks[at]:
                found = at
                break
            at = i64(table[at])
        if found >= 0:
            break
        if at % 2 == 1:
            continue
        marks[start] = 7
    return found


def test_breaks_continues_and_short_circuits():
    table = np.array([3, -1, 0, 4, 5, -1, 2, 2, 1], np.int32)
    marks = np.array([9, 9, 0, 9, 9, 9, 255, 9, 9], np.uint8)
    # 0 -> 3 -> 4 -> 5 ends; 3 likewise; 6 stops at once on an even place and is marked.
    assert compiled(_walk_to_zero)(9, table, marks) == -1
    assert marks.tolist() == [9, 9, 0, 9, 9, 9, 7, 9, 9]
    marks[:] = 1
    marks[4] = 0
    assert compiled(_walk_to_zero)(9, table, marks) == 4


@kernel(f32="values result", reals="scale", returns="f32")
def _reals(count, values, scale, result):
    best = -1e9
    for i in range(count):
        x = values[i]
        result[4 * i] = sqrt(absolute(x))
        result[4 * i + 1] = exp(x)
        result[4 * i + 2] = fma(scale, x, 1.0 / scale)
        result[4 * i + 3] = f32(i64(x)) if x > 0 else -x
        best = maximum(best, x)
    return best


def test_reals():
    values = np.random.default_rng(0).normal(0, 5, 50).astype(np.float32)
    result = np.empty((50, 4), np.float32)
    assert compiled(_reals)(50, values, 3.0, result) == values.max()
    expected = [[math.sqrt(abs(x)), math.exp(x), 3 * x + 1 / 3, float(int(x)) if x > 0 else -x] for x in values]
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@kernel(f32="values result", constants="width")
def _vectors(values, result, width):
    row = load(values, 0, width)
    store(result, 0, exp(mul(row, fill(0.5, width))))
    result[width] = total(row)
    result[width + 1] = highest(row)
    result[width + 2] = total(fold(row, 1))


@pytest.mark.parametrize("width", [1, 2, 4, 12, 20, 28])
def test_vectors_of_any_width(width):
    values = np.random.default_rng(width).normal(0, 30, width).astype(np.float32)
    result = np.empty(width + 3, np.float32)
    compiled(_vectors, width=width)(values, result)
    np.testing.assert_allclose(result[:width], np.exp(values / 2), rtol=3e-7)
    np.testing.assert_allclose(result[width:], [values.sum(), values.max(), values.sum()], rtol=1e-4)


@kernel(i32="numbers")
def _mixes_widths(count, numbers):
    for i in range(count):
        wide = numbers[i] * 2
        numbers[i] = (i32(1) << i32(i)) | i32(wide > 2147483648)


def test_python_numbers_count_as_64_bits():
    numbers = np.array([2**30, 2**30 + 1], np.int32)
    compiled(_mixes_widths)(2, numbers)
    assert numbers.tolist() == [1, 3]


def test_what_the_language_lacks_is_named():
    @kernel(f32="values")
    def squares(values):
        values[0] = [x * x for x in (1, 2)]

    with pytest.raises(TypeError, match="squares, line 3: kernels do without ListComp"):
        compiled(squares)
    with pytest.raises(TypeError, match="no parameter named weights"):
        kernel(f32="weights")(lambda values: None)


def test_arrays_of_another_type_never_reach_the_machine_code():
    with pytest.raises(TypeError, match="int64"):
        compiled(_collatz)(3, np.ones(3, np.int32))
    with pytest.raises(TypeError, match="contiguous"):
        compiled(_collatz)(3, np.ones(6, np.int64)[::2])


def test_machine_code_is_kept_and_broken_files_are_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PPL_CACHE_DIR", str(tmp_path))

    def fresh(name):
        # A kernel of its own each time: another one in this process would be found in memory.
        @kernel(i64="numbers")
        def double(numbers):
            numbers[0] = numbers[0] * 2

        numbers = np.array([21])
        compiled(double)(numbers)
        assert numbers[0] == 42

    fresh("first")
    (file,) = tmp_path.iterdir()
    made = file.stat().st_mtime_ns
    fresh("found")
    assert file.stat().st_mtime_ns == made
    file.write_bytes(file.read_bytes()[:-100])
    fresh("broken")
    assert file.stat().st_mtime_ns != made
    monkeypatch.setenv("PPL_CACHE_DIR", str(file))  # no folder
    fresh("nowhere to write")


@kernel(i64="numbers")
def _doubles(count, numbers):
    for i in range(count):
        numbers[i] = 2 * numbers[i]


def test_a_user_without_a_home_compiles_for_this_process(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for variable in ("PPL_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    numbers = np.arange(3)
    compiled(_doubles)(3, numbers)
    assert numbers.tolist() == [0, 2, 4]
