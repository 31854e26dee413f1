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


def rollout(model, x, labels):
    settings = {"scales": [1.0], "flip": False, "size": "feature", "normalize": "none"}
    return generate(model, x, labels, method="attention_rollout", **settings)


def test_torchvisions_transformer_gives_the_maps_of_timms_with_the_same_weights():
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    ours = timm.models.VisionTransformer(64, 16, 3, 5, embed_dim=48, depth=3, num_heads=4, mlp_ratio=2).eval()
    theirs = VisionTransformer(64, 16, 3, 4, 48, 96, num_classes=5).eval().requires_grad_(False)
    names = {"cls_token": "class_token", "pos_embed": "encoder.pos_embedding", "norm": "encoder.ln"}
    names |= {"patch_embed.proj": "conv_proj", "head": "heads.head"}
    parts = {"norm1": "ln_1", "norm2": "ln_2", "attn.proj": "self_attention.out_proj", "mlp.fc1": "mlp.0"}
    parts |= {"mlp.fc2": "mlp.3"}
    for number in range(3):
        block = f"encoder.layers.encoder_layer_{number}"
        names |= {f"blocks.{number}.{key}": f"{block}.{value}" for key, value in parts.items()}
        for kind in ("weight", "bias"):
            names[f"blocks.{number}.attn.qkv.{kind}"] = f"{block}.self_attention.in_proj_{kind}"
    state = ours.state_dict()
    theirs.load_state_dict({_renamed(name, names): 3 * value for name, value in state.items()})
    ours.load_state_dict({name: 3 * value for name, value in state.items()})
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(theirs(x), ours(x), atol=1e-4, rtol=1e-4)
    for one, other in zip(rollout(theirs, x, [[1, 2], [0]]), rollout(ours, x, [[1, 2], [0]]), strict=True):
        assert one.maps.shape[1:] == (4, 4) and one.maps.amax() > 0
        torch.testing.assert_close(one.maps, other.maps, atol=1e-5, rtol=1e-3)


def _renamed(name, names):
    whole = names.get(name)
    if whole is None:
        stem, _, kind = name.rpartition(".")
        whole = f"{names[stem]}.{kind}"
    return whole


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_transformers_models_are_read_by_their_own_attention(implementation):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, image_size=64, num_labels=5
    )
    config._attn_implementation = implementation
    model = transformers.ViTForImageClassification(config).eval()
    torch.nn.init.normal_(model.classifier.weight)
    x = torch.randn(1, 3, 64, 64)
    (result,) = rollout(model, x, [[3]])
    twin = transformers.ViTForImageClassification(config)
    twin.load_state_dict(model.state_dict())
    twin.set_attn_implementation("eager")
    out = twin.eval()(x, output_attentions=True)
    gradients = torch.autograd.grad(out.logits[0, 3], out.attentions)
    relevance = torch.eye(17)
    for matrix, gradient in zip(out.attentions, gradients, strict=True):
        relevance = relevance + (matrix * gradient).clamp(min=0)[0].mean(0) @ relevance
    torch.testing.assert_close(result.maps[0], relevance[0, 1:].reshape(4, 4).detach(), atol=1e-6, rtol=1e-3)


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
