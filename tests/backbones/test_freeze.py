from __future__ import annotations

import timm
import torch

from ppl.backbones import freeze_stages


def test_no_gradient_reaches_frozen_parameters_and_every_other_one_gets_its_own():
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
