from __future__ import annotations

import pytest
import torch

from ppl.models import create_model, load_model, save_model


@pytest.mark.parametrize("pooling", ["average", "max", "generalised_mean:2", "log_sum_exp:4"])
def test_a_model_uses_its_pooling_and_is_saved_with_it(pooling, tmp_path):
    model = create_model("test_resnet", 3, cuts=["layer2"], pooling=pooling, pretrained=False).eval()
    images = torch.randn(2, 3, 64, 64)
    maps = model.class_maps(images)
    expected = {
        "average": maps.mean(dim=(2, 3)),
        "max": maps.amax(dim=(2, 3)),
        "generalised_mean:2": torch.logit((torch.sigmoid(maps) ** 2).mean(dim=(2, 3)).sqrt()),
        "log_sum_exp:4": torch.exp(4 * maps).mean(dim=(2, 3)).log() / 4,
    }[pooling]
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)
    save_model(model, tmp_path / "model.safetensors")
    torch.testing.assert_close(load_model(tmp_path / "model.safetensors").eval()(images), model(images))
