"""One model in several threads: every output is right, and no exception damages the model."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
from torch import Tensor, nn

from ppl.backbones import UnsupportedBackboneError
from ppl.models import PPLNet, create_model

THREADS, PASSES = 4, 30


def model_of(backbone: str = "test_resnet", *, seed: int = 0, **options: object) -> PPLNet:
    torch.manual_seed(seed)
    return create_model(backbone, 3, pretrained=False, **options).eval()  # type: ignore[arg-type]


def images(count: int, size: int = 64) -> list[Tensor]:
    return list(torch.randn(count, 1, 3, size, size, generator=torch.Generator().manual_seed(1)))


def attributes(model: nn.Module) -> list[tuple[str, set[str], bool]]:
    return [(name, set(vars(module)), module.training) for name, module in model.named_modules()]


def in_threads(work: Callable[[int], object], count: int) -> list[object]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(count)))


@torch.no_grad()
def call(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return run(x)


@pytest.mark.parametrize(
    ("backbone", "options", "size"),
    [
        ("test_resnet", {}, 64),
        ("test_resnet", {"mode": "explicit"}, 64),
        ("test_resnet", {"padding": "zeros", "halo": 8, "cuts": ["layer1"]}, 64),
        pytest.param(
            "test_vit_relpos", {"cuts": ["blocks.2"]}, 160, marks=pytest.mark.timm_model("test_vit_relpos")
        ),  # positions of a patch
        ("levit_128s", {"cuts": [1]}, 224),  # biases that are cached in eval mode
        ("coat_lite_tiny", {"cuts": [0]}, 64),  # embeddings that keep the size of their input
        ("test_efficientnet", {}, 64),
    ],
)
def test_outputs_of_all_threads_are_right(backbone: str, options: dict[str, object], size: int) -> None:
    model = model_of(backbone, **options)
    passes = PASSES if backbone == "test_resnet" else 4
    xs = images(4, size)
    runs: list[Callable[[Tensor], Tensor]] = [
        model,
        model.class_maps,
        lambda x: model.unpatched_class_maps(x)[-1],
        model.backbone.forward_features,  # type: ignore[list-item]
    ]
    expected = [[call(run, x) for x in xs] for run in runs]
    before = attributes(model)

    def work(number: int) -> bool:
        run, x = number % len(runs), number // len(runs) % len(xs)
        return torch.equal(call(runs[run], xs[x]), expected[run][x])

    assert all(in_threads(work, THREADS * passes))
    assert attributes(model) == before


def test_outputs_are_right_beside_exceptions_in_another_thread() -> None:
    model = model_of()
    xs = images(2)
    wrong = [torch.randn(1, 4, 64, 64), torch.randn(1, 3, 8, 8), torch.randn(3, 64)]  # channels, size, rank
    expected, before = [call(model, x) for x in xs], attributes(model)

    def work(number: int) -> bool:
        if number % 2:
            with pytest.raises((RuntimeError, ValueError, IndexError)):
                call(model, wrong[number // 2 % 3])
            return True
        return torch.equal(call(model, xs[number // 2 % 2]), expected[number // 2 % 2])

    assert all(in_threads(work, THREADS * PASSES))
    assert attributes(model) == before
    assert [torch.equal(call(model, x), y) for x, y in zip(xs, expected, strict=True)] == [True, True]
    model.train()
    assert model(torch.cat(xs)).requires_grad


@pytest.mark.timm_model("test_vit_relpos")
def test_sizes_are_checked_beside_passes_of_other_threads() -> None:
    model = model_of("test_vit_relpos", cuts=["blocks.2"])
    x = images(1, 160)[0]
    expected = call(model, x)

    def work(number: int) -> bool:
        if number % 3:
            return torch.equal(call(model, x), expected)
        model.check_input_size(160, 160)
        with pytest.raises(UnsupportedBackboneError, match="does not take 96x96"):
            model.check_input_size(96, 96)
        return True

    assert all(in_threads(work, 24))


def test_two_models_run_in_parallel() -> None:
    models = [model_of(seed=seed) for seed in (0, 1)]
    x = images(1)[0]
    expected = [call(model, x) for model in models]
    assert not torch.equal(*expected)
    assert all(in_threads(lambda i: torch.equal(call(models[i % 2], x), expected[i % 2]), THREADS * PASSES))


def test_copies_made_beside_running_threads_are_independent() -> None:
    model = model_of()
    x = images(1)[0]
    expected = call(model, x)

    def work(number: int) -> bool:
        if number % 4:
            return torch.equal(call(model, x), expected)
        twin = copy.deepcopy(model) if number % 8 else pickle.loads(pickle.dumps(model))
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        return not call(twin, x).any()

    assert all(in_threads(work, 40))


def test_gradients_of_one_thread_are_right_beside_passes_of_others() -> None:
    model, x = model_of(), images(1)[0]
    model(x).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    logits = call(model, x)
    model.zero_grad()

    def work(number: int) -> bool:
        if number:
            return torch.equal(call(model, x), logits)
        for _ in range(5):
            model.zero_grad()
            model(x).sum().backward()
        return True

    assert all(in_threads(work, 24))
    assert len(expected) > 10
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name])


def test_threads_that_train_do_not_show_the_dummy_image_to_batch_norm() -> None:
    backbone = timm.create_model("test_resnet", num_classes=0)
    model = PPLNet(backbone, 3, cuts=["layer3"]).train()
    norm, count = backbone.conv1[1], 12
    x = images(1)[0].repeat(2, 1, 1, 1)
    in_threads(lambda _: call(model, x), count)
    assert norm.num_batches_tracked == count  # once per batch of images, never for the dummy image
    assert all(module.training for module in model.modules())


class KeepsAList(nn.Module):
    """A backbone whose forward uses its blocks through a plain list and a stored method."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4))
        self.tail = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.order = [self.stem, self.body]
        self.run = self.all_blocks

    def all_blocks(self, x: Tensor) -> Tensor:
        for block in self.order:
            x = block(x)
        return self.tail(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


def test_blocks_in_plain_lists_do_not_see_the_dummy_image_either() -> None:
    model = PPLNet(KeepsAList(), 3, cuts=["body"], stages=["stem", "body", "tail"]).train()
    counts = [model.backbone.stem[1].num_batches_tracked, model.backbone.body[1].num_batches_tracked]  # type: ignore[index]
    model(torch.randn(2, 3, 32, 32))
    assert counts == [1, 1]
