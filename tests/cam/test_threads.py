"""Several threads that use one model at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch

from ppl.cam import generate
from ppl.cam.dry_run import dry_run
from ppl.cam.eval_mode import in_eval_mode
from ppl.models import create_model


@pytest.mark.parametrize("method", ["auto", "gradcam", "layercam", "sharpened_cam"])
def test_maps_of_threads_are_those_of_one_after_the_other(method):
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=5, zero_init_last=False).train()
    images = [torch.randn(1, 3, 64, 96) for _ in range(16)]

    def work(image):
        return generate(model, image, [[1, 3]], scales=[1.0, 0.5], method=method)[0].maps

    expected = [work(image) for image in images]
    fresh = timm.create_model("test_resnet", num_classes=5, zero_init_last=False).train()  # unknown to the library
    fresh.load_state_dict(model.state_dict())
    model = fresh
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(work, images))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_maps_of_a_patch_learning_network_by_threads():
    torch.manual_seed(0)
    model = create_model("test_resnet", 5, cuts=["layer2", "layer3"], pretrained=False).train()
    images = [torch.randn(1, 3, 64, 96) for _ in range(12)]

    def work(image):
        return generate(model, image, [[1, 3]], scales=[1.0, 0.5])[0].maps

    expected = [work(image) for image in images]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(work, images))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert all(module.training for module in model.modules())


def test_an_error_in_one_thread_leaves_the_others_alone():
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=5, zero_init_last=False).train()
    image = torch.randn(1, 3, 64, 96)
    expected = generate(model, image, [[1]], method="gradcam")[0].maps
    bad = threading.Event()

    def fail(module, args):
        if args[0].shape[-1] == 32:
            bad.set()
            raise ZeroDivisionError

    model.conv1.register_forward_pre_hook(fail)

    def work(number):
        if number % 3 == 0:
            with pytest.raises(ZeroDivisionError):
                generate(model, torch.randn(1, 3, 32, 32), [[1]], method="gradcam", scales=[1.0])
            return expected
        return generate(model, image, [[1]], method="gradcam", scales=(1.0, 0.5, 1.5, 2.0))[0].maps

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(work, range(12)))
    assert bad.is_set()
    for one in found:
        torch.testing.assert_close(one, expected)
    assert all(module.training for module in model.modules())


def test_the_mode_comes_back_when_the_last_user_leaves():
    model = torch.nn.Sequential(torch.nn.Dropout())
    with in_eval_mode(model):
        with in_eval_mode(model):
            assert not model[0].training
        assert not model[0].training
    assert model[0].training


def test_a_dry_run_and_a_pass_of_another_thread_leave_each_other_alone():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.AdaptiveAvgPool2d(1))
    model = torch.nn.Sequential(*model, torch.nn.Flatten(), torch.nn.Linear(4, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inside, leave = threading.Event(), threading.Event()

    def passing():
        with in_eval_mode(model):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=passing)
    thread.start()
    inside.wait(10)
    assert dry_run(model, lambda model, x: model(x)).num_classes == 2
    assert not any(module.training for module in model.modules())
    leave.set()
    thread.join()
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
