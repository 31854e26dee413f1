"""Compiled kernels: machine code is kept on disk, shared between processes, and not needed to be kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
from ppl.refine.compiled import kernel


def make(factor):
    @kernel(variant=f"_{factor}", cached=True)
    def scale(values):
        for i in range(len(values)):
            values[i] *= factor

    return scale
"""
PROGRAM = """
import sys
import numpy as np
from kernels import make
for factor in map(int, sys.argv[1:]):
    values = np.ones(3, np.int64)
    make(factor)(values)
    print(values.sum())
"""
NO_FOLDER = "from numba.core import caching\ncaching.CacheImpl._locator_classes = []\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kernels.py").write_text(MODULE)
    return tmp_path


def start(folder: Path, *factors: int, program: str = PROGRAM) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.getcwd()])}
    environment.pop("NUMBA_CACHE_DIR", None)
    command = [sys.executable, "-c", program, *map(str, factors)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def output(process: subprocess.Popen[str]) -> list[int]:
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return [int(line) for line in out.split()]


def kept(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.nb?")}


def test_two_processes_that_compile_at_once_leave_code_that_later_processes_use(folder):
    processes = start(folder, 2, 5), start(folder, 5, 2)
    assert [output(process) for process in processes] == [[6, 15], [15, 6]]
    files = kept(folder)
    assert len(files) == 4  # an index and machine code for each variant
    assert output(start(folder, 2, 5)) == [6, 15]
    assert kept(folder) == files


def test_a_change_of_any_file_of_the_folder_compiles_anew(folder):
    assert output(start(folder, 2)) == [6]
    files = kept(folder)
    (folder / "other.py").write_text("# a kernel may call functions of another file")
    assert output(start(folder, 2)) == [6]
    assert len(kept(folder)) == 2 * len(files)


def test_without_a_folder_to_write_to_each_process_compiles_for_itself(folder):
    assert output(start(folder, 2, program=NO_FOLDER + PROGRAM)) == [6]
    assert not kept(folder)
