from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from ppl.data import Sample, TaggedImages, eval_loader, eval_transform, train_loader, train_transform

MEAN, STD = (0.5,) * 3, (0.25,) * 3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    samples = []
    for i in range(11):
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(folder / f"{i}.jpg")
        samples.append(Sample(str(i), folder / f"{i}.jpg", (i % 3,)))
    return TaggedImages(("a", "b", "c"), tuple(samples))


def loader(dataset, **options):
    return train_loader(dataset, train_transform(24, MEAN, STD), 3, **options)


def batches(loader, epoch=0, start=0):
    loader.set_epoch(epoch, start)
    return list(loader)


def same(left, right):
    return len(left) == len(right) and all(
        torch.equal(a, b) for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_an_epoch_holds_every_image_once(dataset):
    got = batches(loader(dataset, drop_last=False))
    assert [len(batch.indices) for batch in got] == [3, 3, 3, 2]
    indices = torch.cat([batch.indices for batch in got])
    assert sorted(indices.tolist()) == list(range(11))
    assert torch.equal(torch.cat([batch.targets for batch in got]), dataset.targets()[indices])
    assert got[0].images.shape == (3, 3, 24, 24)
    assert len(loader(dataset)) == len(batches(loader(dataset))) == 3


def test_seed_and_epoch_decide_and_nothing_else(dataset):
    reference = batches(loader(dataset, seed=5), epoch=2)
    torch.manual_seed(99)
    assert same(batches(loader(dataset, seed=5), epoch=2), reference)
    assert same(batches(loader(dataset, seed=5, num_workers=2), epoch=2), reference)
    assert not same(batches(loader(dataset, seed=6), epoch=2), reference)
    assert not same(batches(loader(dataset, seed=5), epoch=3), reference)


def test_a_resumed_run_gets_the_batches_of_an_uninterrupted_run(dataset):
    whole = loader(dataset, num_workers=1)
    history = [batches(whole, epoch) for epoch in range(2)]
    resumed = loader(dataset)
    assert same(batches(resumed, epoch=1, start=2), history[1][2:])
    resumed.set_epoch(1, 2)
    assert len(resumed) == 1
    assert same(batches(resumed, epoch=1), history[1])


def test_the_global_generator_keeps_its_state(dataset):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for batch in itertools.islice(loader(dataset), 1):
        assert batch.images.isfinite().all()
    images = loader(dataset).dataset
    torch.set_rng_state(before)
    images[(0, 1)]
    assert torch.equal(torch.rand(3), expected)


def test_the_generator_is_restored_after_a_broken_image(dataset, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no")
    broken = TaggedImages(("a",), (Sample("bad", tmp_path / "bad.jpg", ()),))
    images = train_loader(broken, train_transform(24, MEAN, STD), 1).dataset
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"bad\.jpg"):
        images[(0, 0)]
    assert torch.equal(torch.get_rng_state(), before)


def test_fewer_images_than_a_batch(dataset):
    got = batches(train_loader(dataset[:2], train_transform(24, MEAN, STD), 8))
    assert [len(batch.indices) for batch in got] == [2]


def test_evaluation_keeps_the_order(dataset):
    got = list(eval_loader(dataset, eval_transform((24, 16), MEAN, STD), 4))
    assert torch.cat([batch.indices for batch in got]).tolist() == list(range(11))
    assert got[-1].images.shape == (3, 3, 24, 16)
    assert same(got, list(eval_loader(dataset, eval_transform((24, 16), MEAN, STD), 4, num_workers=2)))


def test_invalid_arguments_are_refused(dataset):
    for make in (train_loader, eval_loader):
        with pytest.raises(ValueError, match="holds no images"):
            make(dataset[:0], eval_transform(8, MEAN, STD), 1)
        with pytest.raises(ValueError, match="batch_size is 0"):
            make(dataset, eval_transform(8, MEAN, STD), 0)
