from __future__ import annotations

import gc
import pickle
import sys
import weakref

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from ppl.backbones import half
from ppl.cam import CamResult, generate, iter_generate
from ppl.cam.labels import check_labels, predicted_labels
from ppl.errors import PPLFileNotFoundError, PPLTypeError, PPLValueError
from ppl.io.images import BadImageError
from ppl.models import PPLNet, create_model

SCALES = (1.0, 0.5, 1.5)


def make_model(mode="progressive", **kwargs):
    torch.manual_seed(0)
    settings = {"mode": mode, "cuts": ["layer2", "layer3"], "pretrained": False, "zero_init_last": False, **kwargs}
    return create_model("test_resnet", 5, **settings).eval()


@torch.no_grad()
def by_loops(class_maps, image, classes, scales=SCALES, flip=True, size=None, normalize="max"):
    """The definition: one image, one scale, one mirror image, one class at a time."""
    height, width = image.shape[1:]
    size = size or (height, width)
    maps = []
    for number in classes:
        total = torch.zeros(size)
        for scale in scales:
            scaled = image[None]
            if scale != 1:
                new = (round(height * scale), round(width * scale))
                scaled = F.interpolate(scaled, new, mode="bilinear", align_corners=False)
            activation = class_maps(scaled)[:, number : number + 1].relu()
            total += F.interpolate(activation, size, mode="bilinear", align_corners=False)[0, 0]
            if flip:
                activation = class_maps(scaled.flip(-1))[:, number : number + 1].relu()
                total += F.interpolate(activation, size, mode="bilinear", align_corners=False)[0, 0].flip(-1)
        maps.append(total / (total.max() + 1e-5) if normalize == "max" else total)
    return torch.stack(maps)


@pytest.mark.parametrize("mode", ["baseline", "progressive", "explicit"])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_maps_are_those_of_plain_loops(mode, flip, batch_size):
    model = make_model(mode)
    images = [torch.randn(3, *size) for size in [(64, 96), (75, 64), (64, 96), (64, 96), (101, 77)]]
    labels = [[0, 3], [2], [1], [4, 0, 2], [3]]
    results = generate(model, images, labels, scales=SCALES, flip=flip, batch_size=batch_size, branch="all")
    for image, row, result in zip(images, labels, results, strict=True):
        assert result.classes.tolist() == sorted(row)
        assert result.size == image.shape[1:]
        expected = by_loops(model.class_maps, image, sorted(row), flip=flip)
        torch.testing.assert_close(result.maps, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(20, 30), "feature"])
@pytest.mark.parametrize("normalize", ["max", "none"])
def test_size_and_normalisation(size, normalize):
    model, x = make_model(), torch.randn(2, 3, 64, 96)
    results = generate(model, x, [[1], [2, 4]], scales=SCALES, size=size, normalize=normalize, branch="all")
    for image, row, result in zip(x, [[1], [2, 4]], results, strict=True):
        target = (2, 3) if size == "feature" else size
        expected = by_loops(model.class_maps, image, row, size=target, normalize=normalize)
        torch.testing.assert_close(result.maps, expected, rtol=1e-4, atol=1e-4)


def test_result_has_the_promised_types():
    (result,) = generate(make_model(), torch.randn(1, 3, 64, 64), [[3, 1]])
    assert isinstance(result, CamResult)
    assert result.maps.dtype == result.scores.dtype == torch.float32
    assert result.classes.dtype == torch.int64
    assert result.classes.tolist() == [1, 3]
    assert result.maps.min() >= 0
    assert result.maps.max() <= 1


def test_scores_are_the_models_probabilities():
    model, x = make_model(), torch.randn(3, 3, 64, 96)
    for result, expected in zip(generate(model, x, [[0, 1]] * 3, branch="all"), model(x).sigmoid()[:, :2], strict=True):
        torch.testing.assert_close(result.scores, expected)


def test_multi_hot_rows_are_the_same_as_lists():
    model, x = make_model(), torch.randn(2, 3, 64, 64)
    multi_hot = torch.tensor([[0, 1, 0, 1, 0], [0, 0, 0, 0, 0]])
    for labels in (multi_hot, multi_hot.bool(), multi_hot.float(), multi_hot.numpy()):
        for found, expected in zip(generate(model, x, labels), generate(model, x, [[1, 3], []]), strict=True):
            assert torch.equal(found.maps, expected.maps)
            assert torch.equal(found.classes, expected.classes)


def test_image_without_classes_has_no_maps():
    for labels in ([[], [1]], [[], []]):
        first, second = generate(make_model(), torch.randn(2, 3, 64, 64), labels, scales=[1.0])
        assert first.maps.shape == (0, 64, 64)
        assert len(second.classes) == len(labels[1])


def test_without_labels_the_predicted_classes_are_taken():
    model, x = make_model(), torch.randn(8, 3, 64, 64)
    with torch.no_grad():
        model.fusion.classifiers[0].weight.mul_(20)
        probabilities = model(x).sigmoid()
    for result, row in zip(generate(model, x, scales=(0.5, 1.0), branch="all"), probabilities, strict=True):
        expected = [k for k in range(5) if row[k] > 0.5] or [int(row.argmax())]
        assert result.classes.tolist() == expected


def test_image_of_which_nothing_is_predicted_gets_its_best_class():
    model = make_model()
    with torch.no_grad():
        for classifier in model.fusion.classifiers:
            classifier.weight.copy_(-classifier.weight.abs())
    x = torch.rand(2, 3, 64, 64)
    logits = model(x)
    assert (logits < 0).all()
    for result, row in zip(generate(model, x, branch="all"), logits, strict=True):
        assert result.classes.tolist() == [int(row.argmax())]


def test_files_and_pil_images_are_normalised_as_the_model_was_trained(tmp_path):
    model = make_model()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))
    picture.save(tmp_path / "a.png")
    x = (torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255 - 0.5) / 0.5
    results = generate(model, [tmp_path / "a.png", str(tmp_path / "a.png"), picture, x], [[1]] * 4)
    for result in results:
        torch.testing.assert_close(result.maps, results[-1].maps)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1", "I;16"])
def test_pictures_of_other_modes_are_what_their_files_are(tmp_path, mode):
    picture = Image.new(mode, (40, 50), 30000 if mode == "I;16" else 1)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    picture.save(path)
    memory, file = generate(make_model("baseline"), [picture, path], [[1]] * 2, scales=[1.0])
    assert memory.maps.shape == (1, 50, 40)
    assert torch.equal(memory.maps, file.maps)


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (100, 1), (13, 40), (33, 31)])
def test_images_smaller_than_the_stride_work(size):
    (result,) = generate(make_model("explicit"), [torch.randn(3, *size)], [[0, 1]])
    assert result.maps.shape == (2, *size)
    assert result.maps.isfinite().all()


def test_small_image_is_padded_and_its_map_cropped():
    model, image = make_model("baseline"), torch.randn(3, 20, 64)
    (result,) = generate(model, [image], [[1]], scales=[1.0], flip=False, size="feature", normalize="none")
    padded = F.pad(image[None], (0, 0, 0, 12))
    torch.testing.assert_close(result.maps, model.class_maps(padded)[0, 1:2].relu())


def test_maps_of_an_image_do_not_depend_on_its_companions():
    model, images = make_model(), [torch.randn(3, 64, 64) for _ in range(5)]
    together = generate(model, images, [[2]] * 5, scales=SCALES)
    for image, result in zip(images, together, strict=True):
        alone = generate(model, [image], [[2]], scales=SCALES)[0]
        torch.testing.assert_close(result.maps, alone.maps, rtol=1e-4, atol=1e-5)


def test_mixed_precision_is_close(monkeypatch):
    monkeypatch.setattr(half, "_cpu_has_bfloat16", lambda: True)
    model, x = make_model(), torch.randn(2, 3, 64, 64)
    for found, expected in zip(generate(model, x, [[0], [1]], amp=True), generate(model, x, [[0], [1]]), strict=True):
        assert found.maps.dtype == torch.float32
        torch.testing.assert_close(found.maps, expected.maps, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_model_of_another_precision(dtype):
    (result,) = generate(make_model().to(dtype), torch.randn(1, 3, 64, 64), [[0]])
    assert result.maps.dtype == torch.float32


def snapshot(model):
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    return modes, hooks, {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model, before):
    modes, hooks, state = snapshot(model)
    same = all(torch.equal(value, before[2][name]) for name, value in state.items())
    return (modes, hooks) == before[:2] and same and not torch.is_inference_mode_enabled() and torch.is_grad_enabled()


def test_model_is_left_as_it_was():
    model = make_model().train()
    model.backbone.bn1.eval()
    model.fusion.classifiers[0].weight.grad = torch.ones_like(model.fusion.classifiers[0].weight)
    x, before, random = torch.randn(2, 3, 64, 64), snapshot(model), torch.get_rng_state()
    generate(model, x, [[0], [1]])
    assert unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(model.fusion.classifiers[0].weight.grad, torch.ones_like(model.fusion.classifiers[0].weight))


def test_model_is_left_as_it_was_after_an_error():
    model = make_model().train()
    before = snapshot(model)
    handle = model.backbone.layer4.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate(model, torch.randn(2, 3, 64, 64), [[0], [1]])
    handle.remove()
    assert unchanged(model, before)
    generate(model, torch.randn(2, 3, 64, 64), [[0], [1]])


def test_model_is_free_between_two_results_of_a_stream():
    model = make_model().train()
    before = snapshot(model)
    stream = iter_generate(model, torch.randn(9, 3, 64, 64), [[0]] * 9, batch_size=1)
    next(stream)
    assert unchanged(model, before)
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert len(list(stream)) == 8
    del stream


def test_results_may_enter_a_loss():
    (result,) = generate(make_model(), torch.randn(1, 3, 64, 64), [[0]])
    weight = torch.ones(1, requires_grad=True)
    (weight * result.maps).sum().backward()
    assert not result.maps.is_inference()


def test_results_share_no_memory():
    first, second = generate(make_model(), torch.randn(2, 3, 64, 64), [[0], [0]])
    assert first.maps.untyped_storage().nbytes() == first.maps.nbytes
    assert len(pickle.dumps(first)) < 2 * first.maps.nbytes
    assert first.maps.data_ptr() != second.maps.data_ptr()


def test_every_forward_pass_serves_all_classes_and_mirror_images():
    model, calls = make_model("baseline"), []
    model.backbone.conv1.register_forward_hook(lambda m, args, out: calls.append(tuple(args[0].shape)))
    generate(model, torch.randn(4, 3, 64, 64), [[0, 1, 2, 3, 4]] * 4, scales=(1.0, 0.5), batch_size=4)
    assert calls == [(8, 3, 64, 64), (8, 3, 32, 32)]


def test_stream_reads_images_when_they_are_needed_and_lets_them_go():
    """Not more than a window of images is alive, however many there are."""
    alive, most = [], 0

    def images():
        nonlocal most
        for _ in range(40):
            image = torch.randn(3, 64, 64)
            alive.append(weakref.ref(image))
            most = max(most, sum(ref() is not None for ref in alive))
            yield image
            del image

    stream = iter_generate(make_model("baseline"), images(), [[0]] * 40, scales=[1.0], batch_size=2)
    assert sum(1 for _ in stream) == 40
    gc.collect()
    assert most <= 2 * 4 * 2
    assert not any(ref() is not None for ref in alive)


def test_pictures_are_decoded_ahead_of_their_turn_but_only_a_few():
    drawn = []

    def pictures():
        for number in range(60):
            drawn.append(number)
            yield Image.new("RGB", (64, 64), (4 * number, 0, 0))

    stream = iter_generate(make_model("baseline"), pictures(), [[0]] * 60, scales=[1.0], batch_size=1)
    first = next(stream)
    assert len(drawn) <= 4 + 4 + 1
    alone = [
        generate(make_model("baseline"), [Image.new("RGB", (64, 64), (4 * n, 0, 0))], [[0]], scales=[1.0])
        for n in (0, 59)
    ]
    torch.testing.assert_close(first.maps, alone[0][0].maps)
    *_, last = stream
    torch.testing.assert_close(last.maps, alone[1][0].maps)


def test_nothing_to_do():
    assert generate(make_model(), [], []) == []
    assert generate(make_model(), torch.empty(0, 3, 64, 64)) == []


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([[0]], PPLValueError, "2 images, but 1 rows"),
        ([[0]] * 3, PPLValueError, "2 images, but 3 rows"),
        ([[0], [5]], PPLValueError, r"labels\[1\] holds class 5, but the model's classes are 0\.\.4"),
        ([[-1], [0]], PPLValueError, r"labels\[0\] holds class -1"),
        ([0, 1], PPLTypeError, r"labels\[0\] must be a list of class indices, got 0: write \[0\]"),
        ([["cat"], [0]], PPLTypeError, "must hold integers, got 'cat'"),
        ([[0.5], [0]], PPLTypeError, "must hold integers"),
        ("ab", PPLTypeError, "labels must be a list"),
        (torch.zeros(2, 4), PPLValueError, r"shape \(B,5\).*got \(2, 4\)"),
        (torch.tensor([0, 1]), PPLValueError, "pass a list with one list of class indices per image"),
        (torch.full((2, 5), 2), PPLValueError, "0 and 1 only"),
        (torch.zeros(3, 5), PPLValueError, "2 images, but 3 rows"),
    ],
)
def test_labels_that_do_not_fit_are_an_error_at_once(labels, error, message):
    with pytest.raises(error, match=message):
        iter_generate(make_model(), torch.randn(2, 3, 64, 64), labels)


def test_labels_of_a_stream_of_unknown_length_are_counted():
    for rows in (1, 3):
        with pytest.raises(PPLValueError, match=f"images, but {rows} rows"):
            list(iter_generate(make_model(), iter(torch.randn(2, 3, 64, 64)), [[0]] * rows, scales=[1.0]))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.randn(3, 64, 64), PPLValueError, r"\(B,3,H,W\), got \(3, 64, 64\)"),
        ("a.png", PPLTypeError, r"write \['a\.png'\]"),
        (3, PPLTypeError, "got int"),
        ([torch.zeros(3, 64, 64, dtype=torch.uint8)], PPLTypeError, "image 0 is a tensor of torch.uint8: normalise"),
        ([torch.zeros(1, 64, 64)], PPLValueError, r"shape \(3,H,W\), got \(1, 64, 64\)"),
        ([torch.zeros(3, 0, 64)], PPLValueError, r"got \(3, 0, 64\)"),
        (
            [torch.zeros(3, 64, 64), None],
            PPLTypeError,
            "image 1 must be a tensor, PIL image, array or path, got NoneType",
        ),
        (["nothing.png"], PPLFileNotFoundError, "nothing.png"),
    ],
)
def test_bad_images_are_named(images, error, message):
    with pytest.raises(error, match=message):
        generate(make_model(), images, [[0]] * len(images) if hasattr(images, "__len__") else None)


def test_broken_file_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(BadImageError, match=r"a\.jpg"):
        generate(make_model(), [tmp_path / "a.jpg"], [[0]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": []}, "scales"),
        ({"scales": [0.0]}, "scales"),
        ({"scales": [float("nan")]}, "scales"),
        ({"method": "gradcan"}, "no CAM method named 'gradcan'; did you mean 'gradcam'"),
        ({"normalize": "min"}, "normalize: Input should be 'max' or 'none'"),
        ({"size": "pixel"}, "size must be"),
        ({"size": (0, 5)}, "size must be"),
        ({"size": 7}, "size must be"),
        ({"batch_size": 0}, "batch_size"),
        ({"device": "gpu"}, "device must be one that torch knows, got 'gpu'"),
        ({"scales": 1.0}, r"scales must be a sequence of numbers, got 1\.0"),
        ({"scales": ["1.0"]}, "scales must be a sequence of numbers"),
        ({"size": (10.7, 3)}, r"size must be whole numbers, got 10\.7"),
        ({"batch_size": "2"}, "batch_size must be whole numbers, got '2'"),
    ],
)
def test_bad_settings_are_an_error_at_once(settings, message):
    with pytest.raises((PPLValueError, PPLTypeError), match=message):
        iter_generate(make_model(), torch.randn(1, 3, 64, 64), **settings)


# plain timm classifiers -------------------------------------------------------------------------------------------


def make_classifier(name, **kwargs):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=7, **kwargs).eval()


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_byobnet"])
def test_timm_classifier_with_pool_and_linear_head(name):
    model, image = make_classifier(name), torch.randn(3, 64, 96)

    def class_maps(x):
        weight = model.get_classifier().weight
        return torch.einsum("kc,bchw->bkhw", weight, model.forward_features(x))

    (result,) = generate(model, [image], [[2, 6]], scales=SCALES)
    torch.testing.assert_close(result.maps, by_loops(class_maps, image, [2, 6]), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(result.scores, model(image[None]).sigmoid()[0, [2, 6]], rtol=1e-4, atol=1e-5)
    assert generate(model, [image], [[2, 6]], scales=SCALES, amp=True)[0].maps.shape == (2, 64, 96)


@pytest.mark.parametrize("name", ["test_convnext", "test_vit"])
def test_class_maps_of_a_classifier_that_has_none_are_refused_with_the_way_out(name):
    model = make_classifier(name)
    with pytest.raises(PPLValueError, match=f"{name}' has no exact class maps, since more than.*method='auto'"):
        generate(model, torch.randn(1, 3, 160, 160), [[0]], scales=[1.0], method="cam")


def test_model_without_a_classifier_is_refused_with_the_reason():
    with pytest.raises(PPLValueError, match="num_classes=0 and has no classifier"):
        generate(timm.create_model("test_resnet", num_classes=0), torch.randn(1, 3, 64, 64))


def test_module_that_is_no_classifier_is_refused():
    with pytest.raises(PPLValueError, match="Linear fails on images of 224x224"):
        generate(nn.Linear(1, 1), torch.randn(1, 3, 64, 64))
    with pytest.raises(
        PPLTypeError, match=r"must return logits \(B,K\) for 2 images, got shape \(2, 4, .*wrap the model"
    ):
        generate(nn.Conv2d(3, 4, 3), torch.randn(1, 3, 64, 64))
    with pytest.raises(PPLTypeError, match=r"must be a torch\.nn\.Module, got str"):
        generate("resnet50", torch.randn(1, 3, 64, 64))


# image sizes --------------------------------------------------------------------------------------------------------


class FixedSize(nn.Module):
    """A stand-in for networks whose position table has one size."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 16, 16)
        self.position = nn.Parameter(torch.randn(1, 4, 14, 14))
        self.second = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.second(self.first(x) + self.position)


def test_scale_that_a_fixed_size_backbone_does_not_take_is_refused_by_name():
    model = PPLNet(FixedSize(), 3, mode="baseline", stages=["first", "second"])
    calls, x = [], torch.randn(1, 3, 224, 224)
    assert generate(model, x, [[1]], scales=[1.0])[0].maps.shape == (1, 224, 224)
    model.fusion.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(PPLValueError, match="FixedSize was built for images of 224x224 and does not take 336x336"):
        generate(model, x, [[1]], scales=[1.0, 1.5])
    assert not calls


def test_scale_that_a_fixed_size_timm_classifier_does_not_take_is_refused_by_name():
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, depths=(1, 1), embed_dim=24, num_heads=(1, 2)
    )
    x = torch.randn(1, 3, 56, 56)
    assert generate(model, x, [[1]], scales=[1.0])[0].maps.shape == (1, 56, 56)
    with pytest.raises(PPLValueError, match="'swin_tiny_patch4_window7_224' was built for images of 56x56"):
        generate(model, x, [[1]], scales=[1.0, 2.0])


def test_transformer_takes_any_size():
    model = create_model("test_vit", 3, cuts=["blocks.2"], pretrained=False)
    (result,) = generate(model, [torch.randn(3, 51, 77)], [[1]], scales=[1.0, 1.5])
    assert result.maps.shape == (1, 51, 77)


@pytest.mark.parametrize("mode", ["progressive", "explicit"])
def test_the_unpatched_branch_is_read_by_default_and_nothing_is_cut(mode, monkeypatch):
    model = make_model(mode)
    image = torch.randn(3, 64, 96)

    def unpatched(x):  # written out: backbone, then the last of the 1x1 classifiers
        return F.conv2d(model.backbone.forward_features(x), model.fusion.classifiers[-1].weight)

    with monkeypatch.context() as patch:
        patch.setattr(type(model._cutter), "patched", lambda *_: pytest.fail("a patch was computed"))
        result = generate(model, [image], [[0, 3]], scales=SCALES)[0]
    torch.testing.assert_close(result.maps, by_loops(unpatched, image, [0, 3]))
    assert not torch.allclose(result.maps, generate(model, [image], [[0, 3]], scales=SCALES, branch="all")[0].maps)


def test_where_nothing_is_patched_both_branches_are_the_same():
    image = torch.randn(3, 64, 96)
    for model in (make_model("baseline"), timm.create_model("test_resnet", num_classes=5).eval()):
        every, unpatched = (generate(model, [image], [[1]], branch=name)[0] for name in ("all", "unpatched"))
        torch.testing.assert_close(unpatched.maps, every.maps)
        torch.testing.assert_close(unpatched.scores, every.scores)


@pytest.mark.parametrize("name", ["levit_128s", "tiny_vit_5m_224"])
def test_weights_that_change_between_two_calls_count(name):
    model = create_model(name, 3, mode="baseline", pretrained=False)  # in training mode, as after create_model

    def read():
        return generate(model, image, [[0]], scales=[1.0], flip=False, normalize="none")[0].maps

    image = torch.randn(1, 3, 224, 224)
    before = read()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "attention_biases" in key:
                parameter.normal_(std=5)
    after = read()
    assert (after - before).abs().max() > 0.1 * before.max()
    model.train()  # timm's own way to forget
    torch.testing.assert_close(after, read())


def test_one_lazily_opened_picture_may_stand_in_the_list_many_times(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)).save(tmp_path / "a.jpg")
    model = make_model("baseline")
    for _ in range(5):
        picture = Image.open(tmp_path / "a.jpg")
        results = generate(model, [picture] * 4, [[0], [1], [2], [0]], scales=[1.0], flip=False)
        assert torch.equal(results[0].maps, results[3].maps)


def test_truncated_pil_image_is_named(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:900])
    with pytest.raises(PPLValueError, match=r"image 1 cannot be decoded.*truncated"):
        generate(make_model("baseline"), [Image.open(tmp_path / "a.jpg"), Image.open(tmp_path / "b.jpg")])


@pytest.mark.parametrize("make", [torch.tensor, np.array, list])
def test_list_of_multi_hot_rows_is_not_taken_for_class_indices(make):
    rows = [make([0, 0, 0, 0, 1]), make([1, 0, 0, 0, 0])]
    with pytest.raises(PPLValueError, match=r"labels\[0\] has one value for each of the 5 classes.*torch\.stack"):
        generate(make_model("baseline"), torch.randn(2, 3, 64, 64), rows)


def test_networks_without_padding_get_the_context_that_they_need():
    plain = timm.create_model("inception_v3", num_classes=3, aux_logits=False).eval()
    net = create_model("inception_v3", 3, mode="baseline", pretrained=False, aux_logits=False)
    for model in (plain, net):
        (result,) = generate(model, torch.randn(1, 3, 40, 50), [[0]], scales=[1.0, 0.5])
        assert result.maps.shape == (1, 40, 50)
        assert result.maps.isfinite().all()


def test_sharpened_cam_leaves_a_plain_swin_as_it_was():
    small = {"depths": (1, 1, 2, 1), "embed_dim": 16, "num_heads": (1, 1, 2, 2)}
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=2, **small)
    image = torch.randn(1, 3, 224, 224)
    generate(model, image, [[0]], scales=[1.0], flip=False, method="sharpened_cam")
    assert model.patch_embed.strict_img_size
    with pytest.raises(PPLValueError, match="does not take 112x112"):
        generate(model, image, [[0]], scales=[0.5], flip=False)


def test_a_batch_size_is_kept_for_large_images(monkeypatch):
    monkeypatch.setattr(sys.modules["ppl.cam.stream"], "_WINDOW_PIXELS", 64 * 64)
    model = make_model("baseline")
    sizes = []
    stem = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    stem.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    generate(model, torch.randn(6, 3, 64, 64), [[0]] * 6, scales=[1.0], flip=False, batch_size=6)
    assert sizes == [6]


def test_size_that_a_timm_model_without_a_check_of_its_own_does_not_take_is_refused_by_name():
    model = timm.create_model("visformer_tiny", num_classes=2)
    with pytest.raises(PPLValueError, match=r"'visformer_tiny' was built for images of 224x224.*112x112"):
        generate(model, torch.randn(1, 3, 224, 224), [[0]], scales=[0.5], flip=False)


def test_scales_may_be_any_iterable_of_numbers():
    model, image = make_model("baseline"), torch.randn(1, 3, 64, 64)
    expected = generate(model, image, [[0]], scales=[1.0, 0.5])[0].maps
    for scales in (iter([1.0, 0.5]), np.array([1, 0.5], np.float32)):
        assert torch.equal(generate(model, image, [[0]], scales=scales)[0].maps, expected)


@pytest.mark.parametrize("side", [100, 160, 200])
def test_images_too_small_for_a_fine_grid_are_padded(side):
    model = create_model("test_resnet", 3, mode="explicit", cuts=["layer3"], grids=[16], pretrained=False)
    (result,) = generate(model, torch.randn(1, 3, side, side), [[1]], scales=[1.0], flip=False)
    assert result.maps.shape == (1, side, side)


def test_lack_of_memory_is_not_told_as_a_size():
    model = timm.create_model("visformer_tiny", num_classes=2)

    def full(*_):
        raise torch.cuda.OutOfMemoryError("out of memory")

    model.stem.register_forward_pre_hook(full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        generate(model, torch.randn(1, 3, 160, 160), [[0]], scales=[1.0], flip=False)


def test_predicted_classes_do_not_depend_on_the_rounding_of_half_precision():
    logits = torch.tensor([[0.003, 5.0]])  # a probability that bfloat16 has no number for but 0.5
    for dtype in (torch.float32, torch.bfloat16):
        assert [row.tolist() for row in predicted_labels(logits.to(dtype))] == [[0, 1]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_picture_whose_values_are_no_brightness_is_named(mode):
    pictures = [Image.new("RGB", (64, 64)), Image.new(mode, (64, 64), 70000)]
    with pytest.raises(PPLValueError, match=r"image 1 cannot be decoded: .*70000"):
        generate(make_model(), pictures, [[0], [0]])


def test_an_array_of_rows_of_several_lengths_is_a_list_of_them():
    rows = np.array([[0], [1, 2]], dtype=object)
    assert [row.tolist() for row in check_labels(rows, 3)] == [[0], [1, 2]]
    with pytest.raises(PPLTypeError, match=r"labels\[0\] must be a list of class indices, got 'cat'"):
        check_labels(np.array(["cat", "dog"]), 3)
