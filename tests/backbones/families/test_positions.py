"""Each patch must get the positions of its own pixels.

The reference is attention over the whole map that is masked to a cell's own patch and the prefix tokens: patches with
correct positions give the same result. (With prefix tokens this holds for one block after the cut: later the tokens
differ between patches.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl.backbones import CutBackbone
from ppl.backbones.families import Tiling
from ppl.backbones.families.absolute import fourier_grids, patch_part
from ppl.backbones.families.relative import crop_bias, cropped_tables, middle, resized
from ppl.backbones.timm_support import NEWEST_TIMM
from ppl.backbones.view import view_of
from ppl.layers import patch_merge

newest_timm = pytest.mark.skipif(
    not timm.__version__.startswith(NEWEST_TIMM), reason="older releases take the sides of oblong maps in another order"
)


def shaken(model: nn.Module) -> nn.Module:
    """Fill a model with random weights, the same in every run."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return model.eval()


def eva(**kwargs: Any) -> nn.Module:
    from timm.models.eva import Eva

    settings: dict[str, Any] = {"img_size": 64, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 2}
    return shaken(Eva(num_classes=0, use_rot_pos_emb=True, **{**settings, **kwargs}))


def beit(**kwargs: Any) -> nn.Module:
    from timm.models.beit import Beit

    return shaken(
        Beit(
            img_size=64, patch_size=8, embed_dim=64, depth=3, num_heads=2, num_classes=0, use_abs_pos_emb=True, **kwargs
        )
    )


def relpos(**kwargs: Any) -> nn.Module:
    from timm.models.vision_transformer_relpos import VisionTransformerRelPos

    return shaken(
        VisionTransformerRelPos(img_size=64, patch_size=8, embed_dim=64, depth=3, num_heads=2, num_classes=0, **kwargs)
    )


@contextmanager
def attention_within(owner: Tensor, prefix: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Mask attention to cells of the same owner and to prefix tokens."""
    allowed = torch.ones(len(owner) + prefix, len(owner) + prefix, dtype=torch.bool)
    allowed[prefix:, prefix:] = owner[:, None] == owner
    block = torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf"))
    plain = F.scaled_dot_product_attention

    def masked(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        return plain(q, k, v, attn_mask=block if attn_mask is None else attn_mask + block, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", masked)
        yield


MODELS: list[Callable[[], nn.Module]] = [
    eva,
    lambda: eva(ref_feat_shape=(5, 5), num_reg_tokens=2),
    lambda: eva(rope_type="dinov3", use_abs_pos_emb=False, num_reg_tokens=4, rope_rotate_half=True),
    lambda: eva(rope_type="mixed"),
    lambda: beit(use_rel_pos_bias=True),
    lambda: beit(use_shared_rel_pos_bias=True),
    lambda: relpos(rel_pos_type="bias"),
    lambda: relpos(rel_pos_type="mlp", class_token=True),
    lambda: relpos(rel_pos_type="mlp", shared_rel_pos=True, rel_pos_dim=16),
]


@pytest.mark.parametrize("grid", [(2, 2), (1, 4), (4, 2)])
@pytest.mark.parametrize("make", MODELS)
def test_patches_equal_attention_confined_to_the_patch(
    make: Callable[[], nn.Module], grid: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    cutter = CutBackbone(model, [1])  # one block follows
    x = torch.randn(2, 3, 64, 64)
    rows = torch.arange(8) * grid[0] // 8
    columns = torch.arange(8) * grid[1] // 8
    owner = (rows[:, None] * grid[1] + columns).flatten()
    with torch.no_grad():
        final, features = cutter.forward_features(x, [0])
        merged = cutter.patched(0, features[0], grid, (8, 8))
        with attention_within(owner, cutter.cuts[0].prefix_tokens, monkeypatch):
            expected = cutter.resume(0, features[0], (8, 8))
    torch.testing.assert_close(merged, expected, atol=2e-5, rtol=1e-4)
    assert (merged - final).abs().max() > 1e-3


@pytest.mark.parametrize("make", MODELS)
def test_resuming_is_the_plain_forward_wherever_positions_come_from(make: Callable[[], nn.Module]) -> None:
    cutter = CutBackbone(make(), [0, 1])
    with torch.no_grad():
        final, features = cutter.forward_features(torch.randn(1, 3, 64, 64), [0, 1])
        for index, raw in features.items():
            assert torch.equal(cutter.resume(index, raw, (8, 8)), final)


@pytest.mark.parametrize("make", [pytest.param(MODELS[0], marks=newest_timm), MODELS[2], MODELS[3]])
def test_rotary_positions_follow_images_of_another_size(
    make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    cutter = CutBackbone(make(), [1])
    owner = (torch.arange(4)[:, None] // 2 * 2 + torch.arange(12) // 6).flatten()
    with torch.no_grad():
        _, features = cutter.forward_features(torch.randn(1, 3, 32, 96), [0])
        merged = cutter.patched(0, features[0], 2, (4, 12))
        with attention_within(owner, cutter.cuts[0].prefix_tokens, monkeypatch):
            expected = cutter.resume(0, features[0], (4, 12))
    torch.testing.assert_close(merged, expected, atol=2e-5, rtol=1e-4)


def test_positions_are_restored_after_an_exception() -> None:
    model = eva()
    x = torch.randn(1, 3, 64, 64)
    cutter = CutBackbone(model, [1])
    with torch.no_grad():
        before, features = cutter.forward_features(x, [0])
        with pytest.raises(RuntimeError):
            cutter.patched(0, features[0][..., :5], 2, (8, 8))
        assert torch.equal(cutter.forward_features(x)[0], before)
    assert "get_embed" not in vars(model.rope) and "forward" not in vars(model.blocks[0])  # type: ignore[arg-type, index]


@pytest.mark.parametrize("make", [eva, relpos, lambda: relpos(rel_pos_type="mlp"), lambda: beit(use_rel_pos_bias=True)])
def test_positions_survive_gradient_checkpointing(make: Callable[[], Any]) -> None:
    x, gradients = torch.randn(1, 3, 64, 64), []
    for checkpointing in (False, True):
        model = make()
        model.set_grad_checkpointing(checkpointing)
        cutter = CutBackbone(model, [0])
        final, features = cutter.forward_features(x, [0])
        cutter.patched(0, features[0], 2, final.shape[-2:]).square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def tiling(whole: tuple[int, int], cells: tuple[int, int], grid: tuple[int, int] = (2, 2), stride: int = 1) -> Tiling:
    return Tiling(1, grid, cells, 0, whole, 16, stride)


@pytest.mark.parametrize("prefix", [0, 1])
def test_a_cropped_bias_depends_on_offsets_like_the_whole_bias(prefix: int) -> None:
    ys, xs = torch.meshgrid(torch.arange(6), torch.arange(8), indexing="ij")
    cells = torch.stack([ys.flatten(), xs.flatten()])
    offsets = cells[:, :, None] - cells[:, None]
    bias = F.pad((offsets[0] * 100 + offsets[1]).float(), (prefix, 0, prefix, 0), value=7.0)
    cropped = crop_bias(bias[None], tiling((6, 8), (3, 4)))[0]
    ys, xs = torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij")
    cells = torch.stack([ys.flatten(), xs.flatten()])
    offsets = cells[:, :, None] - cells[:, None]
    assert torch.equal(cropped[prefix:, prefix:], (offsets[0] * 100 + offsets[1]).float())
    assert cropped.shape == (12 + prefix, 12 + prefix) and bool((cropped[:prefix] == 7).all())


def test_biases_of_a_coarser_map_are_cropped_at_its_resolution() -> None:
    # Queries are every second cell, as in LeViT's downsampling attention.
    bias = torch.randn(2, 4 * 4, 8 * 8)
    cropped = crop_bias(bias, tiling((8, 8), (4, 4)))
    whole = bias.reshape(2, 4, 4, 8, 8)
    assert torch.equal(cropped, whole[:, :2, :2, :4, :4].reshape(2, 4, 16))


def test_the_middle_of_a_table_holds_the_small_offsets() -> None:
    table = torch.arange(-6.0, 7.0)[:, None]  # offsets of seven cells
    assert middle(table, 3).flatten().tolist() == [-2, -1, 0, 1, 2]
    assert middle(table, 8).flatten().tolist() == [-6, *range(-6, 7), 6]


def test_mvit_tables_give_a_patch_the_scores_of_the_whole_map() -> None:
    from timm.models.mvitv2 import cal_rel_pos_type

    torch.manual_seed(0)
    rows, columns = torch.randn(15, 4), torch.randn(15, 4)
    q = torch.randn(1, 1, 64, 4)
    whole = cal_rel_pos_type(torch.zeros(1, 1, 64, 16), q, False, (8, 8), (4, 4), rows, columns)
    part = q.reshape(8, 8, 4)[:4, :4].reshape(1, 1, 16, 4)
    ours = cal_rel_pos_type(
        torch.zeros(1, 1, 16, 4), part, False, (4, 4), (2, 2), middle(rows, 4), middle(columns, 4)
    )  # fmt: skip
    expected = whole.reshape(8, 8, 4, 4)[:4, :4, :2, :2].reshape(16, 4)
    torch.testing.assert_close(ours[0, 0], expected)


def test_bottleneck_tables_give_a_patch_the_scores_of_the_whole_map() -> None:
    from timm.layers.bottleneck_attn import PosEmbedRel

    torch.manual_seed(0)
    embed = PosEmbedRel((8, 8), 4, 1.0)
    q = torch.randn(1, 64, 4)
    whole = embed(q).reshape(8, 8, 8, 8)[4:, :4, 4:, :4].reshape(16, 16)
    view = view_of(embed, cropped_tables(embed, {"": embed}, tiling((8, 8), (4, 4))))
    ours = view(q.reshape(1, 8, 8, 4)[:, 4:, :4].reshape(1, 16, 4))[0]
    torch.testing.assert_close(ours, whole)
    assert embed(q).shape == (1, 64, 64)


def test_sam_tables_are_cropped_and_not_resampled() -> None:
    from timm.models.vision_transformer_sam import Attention, get_decomposed_rel_pos_bias

    torch.manual_seed(0)
    block = nn.Module()
    block.window_size = 0  # type: ignore[assignment]
    block.attn = Attention(8, num_heads=1, use_rel_pos=True, input_size=(8, 8))
    nn.init.normal_(block.attn.rel_pos_h)
    nn.init.normal_(block.attn.rel_pos_w)
    q = torch.randn(1, 144, 8)  # Tables are resampled for an image of another size.
    whole = get_decomposed_rel_pos_bias(q, block.attn.rel_pos_h, block.attn.rel_pos_w, (12, 12), (12, 12))
    attn = view_of(block, cropped_tables(block, {"": block}, tiling((12, 12), (6, 6)))).attn
    part = q.reshape(1, 12, 12, 8)[:, :6, 6:].reshape(1, 36, 8)
    ours = get_decomposed_rel_pos_bias(part, attn.rel_pos_h, attn.rel_pos_w, (6, 6), (6, 6))
    expected = whole.reshape(12, 12, 12, 12)[:6, 6:, :6, 6:].reshape(1, 36, 36)
    torch.testing.assert_close(ours.reshape(1, 36, 36), expected, atol=1e-5, rtol=1e-4)
    assert resized(block.attn.rel_pos_h, 8) is block.attn.rel_pos_h


@pytest.mark.parametrize("cells", [14, 8], ids=["own size", "smaller"])
@pytest.mark.parametrize("ratio", [1, 2], ids=["all keys", "pooled keys"])
def test_mvit_tables_are_read_at_the_offsets_of_the_whole_map(cells: int, ratio: int) -> None:
    from timm.models.mvitv2 import cal_rel_pos_type

    def biases(block: Any, q: Tensor, side: int) -> Tensor:
        zeros = torch.zeros(1, 1, side * side, (side // ratio) ** 2)
        sides = ([side, side], [side // ratio, side // ratio])
        tables = (block.rel_pos_h, block.rel_pos_w)
        return cal_rel_pos_type(zeros, q.reshape(1, 1, -1, 4), False, *sides, *tables).unflatten(2, (side, side))  # type: ignore[arg-type]

    torch.manual_seed(0)
    model = nn.ModuleList(nn.Module() for _ in range(2))  # the second module follows a stride of two
    for module, native in zip(model, (14, 7), strict=True):
        module.rel_pos_type = "spatial"  # type: ignore[assignment]
        module.rel_pos_h = nn.Parameter(torch.randn(2 * native - 1, 4))
        module.rel_pos_w = nn.Parameter(torch.randn(2 * native - 1, 4))
    block, patch = model[0], cells // 2 + cells // 2 % 2
    where = Tiling(1, (2, 2), (patch, patch), 0, (cells, cells), 16, 2)
    q = torch.randn(cells, cells, 4)
    with torch.no_grad():
        whole = biases(block, q, cells)[:, :, :patch, :patch].unflatten(-1, (cells // ratio, cells // ratio))
        view = view_of(model, cropped_tables(model, {"0": block}, where))[0]
        part = biases(view, q[:patch, :patch], patch).unflatten(-1, (patch // ratio, patch // ratio))
    torch.testing.assert_close(part, whole[..., : patch // ratio, : patch // ratio])


@pytest.mark.parametrize("factor", [1, 2])
def test_merged_parts_of_an_added_grid_equal_the_grid(factor: int) -> None:
    grid = torch.randn(1, 3, 14 // factor, 14 // factor)
    where = Tiling(2, (2, 2), (8, 8), 0, (14, 14), 16, 2)
    parts = patch_part(grid, where, factor)
    assert parts.shape == (8, 3, 8 // factor, 8 // factor)
    merged = patch_merge(parts, 2, (14 // factor, 14 // factor))
    assert torch.equal(merged, grid.expand(2, -1, -1, -1))


def test_fourier_encodings_do_not_stretch_over_a_patch() -> None:
    from timm.models.edgenext import PositionalEncodingFourier

    encoding = PositionalEncodingFourier(dim=6)
    whole = encoding((1, 8, 12))
    changes = fourier_grids(encoding, {"": encoding}, Tiling(1, (2, 2), (4, 6), 0, (8, 12), 16, 1))
    parts = view_of(encoding, changes)((4, 4, 6))
    torch.testing.assert_close(patch_merge(parts, 2), whole)
    assert encoding((1, 4, 6)).shape == (1, 6, 4, 6)
