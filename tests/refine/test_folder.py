"""Refinement of folders: whole runs, resumed runs, bad files, and files that must not be overwritten."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from PIL import Image

from ppl.cam import PowerBackground
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io import FileWriteError, read_mask
from ppl.io.confidence import read_confidence
from ppl.io.fingerprint import sha256
from ppl.parallel import Record, run_jobs
from ppl.refine import apply_refiners, cams_to_probs, crf_many, jobs_from_folders, parse_refiners, refine_folder
from ppl.refine.affinity import AffinityNetwork
from ppl.refine.affinity_maps import load_affinity, save_affinity
from ppl.refine.names import recorded_name

REFINERS = "guided_filter: 2, superpixels: {n_segments: 20}"


@pytest.fixture
def folders(tmp_path):
    random = np.random.default_rng(0)
    for name in ("images", "cams"):
        (tmp_path / name).mkdir()
    for index in range(6):
        height, width = 14 + index, 20 - index
        pixels = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
        maps = random.random((2, height, width)).astype(np.float32)
        np.savez(tmp_path / "cams" / f"{index}.npz", maps=maps, classes=np.array([index, 7]))
    return tmp_path


def jobs_in(folders):
    return jobs_from_folders(folders / "images", folders / "cams")


def test_a_folder_without_cam_files_is_refused(folders):
    (folders / "empty").mkdir()
    with pytest.raises(PPLFileNotFoundError, match=r"empty holds no CAM files"):
        jobs_from_folders(folders / "images", folders / "empty")
    assert jobs_from_folders(folders / "images", folders / "empty", []) == []


def results(folder):
    return {path.stem: read_mask(path) for path in sorted(folder.glob("*.png"))}


@pytest.mark.parametrize("workers", [1, 2])
def test_masks_are_those_of_the_refiners(folders, workers):
    summary = refine_folder(jobs_in(folders), folders / "out", REFINERS, background=0.4, num_workers=workers)
    assert (summary.done, summary.skipped, summary.bad) == (6, 0, ())
    assert summary.images_per_second > 0
    for image_id, mask in results(folders / "out").items():
        image = np.asarray(Image.open(folders / "images" / f"{image_id}.png"))
        with np.load(folders / "cams" / f"{image_id}.npz") as file:
            probs = apply_refiners(parse_refiners(REFINERS), image, cams_to_probs(file["maps"], 0.4))
            values = np.array([0, *(file["classes"] + 1)])
        np.testing.assert_array_equal(mask, values[probs.argmax(axis=0)])
    settings = Record(folders / "out" / "record.jsonl").settings
    assert [refiner["name"] for refiner in settings["refiners"]] == ["guided_filter", "superpixels"]
    assert settings["background"] == 0.4


def test_a_second_run_does_only_what_is_missing(folders):
    out = folders / "out"
    refine_folder(jobs_in(folders)[:4], out, REFINERS)
    (out / "1.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.glob("[023].png")}
    summary = refine_folder(jobs_in(folders), out, REFINERS)
    assert (summary.done, summary.skipped) == (3, 3)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert refine_folder(jobs_in(folders), out, REFINERS, overwrite=True).done == 6


def test_results_of_other_refiners_are_not_mixed_in(folders):
    refine_folder(jobs_in(folders), folders / "out", REFINERS)
    with pytest.raises(PPLValueError, match="another way"):
        refine_folder(jobs_in(folders), folders / "out", "guided_filter: 3")
    assert refine_folder(jobs_in(folders), folders / "out", "guided_filter: 3", overwrite=True).done == 6


def test_an_interrupted_overwrite_leaves_no_old_result(folders):
    refine_folder(jobs_in(folders), folders / "out", REFINERS)
    (folders / "cams" / "2.npz").write_bytes(b"no")
    assert refine_folder(jobs_in(folders), folders / "out", "guided_filter: 3", overwrite=True).done == 5
    assert "2" not in results(folders / "out")
    again = refine_folder(jobs_in(folders), folders / "out", "guided_filter: 3")
    assert (again.skipped, [file.image_id for file in again.bad]) == (5, ["2"])


def test_bad_files_are_listed_and_the_rest_is_done(folders):
    (folders / "images" / "1.png").write_bytes((folders / "images" / "1.png").read_bytes()[:40])
    (folders / "cams" / "2.npz").write_bytes(b"no")
    (folders / "images" / "4.png").unlink()
    np.savez(folders / "cams" / "5.npz", maps=np.full((1, 3, 3), np.nan), classes=np.array([0]))
    summary = refine_folder(jobs_in(folders), folders / "out", REFINERS)
    assert summary.done == 2
    assert [file.image_id for file in summary.bad] == ["1", "2", "4", "5"]
    assert "1.png" in summary.bad[0].reason and "2.npz" in summary.bad[1].reason
    assert all("\n" not in file.reason for file in summary.bad)
    assert sorted(results(folders / "out")) == ["0", "3"]


def test_cams_of_another_resolution_and_of_no_class(folders):
    np.savez(folders / "cams" / "0.npz", maps=np.ones((1, 4, 5), np.float32), classes=np.array([3]))
    np.savez(folders / "cams" / "1.npz", maps=np.ones((0, 4, 5), np.float32), classes=np.zeros(0, np.int64))
    refine_folder(jobs_in(folders)[:2], folders / "out", None, background=0.2)
    masks = results(folders / "out")
    assert masks["0"].shape == (14, 20) and (masks["0"] == 4).all()
    assert masks["1"].shape == (15, 19) and not masks["1"].any()


def test_probabilities_can_be_kept(folders):
    refine_folder(jobs_in(folders)[:1], folders / "out", None, keep="probs")
    with np.load(folders / "out" / "0.npz", allow_pickle=False) as file:
        assert file["probs"].shape == (3, 14, 20) and file["classes"].tolist() == [0, 7]
        np.testing.assert_allclose(file["probs"].astype(np.float32).sum(axis=0), 1, atol=2e-3)


def test_the_confidence_of_each_label_can_be_kept(folders):
    refine_folder(jobs_in(folders)[:2], folders / "probs", REFINERS, keep="probs")
    refine_folder(jobs_in(folders)[:2], folders / "out", REFINERS, keep="confidence")
    for image_id in ("0", "1"):
        with np.load(folders / "probs" / f"{image_id}.npz") as file:
            expected = file["probs"].max(axis=0).astype(np.float32) * 255
        found = read_confidence(folders / "out" / f"{image_id}.png")
        assert found.dtype == np.uint8
        np.testing.assert_allclose(found, expected, atol=0.7)
    refine_folder(jobs_in(folders)[:2], folders / "out", None, overwrite=True)
    assert not list((folders / "out").glob("*.npz"))


def test_masks_without_probabilities_count_as_made_with_other_settings(folders):
    refine_folder(jobs_in(folders), folders / "out", None)
    with pytest.raises(PPLValueError, match="another way"):
        refine_folder(jobs_in(folders), folders / "out", None, keep="probs")


def test_probabilities_of_images_in_sub_folders_can_be_kept(folders):
    for kind, suffix in (("images", "png"), ("cams", "npz")):
        (folders / kind / "deep").mkdir()
        (folders / kind / f"0.{suffix}").rename(folders / kind / "deep" / f"0.v1.{suffix}")
    summary = refine_folder(jobs_in(folders), folders / "out", None, keep="probs")
    assert (summary.done, summary.bad) == (6, ())
    assert sorted(path.name for path in (folders / "out" / "deep").iterdir()) == ["0.v1.npz", "0.v1.png"]


def test_a_full_disk_stops_the_run(folders, monkeypatch):
    def full(*_, **__):
        raise FileWriteError("cannot write x: No space left on device; free some space")

    monkeypatch.setattr("ppl.refine.results.write_mask", full)
    with pytest.raises(FileWriteError, match="No space"):
        refine_folder(jobs_in(folders), folders / "out", None, num_workers=2)


def test_mistakes_are_found_before_any_work(folders):
    with pytest.raises(PPLFileNotFoundError, match="there is no file at nowhere"):
        refine_folder(jobs_in(folders), folders / "out", "random_walk: nowhere.safetensors")
    (folders / "text.safetensors").write_text("no network")
    with pytest.raises(PPLValueError, match=r"text\.safetensors is not a whole safetensors file"):
        refine_folder(jobs_in(folders), folders / "out", [{"random_walk": folders / "text.safetensors"}])
    with pytest.raises(PPLValueError, match="num_workers must be -1"):
        refine_folder(jobs_in(folders), folders / "out", None, num_workers=0)
    with pytest.raises(PPLValueError, match="did you mean"):
        refine_folder(jobs_in(folders), folders / "out", "gided_filter")
    with pytest.raises(PPLValueError, match="background is a lambda"):
        refine_folder(jobs_in(folders), folders / "out", None, background=lambda best: 1 - best)
    with pytest.raises(PPLValueError, match=r"a rule such as PowerBackground\(alpha=4\), got 'otsu'"):
        refine_folder(jobs_in(folders), folders / "out", None, background="otsu")
    before = {path: path.read_bytes() for path in (folders / "images").iterdir()}
    with pytest.raises(PPLValueError, match="would be overwritten by a result"):
        refine_folder(jobs_in(folders), folders / "images", None, overwrite=True)
    assert {path: path.read_bytes() for path in (folders / "images").iterdir()} == before
    with pytest.raises(PPLValueError, match="two jobs"):
        refine_folder(jobs_in(folders)[:1] * 2, folders / "out", None)
    assert not list(folders.glob("out/*.png"))


def test_a_mask_that_would_overwrite_another_image_is_refused(folders):
    first, second = jobs_in(folders)[:2]
    with pytest.raises(PPLValueError, match=r"0\.png would be overwritten by a result"):
        refine_folder(
            [replace(first, image_id="1"), replace(second, image_id="0")], folders / "images", None, overwrite=True
        )
    assert len(list((folders / "images").glob("*.png"))) == 6 and not (folders / "images" / "record.jsonl").exists()


def test_probabilities_that_would_overwrite_cam_files_are_refused(folders):
    before = {path: path.read_bytes() for path in (folders / "cams").iterdir()}
    with pytest.raises(PPLValueError, match=r"0\.npz would be overwritten by a result"):
        refine_folder(jobs_in(folders), folders / "cams", None, keep="probs", overwrite=True)
    assert {path: path.read_bytes() for path in (folders / "cams").iterdir()} == before


def test_masks_beside_cam_files_do_not_change_the_cam_files(folders):
    before = {path: path.read_bytes() for path in (folders / "cams").iterdir()}
    for _ in range(2):
        assert refine_folder(jobs_in(folders), folders / "cams", None, overwrite=True).done == 6
    assert {path: path.read_bytes() for path in (folders / "cams").glob("*.npz")} == before


def test_old_probabilities_are_removed_with_the_old_masks(folders):
    refine_folder(jobs_in(folders), folders / "out", None, keep="probs")
    refine_folder(jobs_in(folders), folders / "out", REFINERS, overwrite=True)
    assert not list((folders / "out").glob("*.npz"))


def test_the_old_result_of_an_image_that_fails_is_removed(folders):
    refine_folder(jobs_in(folders), folders / "out", None, keep="probs")
    (folders / "cams" / "2.npz").write_bytes(b"no")
    assert [file.image_id for file in refine_folder(jobs_in(folders), folders / "out", None, keep="probs").bad] == ["2"]
    assert not list((folders / "out").glob("2.*"))


def test_probabilities_that_were_removed_are_made_again(folders):
    refine_folder(jobs_in(folders), folders / "out", None, keep="probs")
    (folders / "out" / "2.npz").unlink()
    assert refine_folder(jobs_in(folders), folders / "out", None, keep="probs").done == 1
    assert (folders / "out" / "2.npz").exists()


def a_rule(best):
    return 1 - best


def another_rule():
    def rule(best):
        return best / 2

    return rule


class Shaded:
    """A rule whose repr is its address."""

    def __call__(self, best):
        return best / 2

    def method(self, best):
        return best / 2


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        (lambda best: best, "a lambda"),
        (another_rule(), "a function inside another one"),
        (Shaded().method, "a method"),
        (partial(a_rule), "a partial"),
        (Shaded(), "a Shaded"),
    ],
)
def test_functions_without_a_lasting_name_are_refused(folders, rule, kind):
    with pytest.raises(PPLValueError, match=f"background is {kind}, which has no lasting name"):
        refine_folder(jobs_in(folders), folders / "out", None, background=rule)
    with pytest.raises(PPLValueError, match=f"random_walk: affinity is {kind}, which has no lasting name"):
        refine_folder(jobs_in(folders), folders / "out", [{"random_walk": {"affinity": rule}}])
    assert not (folders / "out").exists()


def test_functions_and_rules_have_names_of_their_own_in_records():
    assert recorded_name("background", a_rule) == f"{__name__}.a_rule"
    assert recorded_name("background", PowerBackground(4)) == "PowerBackground(alpha=4)"


def test_a_loaded_network_is_recorded_by_file_name_and_content(tmp_path):
    def record(seed):
        torch.manual_seed(seed)
        save_affinity(AffinityNetwork("test_resnet"), tmp_path / "net.safetensors")
        predictor = load_affinity(tmp_path / "net.safetensors", device="cpu")
        return parse_refiners([{"random_walk": {"affinity": predictor}}])[0].record()["options"]["affinity"]

    assert record(0) == record(0) != record(1)
    assert sha256(tmp_path / "net.safetensors") in record(1) and "net.safetensors" in record(1)


def change(path):
    """Change the content of an image or a CAM file, but not its size in pixels nor its time."""
    times = path.stat().st_atime, path.stat().st_mtime
    if path.suffix == ".png":
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    else:
        with np.load(path) as file:
            arrays = dict(file)
        np.savez(path, **{**arrays, "maps": 1 - arrays["maps"]})
    os.utime(path, times)


@pytest.mark.parametrize("source", ["cams/2.npz", "images/2.png"])
def test_a_mask_of_changed_maps_or_a_changed_image_is_made_again_once_whatever_the_times(folders, source):
    refine_folder(jobs_in(folders), folders / "out", REFINERS)
    change(folders / source)
    assert [refine_folder(jobs_in(folders), folders / "out", REFINERS).done for _ in range(2)] == [1, 0]


def test_a_copied_folder_is_not_done_again(folders, tmp_path_factory):
    refine_folder(jobs_in(folders), folders / "out", REFINERS)
    copy = tmp_path_factory.mktemp("copy") / "set"
    shutil.copytree(folders, copy, copy_function=shutil.copyfile)
    for path in copy.rglob("*.*"):  # the images seem newer than the masks
        os.utime(path, (2e9, 2e9) if path.parent.name == "images" else (1e9, 1e9))
    assert refine_folder(jobs_in(copy), copy / "out", REFINERS).skipped == 6
    change(copy / "images" / "3.png")
    assert refine_folder(jobs_in(copy), copy / "out", REFINERS).done == 1


def test_a_mask_that_a_copy_truncated_is_made_again(folders):
    refine_folder(jobs_in(folders), folders / "out", REFINERS)
    before = results(folders / "out")
    mask = folders / "out" / "2.png"
    mask.write_bytes(mask.read_bytes()[:-9])
    assert refine_folder(jobs_in(folders), folders / "out", REFINERS).done == 1
    np.testing.assert_array_equal(results(folders / "out")["2"], before["2"])


def test_masks_that_a_killed_run_did_not_record_are_made_again(folders):
    refine_folder(jobs_in(folders), folders / "out", REFINERS)
    record = folders / "out" / "record.jsonl"
    record.write_text("\n".join(record.read_text().split("\n")[:-2]))
    assert refine_folder(jobs_in(folders), folders / "out", REFINERS).done == 2


def test_masks_that_no_record_lists_are_not_overwritten(folders):
    (folders / "out").mkdir()
    (folders / "out" / "2.png").write_bytes(b"drawn by hand")
    with pytest.raises(PPLValueError, match=r"2\.png was made in another way.*--overwrite"):
        refine_folder(jobs_in(folders), folders / "out", REFINERS)
    assert (folders / "out" / "2.png").read_bytes() == b"drawn by hand"
    assert refine_folder(jobs_in(folders), folders / "out", REFINERS, overwrite=True).done == 6


def test_masks_of_another_network_in_the_same_file_are_not_mixed_in(folders):
    def walk(seed):
        torch.manual_seed(seed)
        save_affinity(AffinityNetwork("test_resnet"), folders / "net.safetensors")
        return [{"random_walk": {"affinity": folders / "net.safetensors", "num_steps": 2}}]

    refine_folder(jobs_in(folders)[:1], folders / "out", walk(0))
    assert refine_folder(jobs_in(folders)[:1], folders / "out", walk(0)).skipped == 1
    with pytest.raises(PPLValueError, match="another way"):
        refine_folder(jobs_in(folders)[:1], folders / "out", walk(1))


@pytest.mark.parametrize(
    "refiners", ["crf: deeplab", "guided_filter: 2, crf: {preset: irn, iterations: 3}, superpixels", None]
)
def test_batches_give_the_masks_of_single_images(folders, refiners, monkeypatch):
    monkeypatch.setattr("ppl.refine.batched._CHUNK", 4)
    (folders / "cams" / "2.npz").write_bytes(b"no")
    (folders / "images" / "4.png").unlink()
    options = {"background": 0.4, "keep": "probs", "num_workers": 2}
    refine_folder(jobs_in(folders), folders / "single", refiners, **options)
    summary = refine_folder(jobs_in(folders), folders / "batch", refiners, batched=True, **options)
    assert summary.done == 4 and [file.image_id for file in summary.bad] == ["2", "4"]
    single, batch = results(folders / "single"), results(folders / "batch")
    assert single.keys() == batch.keys()
    for image_id in single:
        probs = [np.load(folders / kind / f"{image_id}.npz")["probs"] for kind in ("single", "batch")]
        np.testing.assert_allclose(probs[0], probs[1], atol=2e-3)
        assert (single[image_id] == batch[image_id]).mean() > 0.99
    assert refine_folder(jobs_in(folders), folders / "batch", refiners, batched=True, **options).skipped == 4


def refusing_a_width(real):
    def crf_many(images, *rest, **settings):
        if any(image.shape[1] == 18 for image in images):
            raise PPLValueError("18 pixels are too wide")
        return real(images, *rest, **settings)

    return crf_many


def test_an_image_that_the_crf_refuses_leaves_the_rest_of_its_batch(folders, monkeypatch):
    monkeypatch.setattr("ppl.refine.batched.crf_many", refusing_a_width(crf_many))
    summary = refine_folder(jobs_in(folders), folders / "out", "crf: {iterations: 1}", batched=True)
    assert summary.done == 5
    assert [(file.image_id, file.reason) for file in summary.bad] == [("2", "18 pixels are too wide")]


def test_torchs_threads_are_restored(folders):
    before = torch.get_num_threads()
    refine_folder(jobs_in(folders), folders / "out", None, num_workers=2)
    assert torch.get_num_threads() == before


@dataclass(frozen=True)
class Numbered:
    """A job that writes its own name."""

    image_id: str
    out: Path

    def key(self):
        return self.image_id


def write_name(job):
    files_of(job)[0].write_text(job.image_id)


def files_of(job):
    return [job.out / f"{job.image_id}.png"]


def test_the_same_call_goes_to_processes(tmp_path):
    jobs = [Numbered(str(index), tmp_path) for index in range(5)]
    with joblib.parallel_config(backend="loky", n_jobs=2):
        summary = run_jobs(jobs, write_name, tmp_path, files=files_of, settings={})
    assert summary.done == 5 and len(list(tmp_path.glob("*.png"))) == 5


def test_the_same_call_goes_to_a_backend_that_returns_lists_only(folders):
    with joblib.parallel_config(backend="multiprocessing", n_jobs=2):
        assert refine_folder(jobs_in(folders), folders / "out", None).done == 6


def test_the_same_call_goes_to_a_dask_cluster(folders):
    distributed = pytest.importorskip("distributed")
    refine_folder(jobs_in(folders), folders / "here", REFINERS)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        summary = refine_folder(jobs_in(folders), folders / "there", REFINERS)
    assert (summary.done, summary.bad) == (6, ())
    here, there = results(folders / "here"), results(folders / "there")
    assert here.keys() == there.keys()
    assert all((here[image_id] == there[image_id]).all() for image_id in here)
