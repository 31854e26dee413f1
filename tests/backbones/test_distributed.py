from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torch.distributed as dist
from processes import run_ranks
from torch import Tensor, nn

from ppl.backbones import CutBackbone, refuse_data_parallel


class Head(nn.Module):
    """A minimal model on a cut backbone: two branches with a 1x1 classifier each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = timm.create_model("test_resnet", pretrained=False, num_classes=0).eval()
        self.cutter = CutBackbone(self.backbone, ["layer2"])
        self.plain, self.patched = (nn.Conv2d(self.cutter.num_features, 3, 1, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        refuse_data_parallel(self)
        final, features = self.cutter.forward_features(x, [0])
        merged = self.cutter.patched(0, features[0], 2, final.shape[-2:])
        return self.plain(final) + self.patched(merged)  # type: ignore[no-any-return]


def images() -> Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


WORK = "import runpy, sys; runpy.run_path(sys.argv[1])['work'](sys.argv[2])"


def work(folder: str) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = nn.parallel.DistributedDataParallel(Head())
    model(images().chunk(2)[rank]).square().mean().backward()
    torch.save({name: p.grad for name, p in model.module.named_parameters()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="gloo is not built in")
def test_two_processes_of_ddp_give_the_gradients_of_one(tmp_path: Path) -> None:
    for code, _, error in run_ranks(WORK, __file__, tmp_path):
        assert code == 0, error
    model = Head()
    model(images()).square().mean().backward()
    ours = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[0][name], ours[1][name], rtol=0, atol=0)
        torch.testing.assert_close(ours[0][name], parameter.grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("strict", [False])
def test_torch_export_takes_the_whole_patched_pass(strict: bool) -> None:
    model = Head().eval()
    x = images()[:1]
    program = torch.export.export(model, (x,), strict=strict)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x))
        torch.testing.assert_close(program.module()(2 * x), model(2 * x))
