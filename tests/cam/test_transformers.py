"""Image classifiers of Hugging Face's transformers, small and with random weights."""

from __future__ import annotations

import pytest
import torch

from ppl.cam import generate

transformers = pytest.importorskip("transformers")

SMALL_VIT = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
SMALL_CNN = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
CASES = [
    ("ViT", {**SMALL_VIT, "image_size": 64, "patch_size": 16}, 64, "hirescam"),
    ("Beit", {**SMALL_VIT, "image_size": 64, "patch_size": 16}, 64, "hirescam"),
    ("Dinov2", {**SMALL_VIT, "image_size": 56, "patch_size": 14}, 56, "hirescam"),
    ("Swin", {"image_size": 64, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}, 64, "cam"),
    ("ConvNext", SMALL_CNN, 96, "hirescam"),
    ("ResNet", {**SMALL_CNN, "embedding_size": 8}, 96, "cam"),
]


@pytest.mark.parametrize(("name", "settings", "side", "read_by"), CASES)
def test_classifiers_of_transformers_have_maps(name, settings, side, read_by):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(num_labels=5, **settings)
    model = getattr(transformers, f"{name}ForImageClassification")(config).eval()
    x = torch.randn(2, 3, side, side)
    results = generate(model, x, [[1, 2], ["LABEL_0"]], scales=[1.0])
    assert [tuple(result.maps.shape) for result in results] == [(2, side, side), (1, side, side)]
    assert all(result.maps.amax() > 0.99 for result in results)
    named = generate(model, x, [[1, 2], [0]], scales=[1.0], method=read_by)
    for one, other in zip(results, named, strict=True):
        torch.testing.assert_close(one.maps, other.maps)
    expected = model(x).logits.sigmoid()
    torch.testing.assert_close(results[0].scores, expected[0, [1, 2]], atol=1e-5, rtol=1e-4)
