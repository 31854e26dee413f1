from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ppl.data import open_dataset
from ppl.engine.random_state import seeded
from ppl.errors import PPLValueError
from ppl.io import read_mask, write_mask
from ppl.io.confidence import read_confidence
from ppl.pipeline import RunFolder, check_recipe, predict_folder, run_recipe, segment_dataset
from ppl.segment import SegmentConfig, create_segmenter, fit, load, predict, with_masks

SEGMENT = {"decoder": "fpn", "epochs": 1, "batch_size": 4, "crop": 64, "num_workers": 0}


@pytest.fixture(scope="module")
def run(creatures, tiny_recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("segmented") / "run"
    recipe = tiny_recipe(creatures, segment=SEGMENT)
    return recipe, out, run_recipe(recipe, out, progress=False)


def test_a_run_ends_with_a_network_that_starts_from_the_classifier_and_segments_without_tags(run, creatures):
    recipe, out, result = run
    folder = RunFolder(out)
    network = load(folder.segmenter)
    assert network.config["encoder"] == recipe.model.backbone
    val = open_dataset(creatures, "val")
    assert {path.stem for path in folder.segmented("val").glob("*.png")} == set(val.image_ids)
    for sample in val:
        expected = predict(network, [sample.image])[0].mask.numpy()
        assert (read_mask(folder.segmented("val") / f"{sample.image_id}.png") == expected).all()
    scores = result.scores["progressive"]["val"]
    assert 0 <= scores["segmenter mIoU"] <= 1
    assert "segmenter" in folder.read_manifest()["per_class"]["val"]


def test_the_network_is_trained_on_the_refined_masks_of_the_training_images(run, creatures):
    _, out, _ = run
    folder = RunFolder(out)
    train = open_dataset(creatures, "train")
    assert {path.stem for path in folder.refined("train").glob("*.png")} == set(train.image_ids)
    assert folder.read_manifest()["steps"]["segment"]["images"] == len(train)


def test_a_finished_network_is_not_trained_again_and_other_settings_train_another(run, tmp_path):
    recipe, out, _ = run
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    before = RunFolder(copy).segmenter.stat().st_mtime_ns
    lines = []
    run_recipe(recipe, copy, ("segment",), progress=False, log=lines.append)
    assert RunFolder(copy).segmenter.stat().st_mtime_ns == before
    assert lines == ["progressive: 4 images of val segmented (0 new)"]
    other = recipe.model_copy(update={"segment": recipe.segment.model_copy(update={"seed": 7})})
    run_recipe(other, copy, ("segment",), progress=False, log=lines.append)
    assert "(4 new)" in lines[-1] and RunFolder(copy).segmenter.stat().st_mtime_ns != before


def test_a_finished_network_goes_on_for_more_epochs_and_a_network_of_fewer_epochs_is_new(run, tmp_path):
    recipe, out, _ = run
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    folder = RunFolder(copy)

    def losses(**changes):
        segment = recipe.segment.model_copy(update=changes)
        run_recipe(recipe.model_copy(update={"segment": segment}), copy, ("segment",), progress=False)
        return [json.loads(line)["loss"] for line in (folder.segmenter.parent / "metrics.jsonl").open()]

    first = losses()
    longer = losses(epochs=2)
    assert len(longer) == 2 and longer[:1] == first
    network = folder.segmenter.read_bytes()
    assert losses(epochs=2) == longer and folder.segmenter.read_bytes() == network
    assert losses(epochs=1) == first  # the same seed
    assert losses(epochs=2, seed=7)[0] != first[0]


def test_an_encoder_that_cannot_be_dilated_is_told_before_training(creatures, tiny_recipe, tmp_path):
    recipe = tiny_recipe(creatures, segment=SEGMENT | {"encoder": "pvt_v2_b0", "decoder": "deeplabv3plus"})
    with pytest.raises(PPLValueError, match=r"'pvt_v2_b0' .*decoder='fpn'"):
        run_recipe(recipe, tmp_path, progress=False)
    assert not RunFolder(tmp_path).weights("last").exists()


def test_pictures_of_any_folder_are_segmented_once_and_bad_ones_are_named(run, creatures, tmp_path):
    _, out, _ = run
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, size in enumerate([(50, 70), (64, 64)]):
        noise = np.random.default_rng(number).integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(noise).save(pictures / f"a & b {number}.png")
    (pictures / "broken.jpg").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="broken"):
        summary = predict_folder(out, pictures, tmp_path / "out", device="cpu", progress=False)
    assert (summary.done, summary.skipped, [bad.image_id for bad in summary.bad]) == (2, 0, ["broken"])
    assert read_mask(tmp_path / "out" / "masks" / "a & b 0.png").shape == (50, 70)
    assert Image.open(tmp_path / "out" / "overlays" / "a & b 0.jpg").size == (70, 50)
    assert tuple((tmp_path / "out" / "masks" / "classes.txt").read_text().split()) == open_dataset(creatures).classes
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "a &amp; b 0" in page and "Predictions of 2 pictures" in page
    (pictures / "broken.jpg").unlink()
    again = predict_folder(out, pictures, tmp_path / "out", device="cpu", progress=False)
    assert (again.done, again.skipped) == (0, 2)
    single = predict_folder(out, pictures / "a & b 1.png", tmp_path / "one", device="cpu", progress=False)
    assert single.done == 1


def test_pictures_of_12_bits_are_segmented_by_their_range(run, tmp_path):
    _, out, _ = run
    (tmp_path / "pictures").mkdir()
    values = np.random.default_rng(0).integers(0, 4096, (48, 64)).astype(np.uint16)
    values[0, 0] = 4095
    Image.fromarray(values).save(tmp_path / "pictures" / "a.png")
    settings = {"device": "cpu", "progress": False}
    predict_folder(out, tmp_path / "pictures", tmp_path / "out", value_range=4095, **settings)
    bright = Image.fromarray(np.round(values * (255 / 4095)).astype(np.uint8)).convert("RGB")
    expected = predict(load(RunFolder(out).segmenter), [bright])[0].mask.numpy()
    assert (read_mask(tmp_path / "out" / "masks" / "a.png") == expected).all()


def test_results_do_not_go_into_the_folder_of_the_pictures(run, creatures):
    _, out, _ = run
    with pytest.raises(PPLValueError, match="would be taken for pictures"):
        predict_folder(out, creatures / "images", creatures / "images" / "out", progress=False)


def test_masks_of_any_origin_train_a_network(creatures, tmp_path):
    train = open_dataset(creatures, "train")
    drawn = [np.ones((64, 64), np.uint8)] * 5 + [np.ones((9, 9), np.uint8), np.full((64, 64), 200, np.uint8)]
    for sample, mask in zip(train, drawn, strict=False):
        write_mask(tmp_path / "drawn" / f"{sample.image_id}.png", mask)
    lines: list[str] = []
    overrides = [f"segment.{key}={value}" for key, value in SEGMENT.items()]
    overrides += ["segment.encoder=test_resnet", "segment.pretrained=false", "device=cpu"]
    with pytest.warns(UserWarning, match="left out"):
        path = segment_dataset(
            creatures, tmp_path / "drawn", tmp_path / "out", overrides, progress=False, log=lines.append
        )
    assert load(path).classes == train.classes
    assert lines[-1].startswith("trained on 5 of 8 images for 1 epochs")
    small, unknown = (next(line for line in lines if train[index].image_id in line) for index in (5, 6))
    assert "(9, 9)" in small and "holds index 200, but there are" in unknown
    with pytest.raises(PPLValueError, match=r"--set segment\.encoder="):
        segment_dataset(creatures, tmp_path / "drawn", tmp_path / "out", progress=False)
    bare = shutil.copytree(creatures, tmp_path / "bare")
    shutil.rmtree(bare / "masks")
    with pytest.raises(PPLValueError, match="add --masks FOLDER"):
        segment_dataset(bare, None, tmp_path / "none", ["segment.encoder=test_resnet"], progress=False)


def test_a_second_round_learns_from_predictions_cut_to_the_tags_and_goes_on_after_a_stop(
    creatures, tmp_path, monkeypatch
):
    overrides = [f"segment.{key}={value}" for key, value in SEGMENT.items()]
    overrides += ["segment.encoder=test_resnet", "segment.pretrained=false", "segment.rounds=2", "device=cpu"]
    train = open_dataset(creatures, "train")
    for number, sample in enumerate(train):
        mask = np.full((64, 64), 255 if number % 2 else train[0].labels[0] + 1, np.uint8)  # half of them teach nothing
        write_mask(tmp_path / "drawn" / f"{sample.image_id}.png", mask)
    written = []

    def stop_at_the_fourth(path, mask):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path.stem)
        write_mask(path, mask)

    monkeypatch.setattr("ppl.pipeline.rounds.write_mask", stop_at_the_fourth)
    arguments = (creatures, tmp_path / "drawn", tmp_path / "out", overrides)
    with pytest.raises(KeyboardInterrupt):
        segment_dataset(*arguments, progress=False)
    first = tmp_path / "out" / "round1"
    before = {path.stem: path.stat().st_mtime_ns for path in (first / "masks").glob("*.png")}
    assert set(before) == set(written) and not (tmp_path / "out" / "last.safetensors").exists()
    monkeypatch.undo()
    path = segment_dataset(*arguments, progress=False)

    masks = {path.stem: path for path in (first / "masks").glob("*.png")}
    assert set(masks) == set(train.image_ids)
    assert all(masks[name].stat().st_mtime_ns == time for name, time in before.items())
    network = load(first / "last.safetensors")
    for sample in train:
        expected = predict(network, [sample.image], [sample.labels])[0].mask.numpy()
        assert (read_mask(masks[sample.image_id]) == expected).all()
    config = SegmentConfig(**SEGMENT, pretrained=False, rounds=2)
    with seeded(0):
        model = create_segmenter("test_resnet", len(train.classes), decoder="fpn", pretrained=False)
    fit(model, with_masks(train, first / "masks"), None, config, tmp_path / "alone", device="cpu")
    state = load(path).state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    with pytest.raises(PPLValueError, match=r"rounds \(2 -> 3\)"):
        segment_dataset(*arguments[:3], [*overrides, "segment.rounds=3"], progress=False)


def test_a_run_keeps_the_confidence_of_its_training_masks_if_the_segmenter_asks(run, tmp_path):
    recipe, out, _ = run
    copy = shutil.copytree(out, tmp_path / "copy")
    folder = RunFolder(copy)
    asked = recipe.segment.model_copy(update={"confidence": True, "min_confidence": 0.3, "rounds": 2})
    run_recipe(recipe.model_copy(update={"segment": asked}), copy, ("segment",), progress=False)
    for masks in (folder.refined("train"), folder.segmenter.parent / "round1" / "masks"):
        for mask in masks.glob("*.png"):
            assert read_confidence(mask).shape == read_mask(mask).shape
        assert len(list(masks.glob("*.npz"))) == 8
    assert not list(folder.refined("val").glob("*.npz"))
    with pytest.raises(PPLValueError, match="need refined masks"):
        check_recipe({"data": {"root": "x"}, "segment": {"confidence": True}, "refine": []})
