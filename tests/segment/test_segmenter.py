from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import ppl
from ppl.errors import PPLError, PPLFileNotFoundError, PPLValueError
from ppl.segment import DECODERS, create_segmenter, load, save_segmenter
from ppl.segment.batch_norm import accept_single_values


@pytest.mark.parametrize("decoder", sorted(DECODERS))
@pytest.mark.parametrize("encoder", ["test_resnet", "test_convnext"])
def test_every_decoder_takes_images_of_any_size_and_trains_on_one_image(encoder, decoder):
    model = create_segmenter(encoder, 3, decoder=decoder, pretrained=False).train()
    logits = model(torch.randn(1, 3, 70, 45))
    assert logits.shape == (1, 4, 70, 45)
    logits.mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("decoder", "stride", "expected"),
    [("deeplabv3plus", None, 16), ("deeplabv3", 8, 8), ("fpn", None, 32), ("unet", 32, 32)],
)
def test_the_output_stride_is_that_of_the_encoders_last_map(decoder, stride, expected):
    model = create_segmenter("resnet18", 2, decoder=decoder, pretrained=False, output_stride=stride)
    last = model.encoder(torch.zeros(1, 3, 64, 64))[-1]
    assert model.stride == expected and last.shape[-1] == 64 // expected


def test_a_stride_that_the_encoder_cannot_have_is_refused_by_name():
    with pytest.raises(PPLValueError, match=r"encoder 'pvt_v2_b0' .*output_stride=16.*decoder='fpn'"):
        create_segmenter("pvt_v2_b0", 2, pretrained=False)


def test_a_decoder_without_dilation_takes_no_other_stride():
    with pytest.raises(PPLValueError, match=r"decoder .fpn. needs maps whose strides double .*output_stride=16"):
        create_segmenter("resnet18", 2, decoder="fpn", pretrained=False, output_stride=16)


def test_an_encoder_with_one_map_is_pointed_to_dpt():
    with pytest.raises(PPLValueError, match="'test_vit' has one map at one stride: take decoder='dpt'"):
        create_segmenter("test_vit", 2, decoder="fpn", pretrained=False)


@pytest.mark.parametrize("size", [(64, 96), (70, 90)])
def test_encoders_with_positions_take_other_sizes_than_their_own(size):
    model = create_segmenter("test_vit", 2, decoder="dpt", pretrained=False).eval()
    assert model(torch.zeros(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder": "resnet1"}, "resnet1"),
        ({"decoder": "fpm"}, "no decoder named 'fpm'; did you mean 'fpn'"),
        ({"num_classes": 0}, "num_classes must be 1 to 254"),
        ({"num_classes": 255}, "num_classes must be 1 to 254, .*got 255"),
        ({"output_stride": 4}, "output_stride must be 8, 16 or 32, got 4"),
        ({"decoder": "fpn", "depth": 3}, "cannot be built under decoder 'fpn'"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(PPLValueError, match=message):
        create_segmenter(**{"encoder": "test_resnet", "pretrained": False, **arguments})


@pytest.mark.parametrize("encoder", ["test_resnet", "test_convnext", "mobilenetv2_100"])
def test_a_file_of_timm_keys_fills_the_encoder(encoder, tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model(encoder, pretrained=False)
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    model = create_segmenter(encoder, 2, decoder="fpn", checkpoint_path=tmp_path / "weights.safetensors")
    image = torch.randn(1, 3, 64, 64)
    features = whole.eval().forward_intermediates(image, intermediates_only=True, norm=False)
    ours = model.eval().encoder(image)
    assert torch.allclose(ours[0], next(f for f in features if f.shape == ours[0].shape), atol=1e-5)


def test_the_classifier_that_was_just_trained_fills_the_encoder(tmp_path):
    classifier = ppl.create_model("test_resnet", 2, mode="baseline", pretrained=False)
    ppl.save_model(classifier, tmp_path / "best.safetensors")
    model = create_segmenter("test_resnet", 2, decoder="fpn", checkpoint_path=tmp_path / "best.safetensors")
    trained, ours = classifier.backbone.state_dict(), model.encoder.state_dict()
    assert ours and all(torch.equal(value, trained[name]) for name, value in ours.items())


def test_weights_of_another_network_are_refused(tmp_path):
    save_file(timm.create_model("test_convnext", pretrained=False).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(PPLValueError, match="checkpoint of another model"):
        create_segmenter("test_resnet", 2, decoder="fpn", checkpoint_path=tmp_path / "other.safetensors")
    with pytest.raises(PPLFileNotFoundError, match="no weights at"):
        create_segmenter("test_resnet", 2, decoder="fpn", checkpoint_path=tmp_path / "missing.safetensors")


def test_the_logits_of_padding_are_cut_off():
    model = create_segmenter("test_resnet", 2, decoder="fpn", pretrained=False).eval()
    image = torch.randn(1, 3, 40, 50)
    by_hand = torch.zeros(1, 3, 64, 64)
    by_hand[..., :40, :50] = image
    with torch.no_grad():
        assert torch.equal(model(image), model.network(by_hand)[..., :40, :50])


def test_batch_norm_of_one_value_uses_the_running_statistics():
    norm = nn.BatchNorm2d(2)
    accept_single_values(norm)
    norm.running_mean.fill_(1.0)
    before = norm.state_dict()
    assert torch.allclose(norm.train()(torch.ones(1, 2, 1, 1)), torch.zeros(1, 2, 1, 1))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    reference = nn.BatchNorm2d(2)
    reference.running_mean.fill_(1.0)
    batch = torch.randn(4, 2, 3, 3)
    assert torch.equal(norm(batch), reference.train()(batch))


def test_a_saved_network_gives_the_same_logits(tmp_path):
    model = create_segmenter("test_convnext", 2, decoder="upernet", pretrained=False, decoder_channels=32).eval()
    model.classes = ("cat", "dog")
    save_segmenter(model, tmp_path / "segmenter.safetensors")
    loaded = load(tmp_path / "segmenter.safetensors")
    image = torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        assert torch.equal(loaded(image), model(image))
    assert loaded.classes == ("cat", "dog") and not loaded.training


def test_a_file_of_a_classifier_is_told_apart(tmp_path):
    ppl.save_model(ppl.create_model("test_resnet", 2, mode="baseline", pretrained=False), tmp_path / "c.safetensors")
    with pytest.raises(PPLValueError, match=r"holds a classifier, which ppl\.load_model reads"):
        load(tmp_path / "c.safetensors")
    save_segmenter(create_segmenter("test_resnet", 2, decoder="fpn", pretrained=False), tmp_path / "s.safetensors")
    with pytest.raises(PPLError):
        ppl.load_model(tmp_path / "s.safetensors")


def test_classes_may_be_named():
    model = create_segmenter("test_resnet", ["cat", "dog"], decoder="fpn", pretrained=False)
    assert (model.num_classes, model.classes) == (2, ("cat", "dog"))
