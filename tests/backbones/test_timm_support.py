"""timm's private attributes: a renamed one is an error by name, and newer releases are measured before use."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from ppl.backbones import CutBackbone, UnsupportedBackboneError, check_backbone, timm_support
from ppl.backbones.families import Family
from ppl.backbones.timm_support import NEWEST_TIMM, OLDEST_TIMM, is_tested

ROOT = Path(__file__).parents[2]


newest_timm = pytest.mark.skipif(
    not timm.__version__.startswith(NEWEST_TIMM), reason="older releases lack the model or refuse it"
)


def vit(**kwargs: object) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=64, patch_size=8, embed_dim=16, depth=3, num_heads=2, num_classes=0, **kwargs)  # type: ignore[no-any-return, arg-type]


def swin() -> nn.Module:
    from timm.models.swin_transformer import SwinTransformer

    return SwinTransformer(img_size=128, embed_dim=16, depths=(2, 2), num_heads=(2, 2), window_size=4, num_classes=0)  # type: ignore[no-any-return]


def eva() -> nn.Module:
    from timm.models.eva import Eva

    return Eva(  # type: ignore[no-any-return]
        img_size=64, patch_size=8, embed_dim=64, depth=3, num_heads=2, num_classes=0, use_rot_pos_emb=True
    )


def test_setup_cfg_names_the_tested_range() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    requirements = config["options"]["install_requires"].split()
    assert f"timm>={OLDEST_TIMM},<2" in requirements
    assert config["tested_versions"]["timm"] == f"{OLDEST_TIMM} {NEWEST_TIMM}"


def test_the_installed_timm_is_in_the_tested_range_and_its_models_are_known() -> None:
    assert is_tested(timm.create_model("test_resnet"))
    assert not is_tested(nn.Sequential())


@pytest.mark.parametrize(("newest", "tested"), [("1.0.9", False), ("1.0.30", False), ("1.1.0", True), ("2.0", True)])
def test_versions_are_compared_by_number(newest: str, tested: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_support, "NEWEST_TIMM", newest)
    monkeypatch.setattr(timm, "__version__", "1.0.31.dev0")
    assert is_tested(timm.create_model("test_resnet")) is tested


@pytest.mark.parametrize(
    ("make", "owner", "attribute"),
    [
        (vit, "patch_embed", "strict_img_size"),
        (vit, "", "dynamic_img_size"),
        (eva, "rope", "_use_cached_embed"),
        (swin, "patch_embed", "strict_img_size"),
        (swin, "*", "dynamic_mask"),
        pytest.param(lambda: timm.create_model("test_vit_relpos", num_classes=0), "*", "get_bias", marks=newest_timm),
        (lambda: timm.create_model("levit_128s", num_classes=0), "*", "get_attention_biases"),
    ],
)
def test_a_renamed_private_attribute_is_an_error_by_name(
    make: object, owner: str, attribute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: nn.Module = make()  # type: ignore[operator]
    for module in model.modules() if owner == "*" else [model.get_submodule(owner)]:
        if attribute in vars(module):
            vars(module)["renamed"] = vars(module).pop(attribute)
        for kind in type(module).__mro__:
            if attribute in vars(kind):
                monkeypatch.delattr(kind, attribute)
    family = type(model).__module__.rpartition(".")[2]
    with pytest.raises(
        UnsupportedBackboneError,
        match=rf"family '{family}'\) cannot be cut with timm {timm.__version__}.*'{attribute}'",
    ):
        CutBackbone(model.eval(), [0])


def test_a_newer_timm_is_measured_before_use(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("dry_run", "hooked"):  # Hide the family, so that the stored masks stay.
        monkeypatch.setattr(f"ppl.backbones.{module}.family_of", lambda model: Family())

    def stored() -> nn.Module:
        model = swin()
        for module in model.modules():
            if hasattr(module, "strict_img_size"):
                module.strict_img_size = False  # type: ignore[assignment]
        return model.eval()

    CutBackbone(stored(), ["layers.0"], input_size=(128, 128))
    monkeypatch.setattr(timm_support, "NEWEST_TIMM", "1.0.0")
    with pytest.raises(UnsupportedBackboneError, match=r"cannot be cut after 'layers\.0'"):
        CutBackbone(stored(), ["layers.0"], input_size=(128, 128))


NEWER = [
    "test_resnet",
    "test_vit",
    pytest.param("test_vit_relpos", marks=newest_timm),
    "hrnet_w18_small",
    "coatnet_nano_rw_224",
    "maxvit_rmlp_pico_rw_256",
]


@pytest.mark.parametrize("name", NEWER)
def test_models_of_a_newer_timm_that_keep_the_identities_are_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_support, "NEWEST_TIMM", "1.0.0")
    torch.manual_seed(0)
    small = {"embed_dim": (32, 32, 64, 64), "depths": (1, 1, 1, 1)} if name.startswith(("coat", "max")) else {}
    model = timm.create_model(name, num_classes=0, **small).eval()
    assert CutBackbone(model, [1]).cuts


def test_swin_of_a_newer_timm_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_support, "NEWEST_TIMM", "1.0.0")
    assert CutBackbone(swin().eval(), [0]).cuts
    assert check_backbone(swin()).supported
