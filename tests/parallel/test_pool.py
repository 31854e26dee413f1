from __future__ import annotations

import pickle
from types import SimpleNamespace

import joblib
import pytest
import torch

from ppl.cam import CamResult
from ppl.data import check_images, make_creatures, read_folder
from ppl.errors import PPLValueError
from ppl.io.files import FileWriteError
from ppl.parallel import BadFile, guarded, parallel_map
from ppl.pipeline.masks import cut_masks, mask_keys, mask_settings
from ppl.pipeline.recipe import CamRecipe
from ppl.pipeline.results import ResultFolder
from ppl.refine import RefineJob, score_refiners
from ppl.refine.affinity.labels import confident_label_folder


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


@pytest.mark.filterwarnings("ignore")
def test_every_step_without_a_network_goes_to_a_dask_cluster(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    images = read_folder(make_creatures(tmp_path / "set", train=0, val=3, size=32), "val")
    cams = tmp_path / "cams"
    for sample in images:
        maps = torch.rand(len(sample.labels), 32, 32)
        CamResult(maps, torch.tensor(sample.labels), torch.ones(len(sample.labels)), (32, 32)).save(
            cams / f"{sample.image_id}.npz"
        )
    jobs = [RefineJob(sample.image_id, sample.image, cams / f"{sample.image_id}.npz") for sample in images]
    truth = {sample.image_id: sample.mask for sample in images}

    def steps(out):
        keys = mask_keys(cams, images, 2)
        masks = ResultFolder(out / "masks", ".png", mask_settings(CamRecipe()))
        bad = cut_masks(images, cams, masks, keys, 2, progress=False)
        scores, _ = score_refiners(jobs, truth, "guided_filter: 2", num_classes=len(images.classes), num_workers=2)
        confident_label_folder(jobs, out / "labels", refiners=None, num_workers=2, progress=False)
        files = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.png")}
        return keys, bad, [score.miou for score in scores], files, check_images(images, num_workers=2, progress=False)

    here, real, sent = steps(tmp_path / "here"), joblib.delayed, []

    def pickled(function):
        sent.append(function)
        return real(pickle.loads(pickle.dumps(function)))

    monkeypatch.setattr(joblib, "delayed", pickled)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        assert steps(tmp_path / "there") == here
    assert len(sent) >= 5 and len(here[3]) == 6


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
