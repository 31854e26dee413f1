from __future__ import annotations

import pytest

from ppl.backbones import CutBackbone, UnsupportedBackboneError, check_backbone
from ppl.backbones.check import check_model
from ppl.backbones.families import Family
from ppl.cli.app import main
from ppl.errors import PPLTypeError, PPLValueError

COATNET = pytest.param("test_coatnet", marks=pytest.mark.timm_model("test_coatnet"))


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "test_byobnet", "test_nfnet", COATNET])
def test_tiny_models_keep_every_identity_at_every_cut(name: str) -> None:
    report = check_backbone(name)
    assert report.supported and not report.reason, str(report)
    assert all(cut.resume_error == 0.0 for cut in report.stages)


def test_stored_swin_masks_break_the_independence_of_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the switch that cutting sets, the masks are applied to the wrong windows, without an error.
    from timm.models.swin_transformer import SwinTransformer

    def make() -> SwinTransformer:
        return SwinTransformer(
            img_size=128, embed_dim=16, depths=(2, 2), num_heads=(2, 2), window_size=4, num_classes=0
        )

    assert check_backbone(make()).supported
    for module in ("dry_run", "hooked"):
        monkeypatch.setattr(f"ppl.backbones.{module}.family_of", lambda model: Family())
    for module in ("check", "cut"):
        monkeypatch.setattr(f"ppl.backbones.{module}.is_tested", lambda model: False)
    stored = make()
    for part in stored.modules():
        if hasattr(part, "strict_img_size"):
            part.strict_img_size = False
    report = check_model("stored", stored, input_size=(128, 128))
    assert not report.supported and report.reason.startswith("after layers.0: ")
    with pytest.raises(UnsupportedBackboneError, match=r"cannot be cut after 'layers\.0'"):
        CutBackbone(stored, ["layers.0"], input_size=(128, 128))


@pytest.mark.timm_model("test_vit_relpos")
def test_the_report_reads_as_a_table_and_names_its_conditions() -> None:
    text = str(check_backbone("test_vit_relpos", cuts=[3]))
    assert "tier 2, 1 of 1 cuts usable (2x2 patches of 160x160 images), final map 96 channels /16" in text
    assert "blocks.3" in text and "note: fixed image size" in text
    assert str(check_backbone("mixer_s32_224")).startswith("mixer_s32_224: refused. MlpMixer cannot be cut")
    with pytest.raises(PPLTypeError, match="takes a timm name or a module, got int"):
        check_backbone(3)  # type: ignore[arg-type]


def test_errors_of_unknown_names_offer_the_nearest_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PPLValueError, match="timm has no model 'resnet5O': did you mean resnet50"):
        check_backbone("resnet5O")
    with pytest.raises(SystemExit) as left:
        main(["check", "resnet5O"])
    assert left.value.code == 2 and "did you mean" in capsys.readouterr().err
