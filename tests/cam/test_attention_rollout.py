"""Attention rollout against the equations of Chefer et al., written out for one image and class at a time."""

from __future__ import annotations

import pytest
import timm
import torch

from ppl.cam import generate
from ppl.errors import PPLValueError
from ppl.models import create_model


def make_vit(**kwargs):
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=5, **kwargs).eval()


def written_out(model, image, label, prefix):
    """The map (h,w) of one class, from an ordinary pass without fused attention."""
    matrices = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, args, out: matrices.append(out) or out.retain_grad())
    model(image[None].requires_grad_())[0, label].backward()
    tokens = matrices[0].shape[-1]
    relevance = torch.eye(tokens)
    for matrix in matrices:
        weighted = (matrix * matrix.grad).clamp(min=0)[0].mean(0)
        relevance = relevance + weighted @ relevance
    row = relevance[0] if prefix else relevance.mean(0)
    return row[prefix:].detach()


@pytest.mark.parametrize("settings", [{}, {"global_pool": "avg", "class_token": False}], ids=["class token", "average"])
def test_maps_are_those_of_the_equations(settings):
    model, images = make_vit(**settings), torch.randn(2, 3, 96, 128)
    model.patch_embed.strict_img_size, prefix = False, model.num_prefix_tokens
    fused = [block.attn.fused_attn for block in model.blocks]
    results = generate(
        model,
        images,
        [[0, 3], [2]],
        scales=[1.0],
        flip=False,
        size="feature",
        method="attention_rollout",
        normalize="none",
    )
    assert [block.attn.fused_attn for block in model.blocks] == fused
    assert not any(module._forward_hooks for module in model.modules())
    for image, row, result in zip(images, [[0, 3], [2]], results, strict=True):
        for label, found in zip(row, result.maps, strict=True):
            twin = make_vit(**settings)
            twin.load_state_dict(model.state_dict())
            expected = written_out(twin, image, label, prefix)
            torch.testing.assert_close(found, expected.reshape(6, 8), atol=1e-5, rtol=1e-3)


def test_scales_flips_and_patch_learning_networks():
    model = create_model("test_vit", 3, cuts=["blocks.2"], pretrained=False)
    results = generate(
        model, [torch.randn(3, 96, 128), torch.randn(3, 75, 101)], [[0, 1], []], method="attention_rollout"
    )
    assert [tuple(result.maps.shape) for result in results] == [(2, 96, 128), (0, 75, 101)]
    assert results[0].maps.isfinite().all()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test_resnet", "no attention layers as timm's ViTs have"),
        ("swin_tiny_patch4_window7_224", "does not span all tokens of one stream"),
    ],
)
def test_a_network_without_such_attention_is_refused(name, reason):
    small = {"depths": (1, 1), "embed_dim": 24, "num_heads": (1, 1)} if name.startswith("swin") else {}
    model = timm.create_model(name, num_classes=5, **small)
    with pytest.raises(PPLValueError, match=f"cannot read '{name}': .*{reason}; use method='auto'"):
        generate(model, torch.randn(1, 3, 224, 224), [[0]], scales=[1.0], method="attention_rollout")
