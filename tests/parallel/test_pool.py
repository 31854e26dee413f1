from __future__ import annotations

from types import SimpleNamespace

import joblib
import pytest
import torch

from ppl.errors import PPLValueError
from ppl.io.files import FileWriteError
from ppl.parallel import BadFile, guarded, parallel_map


def threads_of_a_worker(job):
    return torch.get_num_threads()


def test_workers_compute_on_one_core_each_and_the_caller_keeps_its_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for count in parallel_map(threads_of_a_worker, range(6), num_workers=2):
            assert count == 1
            assert torch.get_num_threads() == 2  # also between two results
    finally:
        torch.set_num_threads(before)


def test_a_single_worker_keeps_all_threads():
    assert list(parallel_map(threads_of_a_worker, [0], num_workers=1)) == [torch.get_num_threads()]


@pytest.mark.parametrize("backend", ["threading", "loky", "multiprocessing"])
def test_every_job_is_done_once_under_every_backend(backend):
    with joblib.parallel_config(backend=backend, n_jobs=2):
        assert sorted(parallel_map(abs, list(range(-40, 0)), num_workers=2)) == list(range(1, 41))


def test_no_workers_are_refused():
    with pytest.raises(PPLValueError, match=r"num_workers must be -1 \(one worker per core\) or at least 1, got 0"):
        list(parallel_map(abs, [1], num_workers=0))


def test_a_job_that_fails_becomes_a_bad_file_with_its_reason_in_one_line():
    def fail(job):
        raise OSError("broken\n  data")

    assert guarded(fail, SimpleNamespace(image_id="a")) == BadFile("a", "broken data")


def test_a_full_disk_ends_the_work():
    def fail(job):
        raise FileWriteError("no space")

    with pytest.raises(FileWriteError, match="no space"):
        guarded(fail, SimpleNamespace(image_id="a"))
