from __future__ import annotations

import timm
import torch

from ppl.backbones import freeze_stages


def test_all_parameters_except_frozen_ones_get_gradients():
    model = timm.create_model("test_efficientnet", num_classes=0)
    expected = timm.create_model("test_efficientnet", num_classes=0)
    expected.load_state_dict(model.state_dict())
    freeze_stages(model, "blocks.1")
    image = torch.randn(2, 3, 64, 64)
    for network in (model.eval(), expected.eval()):
        network.forward_features(image).square().mean().backward()
    reference = dict(expected.named_parameters())
    for name, parameter in model.named_parameters():
        if name.startswith(("conv_stem", "bn1", "blocks.0.", "blocks.1.")) or reference[name].grad is None:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, reference[name].grad)


def test_tokens_and_position_embeddings_are_frozen_with_the_first_block():
    model = timm.create_model("test_vit", num_classes=0)
    freeze_stages(model, 0)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= frozen
    assert not any(name.startswith(("blocks.1.", "norm.")) for name in frozen)


def test_parameters_that_are_used_after_the_frozen_stage_keep_learning():
    model = timm.create_model("visformer_tiny", num_classes=0)
    freeze_stages(model, 0)
    learning = {name: parameter.requires_grad for name, parameter in model.named_parameters(recurse=False)}
    assert learning == {"pos_embed1": False, "pos_embed2": True, "pos_embed3": True}


def test_freezing_leaves_no_hooks_and_changes_no_attributes():
    model = timm.create_model("test_resnet", num_classes=0).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    freeze_stages(model, "layer2")
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_the_frozen_modules_are_returned():
    model = timm.create_model("test_resnet", num_classes=0)
    frozen = freeze_stages(model, "layer2")
    assert {model.conv1, model.bn1, model.layer2[0].bn1} <= set(frozen)
    assert not {model, model.layer3, model.layer3[0].bn1} & set(frozen)
