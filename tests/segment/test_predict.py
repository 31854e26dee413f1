from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode

from ppl.errors import PPLFileNotFoundError, PPLTypeError, PPLValueError
from ppl.io import read_mask
from ppl.segment import SegmentResult, create_segmenter, iter_predict, predict
from ppl.segment.predict import _colours


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_segmenter("test_resnet", 3, decoder="fpn", pretrained=False).eval()


def module():
    import sys

    return sys.modules["ppl.segment.predict"]


def test_probabilities_are_the_softmax_of_the_networks_logits(model):
    images = torch.randn(3, 3, 40, 56)
    results = predict(model, images, flip=False, batch_size=2)
    with torch.no_grad():
        expected = model(images).softmax(dim=1)
    for result, probs in zip(results, expected, strict=True):
        torch.testing.assert_close(result.probs, probs)
        assert torch.equal(result.mask, probs.argmax(0).to(torch.uint8))


def test_images_of_mixed_sizes_come_back_in_order_and_batches_change_nothing(model):
    torch.manual_seed(1)
    images = [torch.randn(3, *size) for size in [(40, 56), (40, 56), (33, 70), (40, 56), (64, 64), (64, 64)]]
    single, batched = predict(model, images, batch_size=1), predict(model, images, batch_size=4)
    assert [result.size for result in batched] == [tuple(image.shape[1:]) for image in images]
    for one, other in zip(single, batched, strict=True):
        torch.testing.assert_close(one.probs, other.probs)


def test_a_thread_that_ends_leaves_the_network_in_eval_mode_for_another_that_still_predicts():
    model = create_segmenter("test_resnet", 3, decoder="fpn", pretrained=False)
    images = torch.randn(2, 3, 40, 56)
    expected = predict(model.eval(), images)
    first_inside, second_inside, first_done = threading.Event(), threading.Event(), threading.Event()

    def let_the_first_end_while_the_second_is_inside(*_):
        if threading.current_thread() is threading.main_thread():
            second_inside.set()
            first_done.wait(30)
        else:
            first_inside.set()
            second_inside.wait(30)

    model.train().encoder.register_forward_pre_hook(let_the_first_end_while_the_second_is_inside)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(predict, model, images[:1])
        first.add_done_callback(lambda _: first_done.set())
        first_inside.wait(30)
        second = predict(model, images[1:])
        for result, wanted in zip(first.result() + second, expected, strict=True):
            torch.testing.assert_close(result.probs, wanted.probs)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (9, 5)])
def test_pictures_smaller_than_the_stride_keep_their_size(model, size):
    result = predict(model, [torch.randn(3, *size)], scales=(1.0, 0.5))[0]
    assert result.size == size and torch.isfinite(result.probs).all()


def test_known_tags_leave_only_their_classes_and_the_background(model):
    image = torch.randn(1, 3, 40, 40)
    free, tagged, none = (predict(model, image, labels)[0] for labels in (None, [[1]], [[]]))
    assert set(tagged.mask.unique().tolist()) <= {0, 2}
    kept = free.probs[[0, 2]]
    torch.testing.assert_close(tagged.probs[[0, 2]], kept / kept.sum(0))
    assert not none.mask.any()


def test_pictures_and_paths_are_normalised_as_the_encoder_wants(model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tensor = (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - 0.5) / 0.5
    by_tensor, by_picture, by_path = predict(model, [tensor, Image.fromarray(pixels), tmp_path / "a.png"])
    torch.testing.assert_close(by_picture.probs, by_tensor.probs)
    torch.testing.assert_close(by_path.probs, by_tensor.probs)
    assert (_colours(tensor, model.data_config) == pixels).all()


def test_large_images_are_predicted_in_windows_and_keep_their_probabilities_if_those_fit(model, monkeypatch):
    monkeypatch.setattr(module(), "_WHOLE_PIXELS", 64 * 64)
    monkeypatch.setattr(module(), "_WINDOW", 64)
    monkeypatch.setattr(module(), "_STEP", 32)
    image = torch.randn(1, 3, 100, 150)
    windowed = predict(model, image)[0]
    assert windowed.probs.shape == (4, 100, 150)
    torch.testing.assert_close(windowed.probs.sum(0), torch.ones(100, 150))
    monkeypatch.setattr(module(), "_KEPT_BYTES", 0)
    mask_alone = predict(model, image)[0]
    assert mask_alone.probs is None and torch.equal(mask_alone.mask, windowed.mask)
    with pytest.raises(PPLValueError, match="crf='deeplab' needs all probabilities"):
        predict(model, image, crf="deeplab")


def test_a_large_picture_keeps_no_floats_of_its_size(model, monkeypatch):
    monkeypatch.setattr(module(), "_WHOLE_PIXELS", 64 * 64)
    monkeypatch.setattr(module(), "_WINDOW", 64)
    monkeypatch.setattr(module(), "_STEP", 32)
    side = 400
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8))
    largest = 0

    class Sizes(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.is_floating_point():
                largest = max(largest, math.prod(result.shape[-2:]))
            return result

    with Sizes():
        alone = next(iter_predict(model, [picture], probs=False))
    assert 0 < largest < side * side
    assert torch.equal(alone.mask, predict(model, [picture])[0].mask)


def test_masks_alone_are_the_same_masks(model, monkeypatch):
    image = torch.randn(1, 3, 100, 150)
    whole = predict(model, image)[0]
    alone = next(iter_predict(model, image, probs=False))
    assert alone.probs is None and torch.equal(alone.mask, whole.mask)
    refined = next(iter_predict(model, image, crf="deeplab", probs=False))
    assert torch.equal(refined.mask, predict(model, image, crf="deeplab")[0].mask)
    monkeypatch.setattr(module(), "_WHOLE_PIXELS", 64 * 64)
    windowed = next(iter_predict(model, image, probs=False))
    assert windowed.probs is None and torch.equal(windowed.mask, predict(model, image)[0].mask)


def test_a_crf_refines_the_probabilities(model):
    image = torch.randn(1, 3, 40, 40)
    plain, refined = predict(model, image)[0], predict(model, image, crf="deeplab")[0]
    assert not torch.allclose(plain.probs, refined.probs)
    torch.testing.assert_close(refined.probs.sum(0), torch.ones(40, 40))


def test_the_stream_reads_only_a_few_images_ahead(model):
    read = []

    def images():
        for number in range(50):
            read.append(number)
            yield torch.randn(3, 32, 32)

    next(iter_predict(model, images()))
    assert len(read) <= 8


def test_the_models_mode_is_restored_also_after_an_error(model):
    model.train()
    try:
        predict(model, torch.randn(1, 3, 32, 32))
        with pytest.raises(PPLFileNotFoundError):
            predict(model, ["missing.jpg"])
        assert model.training and model.encoder.training
    finally:
        model.eval()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scales": ()}, PPLValueError, "scales must be"),
        ({"scales": (0.0,)}, PPLValueError, "scales must be"),
        ({"batch_size": 0}, PPLValueError, "batch_size must be at least 1"),
        ({"labels": [[0], [1]]}, PPLValueError, "1 images, but 2 rows"),
        ({"labels": [[7]]}, PPLValueError, "class 7"),
    ],
)
def test_bad_arguments_are_refused(model, arguments, error, message):
    with pytest.raises(error, match=message):
        predict(model, torch.zeros(1, 3, 32, 32), **arguments)


def test_other_models_are_refused():
    with pytest.raises(PPLTypeError, match="use create_segmenter or load"):
        predict(torch.nn.Conv2d(3, 2, 1), torch.zeros(1, 3, 32, 32))


def test_a_result_is_saved_as_a_mask_or_with_probabilities(model, tmp_path):
    result = predict(model, torch.randn(1, 3, 32, 40))[0]
    result.save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png") == result.mask.numpy()).all()
    result.save(tmp_path / "probs.npz")
    with np.load(tmp_path / "probs.npz", allow_pickle=False) as file:
        assert np.allclose(file["probs"], result.probs) and (file["mask"] == result.mask.numpy()).all()
    with pytest.raises(PPLValueError, match=r"must end in \.png"):
        result.save(tmp_path / "mask.jpg")
    with pytest.raises(PPLValueError, match="needs probabilities"):
        SegmentResult(result.mask).save(tmp_path / "mask.npz")
