"""Training of affinity networks: learning, validation, precision, processes, exact resuming, files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from processes import run_ranks
from safetensors.torch import load_file

from ppl.backbones import half
from ppl.data.views import RandomViews, random_view
from ppl.engine import Trainer
from ppl.errors import PPLValueError
from ppl.io import read_mask, write_mask
from ppl.refine import RefineJob, random_walk, refine_folder
from ppl.refine.affinity import (
    AffinityConfig,
    AffinityNetwork,
    LabelledImages,
    fit_affinity,
    learn_affinity,
    load_affinity,
)
from ppl.refine.affinity.labelled_images import usual_side
from ppl.refine.affinity.task import AffinityObjective


def boxes(count, size=64):
    """Return images of bright boxes on a dark ground, with unsure outlines."""
    random = np.random.default_rng(0)
    pairs = []
    for _ in range(count):
        top, left = random.integers(8, 24, 2)
        bottom, right = random.integers(40, 56, 2)
        labels = np.zeros((size, size), np.uint8)
        labels[top - 2 : bottom + 2, left - 2 : right + 2] = 255
        labels[top:bottom, left:right] = 1
        image = np.full((size, size, 3), 40, np.uint8)
        image[top:bottom, left:right] = (220, 60, 60)
        pairs.append((image, labels))
    return pairs


def config(**changes):
    small = {"epochs": 2, "batch_size": 4, "crop": 64, "radius": 5, "scale": (1, 1), "momentum": 0.9, "num_workers": 0}
    return AffinityConfig(**{**small, **changes})


@pytest.fixture
def network():
    torch.manual_seed(0)
    return AffinityNetwork("test_resnet")


def test_boundaries_are_learned(network, tmp_path):
    pairs = boxes(8)
    summary = fit_affinity(network, pairs, config(epochs=12), out=tmp_path)
    assert summary.losses[-1] < 0.6 * summary.losses[0]
    image, labels = pairs[0]
    edges = load_affinity(summary.path)(image).edges.cpu().numpy()
    inside = labels[2::4, 2::4] == 1
    seed = np.zeros((1, *inside.shape), np.float32)
    seed[0, 8, 8] = 1
    walked = random_walk(edges, seed, num_steps=64)[0]
    assert walked[inside].mean() > 3 * walked[~inside].mean()


def test_features_are_learned(tmp_path):
    torch.manual_seed(0)
    network = AffinityNetwork("test_resnet", kind="features", stride=4)
    summary = fit_affinity(network, boxes(8), config(epochs=6, lr=0.05), out=tmp_path)
    assert summary.losses[-1] < summary.losses[0]


def test_an_interrupted_run_ends_with_the_weights_of_an_unbroken_one(network, tmp_path, monkeypatch):
    pairs = boxes(6)
    whole = fit_affinity(network, pairs, config(epochs=3), device="cpu", out=tmp_path / "whole")
    expected = {name: value.clone() for name, value in network.head.state_dict().items()}

    step = Trainer.step

    def stopping(self, batches, phase, number):
        if number == 3:  # in the middle of the second epoch
            raise KeyboardInterrupt
        step(self, batches, phase, number)

    monkeypatch.setattr(Trainer, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit_affinity(network, pairs, config(epochs=3), device="cpu", out=tmp_path / "stopped")
    monkeypatch.undo()
    assert not (tmp_path / "stopped" / "affinity.safetensors").exists()
    resumed = fit_affinity(network, pairs, config(epochs=3), device="cpu", out=tmp_path / "stopped")
    assert resumed.losses == whole.losses
    assert all(torch.equal(value, expected[name]) for name, value in network.head.state_dict().items())


def test_held_out_pairs_decide_which_epoch_is_the_best(network, tmp_path):
    pairs = boxes(8)
    options = {"epochs": 3, "scale": (0.5, 1.5)}
    summary = fit_affinity(network, pairs[:6], config(**options), val=pairs[6:], device="cpu", out=tmp_path / "a")
    assert len(summary.val_losses) == 3
    again = AffinityObjective(network, 5).eval()  # the network of the last epoch
    views = RandomViews(pairs[6:], crop=64, scale=(0.5, 1.5), fill=network.mean[0], seed=0)
    images, labels = (torch.stack(part) for part in zip(*(views[index] for index in range(2)), strict=True))
    with torch.no_grad():
        assert again(images, labels)["loss"].item() == pytest.approx(summary.val_losses[-1], rel=1e-5)
    best = int(np.argmin(summary.val_losses))
    expected = (tmp_path / "a" / ("last" if best == 2 else "best")).with_suffix(".safetensors").read_bytes()
    assert summary.path.read_bytes() == expected


def test_half_precision_learns_too(network, tmp_path, monkeypatch):
    monkeypatch.setattr(half, "_cpu_has_bfloat16", lambda: True)
    forward, dtypes = AffinityNetwork.forward, set()

    def observed(self, images):
        output = forward(self, images)
        dtypes.add(output.dtype)
        return output

    monkeypatch.setattr(AffinityNetwork, "forward", observed)
    settings = config(epochs=6, precision="bf16")
    summary = fit_affinity(network, boxes(8), settings, val=boxes(2), device="cpu", out=tmp_path)
    assert dtypes == {torch.bfloat16}
    assert summary.losses[-1] < 0.8 * summary.losses[0]


SHARE = """
import sys
import numpy as np
import torch
from ppl.refine.affinity import AffinityConfig, AffinityNetwork, fit_affinity

out, config = sys.argv[1], AffinityConfig.model_validate_json(sys.argv[2])
torch.manual_seed(0)
network = AffinityNetwork("test_resnet")
pair = np.load(sys.argv[3])
pairs = [(pair["image"], pair["labels"])] * 8
fit_affinity(network, pairs, config, val=pairs[:2], device="cpu", out=out)
torch.distributed.destroy_process_group()
"""


def test_two_processes_train_as_one_with_twice_the_batch(network, tmp_path):
    labels = np.zeros((64, 64), np.uint8)
    labels[16:48, 16:48] = 1  # the mirrored view is the same, so that each process has the same batches
    image = np.where(labels[..., None] == 1, np.uint8(220), np.uint8(40)).repeat(3, axis=2)
    np.savez(tmp_path / "pair.npz", image=image, labels=labels)
    two = [str(tmp_path / "two"), config(batch_size=2).model_dump_json(), str(tmp_path / "pair.npz")]
    for code, _, error in run_ranks(SHARE, *two):
        assert code == 0, error
    pairs = [(image, labels)] * 8
    one = fit_affinity(network, pairs, config(batch_size=4), val=pairs[:2], device="cpu", out=tmp_path / "one")
    lines = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == pytest.approx(one.losses, rel=1e-4)
    assert [line["val_loss"] for line in lines] == pytest.approx(one.val_losses, rel=1e-4)
    found, expected = (load_file(tmp_path / name / "affinity.safetensors") for name in ("two", "one"))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)


def test_losses_depend_on_the_seed_alone(network, tmp_path):
    state = torch.get_rng_state()
    first = fit_affinity(network, boxes(4), config(epochs=1, scale=(0.5, 1.5)), device="cpu", out=tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    second = fit_affinity(network, boxes(4), config(epochs=1, scale=(0.5, 1.5)), device="cpu", out=tmp_path / "b")
    third = fit_affinity(
        network, boxes(4), config(epochs=1, scale=(0.5, 1.5), seed=1), device="cpu", out=tmp_path / "c"
    )
    assert first.losses == second.losses != third.losses


def test_the_state_of_other_settings_is_refused(network, tmp_path):
    fit_affinity(network, boxes(2), config(epochs=1), out=tmp_path)
    with pytest.raises(PPLValueError, match="other settings"):
        fit_affinity(network, boxes(2), config(epochs=1, lr=0.5), out=tmp_path)


def test_pairs_are_read_from_files(network, tmp_path):
    for index, (image, labels) in enumerate(boxes(3)):
        Image.fromarray(image).save(tmp_path / f"{index}.jpg", quality=95)
        if index:
            write_mask(tmp_path / "labels" / f"{index}.png", labels)
    pairs = LabelledImages((path, tmp_path / "labels" / f"{path.stem}.png") for path in sorted(tmp_path.glob("*.jpg")))
    assert len(pairs) == 2  # the first image has no label map
    np.testing.assert_array_equal(pairs[1][1], boxes(3)[2][1])
    assert fit_affinity(network, pairs, config(epochs=1, num_workers=1), out=tmp_path / "out").path.is_file()


def test_cams_become_masks_in_two_calls(network, tmp_path):
    jobs = []
    for index, (image, labels) in enumerate(boxes(4)):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
        np.savez(tmp_path / f"{index}.npz", maps=(labels == 1)[None].astype(np.float32), classes=np.array([2]))
        jobs.append(RefineJob(str(index), tmp_path / f"{index}.png", tmp_path / f"{index}.npz"))
    jobs.append(RefineJob("gone", tmp_path / "gone.png", tmp_path / "gone.npz"))
    summary = learn_affinity(jobs, tmp_path / "affinity", network, config(epochs=1), refiners="guided_filter: 2")
    assert [file.image_id for file in summary.bad] == ["gone"]
    walk = {"random_walk": {"affinity": str(summary.path), "num_steps": 16}}
    done = refine_folder(jobs, tmp_path / "masks", walk)
    assert done.done == 4 and [file.image_id for file in done.bad] == ["gone"]


def test_a_folder_without_usable_images_is_an_error(network, tmp_path):
    job = RefineJob("gone", tmp_path / "gone.png", tmp_path / "gone.npz")
    with pytest.raises(PPLValueError, match=r"none of the 1 images could be labelled; gone: .*gone\.png"):
        learn_affinity([job], tmp_path / "out", network, config())


def test_views_keep_image_and_labels_together():
    labels = torch.arange(30 * 40).view(30, 40) % 200
    image = (labels.float() / 200).expand(3, 30, 40)
    for seed in range(8):
        chance = torch.Generator().manual_seed(seed)
        view, view_labels = random_view(
            image, labels, crop=34, scale=(1, 1), fill=torch.full((3, 1, 1), 0.25), generator=chance
        )
        known = view_labels != 255
        assert known.sum() == 30 * 34  # all rows, and as many columns as fit
        torch.testing.assert_close(view[0][known] * 200, view_labels[known].float())
        assert (view[:, ~known] == 0.25).all()


def test_views_change_with_the_epoch_alone():
    views = RandomViews(boxes(1), crop=48, scale=(0.5, 1.5), fill=torch.zeros(3, 1, 1), seed=0)
    first, again = views[0, 0], views[0, 0]
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], views[1, 0][0])


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([], "no images"),
        ([(np.zeros((3, 9, 9), np.uint8), np.zeros((9, 9), np.uint8))], "pair 0"),
        ([(np.zeros((9, 9, 3), np.float32), np.zeros((9, 9), np.uint8))], "float32"),
        ([(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 8), np.uint8))], r"\(9, 8\)"),
    ],
)
def test_bad_pairs_are_named(network, tmp_path, pairs, words):
    with pytest.raises(PPLValueError, match=words):
        fit_affinity(network, pairs, config(), out=tmp_path)


def test_unknown_keys_are_refused():
    with pytest.raises(PPLValueError, match="learning_rate"):
        AffinityConfig(learning_rate=1)


def test_the_default_crop_fits_the_images():
    def images(*sides):
        return [(np.zeros((side, 40, 3), np.uint8), np.zeros((side, 40), np.uint8)) for side in sides]

    assert usual_side(images(200, 210, 1000)) == 224
    assert usual_side(images(*[900] * 60)) == 512
    assert usual_side(images(32)) == 64  # the longer side is 40


def labelled(folder, name, value):
    folder.mkdir(exist_ok=True)
    image, labels = boxes(1)[0]
    Image.fromarray(image).save(folder / "0.png")
    write_mask(folder / f"{name}.png", np.where(labels == 1, value, labels).astype(np.uint8))
    return LabelledImages([(folder / "0.png", folder / f"{name}.png")])


def test_other_labels_or_backbone_weights_are_another_run(network, tmp_path):
    settings = config(epochs=1)
    first, other = (labelled(tmp_path / "data", name, value) for name, value in (("one", 1), ("two", 0)))
    fit_affinity(network, first, settings, out=tmp_path / "out")
    with pytest.raises(PPLValueError, match="other settings"):
        fit_affinity(network, other, settings, out=tmp_path / "out")
    with torch.no_grad():
        next(network.backbone.parameters()).add_(1)
    with pytest.raises(PPLValueError, match="other settings"):
        fit_affinity(network, first, settings, out=tmp_path / "out")


def test_labels_of_other_cams_are_another_run(network, tmp_path):
    image, labels = boxes(1)[0]
    Image.fromarray(image).save(tmp_path / "a.png")
    job = RefineJob("a", tmp_path / "a.png", tmp_path / "a.npz")
    for inside in (1, 0):
        np.savez(job.cams, maps=(labels == inside)[None].astype(np.float32), classes=np.zeros(1))
        if inside == 1:
            learn_affinity([job], tmp_path / "out", network, config(epochs=1), refiners=None)
    before = read_mask(tmp_path / "out" / "labels" / "a.png")
    with pytest.raises(PPLValueError, match="other settings: training images"):
        learn_affinity([job], tmp_path / "out", network, config(epochs=1), refiners=None)
    assert (read_mask(tmp_path / "out" / "labels" / "a.png") != before).any()


def test_labels_without_a_confident_pair_are_an_error(network, tmp_path):
    unsure = np.full((48, 48), 255, np.uint8)
    with pytest.raises(PPLValueError, match="no two confident cells"):
        fit_affinity(network, [(np.zeros((48, 48, 3), np.uint8), unsure)], config(), out=tmp_path)
    assert not (tmp_path / "affinity.safetensors").exists()


@pytest.mark.parametrize("scale", [(0, 0), (-1, -0.5), (2, 0.5), (1, float("inf"))])
def test_impossible_scales_are_refused(scale):
    with pytest.raises(ValueError, match="scale"):
        AffinityConfig(scale=scale)
