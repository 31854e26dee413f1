from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from ppl.data import Sample, TaggedImages
from ppl.errors import PPLFileNotFoundError, PPLValueError
from ppl.io import write_mask
from ppl.io.confidence import confidence_file, write_confidence
from ppl.metrics import ConfusionMatrix
from ppl.segment import SegmentConfig, create_segmenter, fit, load, predict, with_masks
from ppl.segment.samples import train_batches
from ppl.segment.task import _class_loss

CLASSES = ("red", "blue")
COLOURS = np.array([[120, 120, 120], [220, 40, 40], [40, 40, 220]], np.uint8)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Coloured squares on grey, with exact masks and a border of ignored pixels."""
    root = tmp_path_factory.mktemp("squares")
    random = np.random.default_rng(0)
    samples = []
    for number in range(12):
        mask = np.zeros((56, 72), np.uint8)
        top, left = random.integers(0, 24, 2)
        mask[top : top + 28, left : left + 28] = 1 + number % 2
        noise = random.normal(0, 8, (*mask.shape, 3))
        Image.fromarray((COLOURS[mask] + noise).clip(0, 255).astype(np.uint8)).save(root / f"{number}.png")
        mask[:, -2:] = 255
        (root / "masks").mkdir(exist_ok=True)
        write_mask(root / "masks" / f"{number}.png", mask)
        samples.append(Sample(str(number), root / f"{number}.png", (number % 2,), root / "masks" / f"{number}.png"))
    return TaggedImages(CLASSES, tuple(samples), "squares")


def make_model():
    torch.manual_seed(0)
    return create_segmenter("test_resnet", 2, decoder="fpn", pretrained=False)


def make_config(**options):
    defaults = {"epochs": 2, "batch_size": 4, "crop": 64, "num_workers": 0, "lr": 1e-3, "scale": (0.8, 1.2)}
    return SegmentConfig(**{**defaults, **options})


def lines(out):
    kept = ("epoch", "loss", "lr", "val_mIoU")
    return [{key: json.loads(line)[key] for key in kept} for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_network_learns_masks_and_its_score_is_that_of_its_predictions(squares, tmp_path):
    summary = fit(make_model(), squares[:8], squares[8:], make_config(epochs=10, batch_size=2, lr=2e-3), tmp_path)
    assert summary.best_score > 0.8
    model = load(summary.best_path)
    confusion = ConfusionMatrix(3)
    for sample in squares[8:]:
        confusion.update(sample.read_mask(), predict(model, [sample.image], flip=False)[0].mask)
    assert confusion.compute()["miou"] == pytest.approx(summary.best_score, abs=1e-6)


def test_the_model_left_behind_is_the_last_checkpoint(squares, tmp_path):
    model = make_model()
    summary = fit(model, squares, None, make_config(epochs=1, ema_decay=0.9), tmp_path)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(image), load(summary.last_path)(image))
    assert not model.training and model.classes == CLASSES


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_stopped_goes_on_to_the_same_curve(squares, tmp_path, workers, monkeypatch):
    config = make_config(epochs=3, num_workers=workers, accumulate=2, save_every=1)
    fit(make_model(), squares, squares[:2], config, tmp_path / "whole")

    from ppl.engine import Trainer

    steps = []
    original = Trainer.step

    def stop_in_the_second_epoch(self, *arguments):
        if len(steps) == 3:
            raise KeyboardInterrupt
        steps.append(1)
        return original(self, *arguments)

    monkeypatch.setattr(Trainer, "step", stop_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        fit(make_model(), squares, squares[:2], config, tmp_path / "stopped")
    monkeypatch.undo()
    fit(make_model(), squares, squares[:2], config, tmp_path / "stopped")
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")
    states = [load(tmp_path / name / "last.safetensors").state_dict() for name in ("stopped", "whole")]
    assert all(torch.equal(states[0][key], value) for key, value in states[1].items())


def test_masks_of_ignored_pixels_train_nothing_and_give_no_nan(squares, tmp_path):
    for number in range(len(squares)):
        write_mask(tmp_path / "ignored" / f"{number}.png", np.full((56, 72), 255, np.uint8))
    model = make_model()
    before = {name: value.clone() for name, value in model.named_parameters()}
    summary = fit(
        model, with_masks(squares, tmp_path / "ignored"), None, make_config(epochs=1, weight_decay=0), tmp_path
    )
    assert summary.loss == 0
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_frozen_statistics_of_the_encoder_stay_and_the_decoder_learns_its_own(squares, tmp_path):
    model = make_model()
    encoder = {name: value.clone() for name, value in model.encoder.named_buffers() if "running" in name}
    fit(model, squares, None, make_config(epochs=1, batch_norm="frozen"), tmp_path)
    assert all(torch.equal(value, encoder[name]) for name, value in model.encoder.named_buffers() if name in encoder)


def test_the_decoder_has_a_higher_rate_than_the_encoder(squares, tmp_path):
    config = make_config(epochs=1, head_lr_mult=5.0, optimizer="sgd", lr=0.01)
    fit(make_model(), squares, None, config, tmp_path)
    from ppl.engine.state_file import read_state

    groups = read_state(tmp_path)["optimizer"]["param_groups"]
    rates = {group["name"]: group["initial_lr"] for group in groups}
    assert rates["head.weight"] == pytest.approx(5 * rates["backbone.weight"])
    assert sum(len(group["params"]) for group in groups) == len(list(make_model().parameters()))


def test_the_class_loss_is_the_multilabel_loss_of_the_classes_in_the_mask():
    torch.manual_seed(0)
    logits, masks = torch.randn(3, 4, 5, 6), torch.randint(0, 4, (3, 5, 6))
    masks[1] = 255
    masks[2] = 0
    masks[2, 0, 0] = 3
    present = torch.zeros(3, 3)
    for row in range(3):
        for label in (1, 2, 3):
            present[row, label - 1] = float((masks[row] == label).any())
    expected = F.binary_cross_entropy_with_logits(logits.mean((2, 3))[:, 1:], present)
    torch.testing.assert_close(_class_loss(logits, masks), expected)


def test_masks_of_a_folder_replace_those_of_the_data_set(squares, tmp_path):
    for number in (3, 5):
        write_mask(tmp_path / f"{number}.png", np.full((56, 72), 1, np.uint8))
    masked = with_masks(squares, tmp_path)
    assert masked.image_ids == ("3", "5") and (masked[0].read_mask() == 1).all()
    with pytest.raises(PPLFileNotFoundError, match=r"has no mask of any of the 12 images of squares, such as 0\.png"):
        with_masks(squares, tmp_path / "empty")


def test_faults_are_told_before_training(squares, tmp_path):
    with pytest.raises(PPLValueError, match="the network has 3 classes, squares has 2"):
        fit(create_segmenter("test_resnet", 3, decoder="fpn", pretrained=False), squares, None, make_config(), tmp_path)
    bare = replace(squares, samples=(replace(squares[0], mask=None), *squares.samples[1:]))
    with pytest.raises(PPLValueError, match="1 of 12 images of squares have no mask, such as '0'"):
        fit(make_model(), bare, None, make_config(), tmp_path)
    fit(make_model(), squares, None, make_config(epochs=1), tmp_path)
    with pytest.raises(PPLValueError, match=r"lr \(0\.001 -> 0\.01\)"):
        fit(make_model(), squares, None, make_config(epochs=1, lr=0.01), tmp_path)


def test_a_mask_of_another_size_is_named(squares, tmp_path):
    write_mask(tmp_path / "0.png", np.zeros((10, 10), np.uint8))
    with pytest.raises(PPLValueError, match="the mask of image '0' is"):
        fit(make_model(), with_masks(squares, tmp_path), None, make_config(batch_size=1), tmp_path / "run")


def test_a_mask_of_an_unknown_class_is_named(squares, tmp_path):
    write_mask(tmp_path / "0.png", np.full((56, 72), 3, np.uint8))
    with pytest.raises(PPLValueError, match="the mask of image '0' holds index 3, but there are 2 classes"):
        fit(make_model(), with_masks(squares, tmp_path), None, make_config(batch_size=1), tmp_path / "run")


@pytest.mark.parametrize("decoder", ["deeplabv3plus", "upernet"])
def test_batches_of_one_image_train_under_decoders_that_pool_to_one_cell(squares, tmp_path, decoder):
    model = create_segmenter("test_resnet", 2, decoder=decoder, pretrained=False)
    summary = fit(model, squares[:2], None, make_config(epochs=1, batch_size=1), tmp_path)
    assert np.isfinite(summary.loss)
    assert all(torch.isfinite(buffer).all() for buffer in model.buffers())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.network.decoder.modules())


def test_fewer_images_than_a_batch_make_one_batch(squares, tmp_path):
    assert fit(make_model(), squares[:3], None, make_config(epochs=2, batch_size=16), tmp_path).steps == 2


def test_iterations_are_rounded_up_to_whole_epochs(squares, tmp_path):
    config = make_config(batch_size=2, accumulate=2, iterations=5)  # two steps per epoch
    summary = fit(make_model(), squares[:8], None, config, tmp_path)
    assert (summary.epochs, summary.steps) == (3, 6)
    assert lines(tmp_path)[-1]["lr"] == pytest.approx(1e-3 * (1 / 6) ** 0.9)


def test_a_run_does_not_continue_on_other_masks(squares, tmp_path):
    images = with_masks(squares[:4], shutil.copytree(squares[0].mask.parent, tmp_path / "masks"))
    fit(make_model(), images, None, make_config(epochs=1), tmp_path / "run")
    renamed = replace(images, classes=("red", "green"))
    with pytest.raises(PPLValueError, match="other settings: training images"):
        fit(make_model(), renamed, None, make_config(epochs=1), tmp_path / "run")
    write_mask(tmp_path / "masks" / "0.png", np.zeros((56, 72), np.uint8))
    with pytest.raises(PPLValueError, match="other settings: training images"):
        fit(make_model(), images, None, make_config(epochs=1), tmp_path / "run")


@pytest.fixture
def rated(squares, tmp_path):
    """The squares, whose labels 0, 1 and 2 have confidence 0.2, 0.4 and 1."""
    for sample in squares:
        mask = sample.read_mask()
        write_mask(tmp_path / "rated" / f"{sample.image_id}.png", mask)
        confidence = np.array([0.2, 0.4, 1.0])[np.minimum(mask, 2)]
        write_confidence(tmp_path / "rated" / f"{sample.image_id}.png", np.stack([confidence, 0 * confidence]))
    return with_masks(squares, tmp_path / "rated")


@pytest.mark.parametrize(
    ("options", "kept", "weights"),
    [
        ({}, {0, 1, 2}, {1.0}),
        ({"confidence": True}, {0, 1, 2}, {0.2, 0.4, 1.0}),
        ({"min_confidence": 0.4}, {1, 2}, {1.0}),
        ({"min_confidence": 0.5, "confidence": True}, {2}, {1.0}),
    ],
)
def test_weights_and_labels_of_crops_follow_the_confidence(rated, options, kept, weights):
    config = make_config(batch_size=12, **options)
    batch = next(train_batches(rated, config, make_model().data_config).epoch(0))
    used = batch.masks != 255
    assert set(batch.masks[used].tolist()) == kept
    assert {round(value, 6) for value in batch.weights[used].tolist()} == weights
    if weights == {0.2, 0.4, 1.0}:
        torch.testing.assert_close(batch.weights[used], torch.tensor([0.2, 0.4, 1.0])[batch.masks[used]])


def test_confidence_decides_what_a_network_learns(rated, tmp_path):
    losses = {}
    for value in (0.0, 1.0):
        images = rated[:4]
        for sample in images:
            shape = sample.read_mask().shape
            write_confidence(sample.mask, np.full((1, *shape), value))
        config = make_config(epochs=1, confidence=True)
        losses[value] = fit(make_model(), images, None, config, tmp_path / str(value)).loss
    plain = fit(make_model(), images, None, make_config(epochs=1), tmp_path / "plain").loss
    assert losses == {0.0: 0.0, 1.0: plain}


def test_missing_broken_and_other_confidence_is_told(rated, tmp_path):
    config = make_config(epochs=1, min_confidence=0.9, batch_size=1)
    confidence_file(rated[0].mask).unlink()
    with pytest.raises(PPLValueError, match=r"1 of 12 images of squares have no file .* such as 0\.npz"):
        fit(make_model(), rated, None, config, tmp_path / "run")
    write_confidence(rated[0].mask, np.ones((1, 4, 4)))
    with pytest.raises(PPLValueError, match=r"0\.npz is \(4, 4\), and its mask is \(56, 72\)"):
        fit(make_model(), rated[:1], None, config, tmp_path / "run")
    confidence_file(rated[0].mask).write_bytes(b"no")
    with pytest.raises(PPLValueError, match=r"0\.npz holds no confidence"):
        fit(make_model(), rated[:1], None, config, tmp_path / "broken")
